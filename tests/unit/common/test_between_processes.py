# SPDX-License-Identifier: GPL-2.0-or-later
"""What processes of ours say to each other, byte by byte, and what each keeps on disk for the next one."""

import asyncio
import io
import json
import os
import socket
import stat
import subprocess
import sys

import pytest

from vdsm.common import atomic, errors, framing, groups, logs
from vdsm.common.errors import AgentError, InvalidParameter, RemoteError
from vdsm.common.link import Link, LinkClosed

# -- frames


def test_a_frame_is_its_length_and_the_shortest_json():
    assert framing.encode_frame({"a": [1, "ü"]}) == b"\0\0\0\x12" + b'{"a":[1,"\\u00fc"]}'


class Trickle(io.RawIOBase):
    """A pipe that gives a byte at a time."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def read(self, size=-1):
        return self._data.read(min(size, 1))


def test_frames_are_read_one_by_one_however_slowly_they_come():
    stream = Trickle(framing.encode_frame({"n": 1}) + framing.encode_frame([]))
    assert (framing.read_frame(stream), framing.read_frame(stream)) == ({"n": 1}, [])
    with pytest.raises(EOFError):
        framing.read_frame(stream)


@pytest.mark.parametrize("cut", [1, 3, 4, 6])
def test_a_frame_that_is_cut_off_is_the_end(cut):
    with pytest.raises(EOFError):
        framing.read_frame(io.BytesIO(framing.encode_frame("text")[:cut]))


def test_frames_have_a_limit_on_both_sides(monkeypatch):
    monkeypatch.setattr(framing, "MAX_FRAME", 6)
    most = framing.encode_frame("abcd")
    assert framing.read_frame(io.BytesIO(most)) == "abcd"
    with pytest.raises(framing.FrameTooLong, match="a frame of 7 bytes is over the limit of 6"):
        framing.encode_frame("abcde")
    with pytest.raises(framing.FrameTooLong, match="a frame of 7 bytes is over the limit of 6"):
        framing.read_frame(io.BytesIO(b"\0\0\0\x07" + b"x" * 7))


# -- errors


def crossed(error):
    return errors.decode(json.loads(json.dumps(errors.encode(error))))


def test_an_error_is_the_same_on_the_other_side():
    error = crossed(InvalidParameter("size", "'x'", "expected bytes"))
    assert type(error) is InvalidParameter
    assert (error.name, error.value, error.reason) == ("size", "'x'", "expected bytes")


def test_an_error_on_the_wire_has_a_kind_its_fields_and_a_sentence():
    assert errors.encode(errors.CommandNotFound("lvm")) == {
        "error": "vdsm.common.errors:CommandNotFound",
        "fields": {"command": "lvm"},
        "text": "Command 'lvm' is not installed on this host",
    }
    assert errors.encode(KeyError("x")) == {"error": "KeyError", "fields": {}, "text": "KeyError: 'x'"}


@pytest.mark.parametrize(
    "told",
    [
        {"error": "other.version:Gone", "fields": {"a": 1}, "text": "it is gone"},
        {"error": "vdsm.common.errors:CommandNotFound", "fields": {"name": "lvm"}, "text": "it is gone"},
        {"error": "vdsm.common.errors:CommandNotFound", "fields": None, "text": "it is gone"},
        {"error": "vdsm.common.errors:CommandNotFound", "text": "it is gone"},
    ],
)
def test_an_error_of_another_version_keeps_its_sentence(told):
    error = errors.decode(told)
    assert type(error) is RemoteError
    assert (error.kind, str(error)) == (told["error"], "it is gone")


def test_an_error_without_anything_is_an_error():
    error = errors.decode({})
    assert (type(error), error.kind, str(error)) == (RemoteError, "unknown", "")


def test_an_error_shows_its_class_and_sentence():
    assert repr(errors.CommandNotFound("lvm")) == "CommandNotFound(\"Command 'lvm' is not installed on this host\")"
    assert str(AgentError()) == "The agent failed"


# -- links


@pytest.fixture
async def sockets():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    theirs.close()


async def linked(sockets, **server):
    ours, theirs = sockets
    client = Link(*await asyncio.open_connection(sock=ours), name="server")
    serving = Link(*await asyncio.open_connection(sock=theirs), name="client", **server)
    running = [asyncio.ensure_future(link.run()) for link in (client, serving)]
    return client, serving, running


async def ended(client, serving, running):
    await client.close()
    await serving.close()
    await asyncio.wait_for(asyncio.gather(*running), 10)


async def test_a_call_carries_its_parameters_and_its_flow(sockets):
    async def serve(verb, params):
        return [verb, params, logs.flow_id.get()]

    link = await linked(sockets, serve=serve)
    with logs.flow("flow-7"):
        assert await link[0].call("Mount.list", {"a": None}, timeout_s=10) == ["Mount.list", {"a": None}, "flow-7"]
    assert (await link[0].call("x", {}, timeout_s=10))[2] == ""
    await ended(*link)


async def test_a_side_that_serves_nothing_says_so(sockets):
    link = await linked(sockets)
    with pytest.raises(RemoteError) as e:
        await link[0].call("x", {}, timeout_s=10)
    assert str(e.value) == "client serves no calls"
    await ended(*link)


async def test_a_notification_that_nobody_wants_is_dropped_and_the_link_goes_on(sockets):
    async def serve(verb, params):
        return verb

    link = await linked(sockets, serve=serve)
    await link[0].notify("lease.lost", {})
    assert await link[0].call("x", {}, timeout_s=10) == "x"
    await ended(*link)


async def test_a_closed_link_says_whose_it_is(sockets):
    link = await linked(sockets)
    assert not link[0].closed
    await ended(*link)
    assert link[0].closed
    for use in (link[0].call("x", {}, timeout_s=10), link[0].notify("x", {})):
        with pytest.raises(LinkClosed) as e:
            await use
        assert str(e.value) == "The connection to server is closed"


async def test_what_is_no_message_ends_the_link(sockets, caplog):
    ours, theirs = sockets
    link = Link(*await asyncio.open_connection(sock=ours), name="server")
    theirs.sendall(b"\0\0\0\x02{]")
    await asyncio.wait_for(link.run(), 10)
    assert link.closed
    with theirs.makefile("rb") as told:
        assert "no message" in framing.read_frame(told)["closing"]
        assert told.read() == b""
    assert "server sent what is no message" in caplog.text


async def test_an_answer_that_nobody_waits_for_any_more_is_dropped(sockets):
    ours, theirs = sockets
    link = Link(*await asyncio.open_connection(sock=ours), name="server")
    running = asyncio.ensure_future(link.run())
    call = asyncio.ensure_future(link.call("x", {}, timeout_s=10))
    while not link._waiting:
        await asyncio.sleep(0)
    for message in ({"id": 99, "result": 0}, {"id": 1, "result": 1}, {"id": 1, "result": 2}, {"id": 1, "error": {}}):
        theirs.sendall(framing.encode_frame(message))
    assert await call == 1
    await link.close()
    await asyncio.wait_for(running, 10)


# -- files


def test_a_file_has_its_mode_and_owner_before_its_name(tmp_path, monkeypatch):
    done, real = [], {name: getattr(os, name) for name in ("fchown", "fchmod", "fsync", "rename")}
    for name in real:

        def call(first, *rest, name=name):
            kind = "folder" if isinstance(first, int) and stat.S_ISDIR(os.fstat(first).st_mode) else "file"
            done.append((name, kind))
            return real[name](first, *rest)

        monkeypatch.setattr(os, name, call)
    atomic.write_atomic(tmp_path / "state", b"new", 0o640, (os.getuid(), os.getgid()))
    assert done == [(n, "file") for n in ("fchown", "fchmod", "fsync", "rename")] + [("fsync", "folder")]
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o640
    assert (tmp_path / "state").read_bytes() == b"new"


def test_a_file_is_for_all_to_read_unless_it_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atomic.write_atomic("state", b"x")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["state"]
    atomic.remove_durably("state")
    atomic.remove_durably("state")
    assert os.listdir(tmp_path) == []


def test_what_is_removed_does_not_come_back_after_a_power_cut(tmp_path, monkeypatch):
    (tmp_path / "state").write_text("x")
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    atomic.remove_durably(tmp_path / "state")
    assert synced == [str(tmp_path)]


def test_a_file_is_written_beside_its_place(tmp_path, monkeypatch):
    renamed, rename = [], os.rename
    monkeypatch.setattr(os, "rename", lambda *names: renamed.append(names) or rename(*names))
    atomic.write_atomic(tmp_path / "state", b"x")
    ((temporary, place),) = renamed
    assert os.path.dirname(temporary) == str(tmp_path)
    assert os.path.basename(temporary).startswith(".state.")
    assert place == tmp_path / "state"


def crash_at(value, **more):
    code = "from vdsm.common.crashpoints import crash_point\ncrash_point('a.b', 'c').reach()\nprint('alive')"
    given = {**os.environ, "VDSM_CRASH_AT": value, **more}
    return subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, check=False)


def test_a_running_process_is_told_by_a_file_where_to_crash(tmp_path):
    told = tmp_path / "told"
    assert crash_at(f"@{told}").stdout == b"alive\n"
    told.write_text(" a.b\n")
    assert crash_at(f"@{told}").returncode == -9
    told.write_text("a.c")
    assert crash_at(f"@{told}").stdout == b"alive\n"


def test_a_power_cut_is_asked_of_the_kernel_by_one_letter(tmp_path):
    (tmp_path / "trigger").touch()
    assert crash_at("a.b", VDSM_CRASH_POWER=str(tmp_path / "trigger")).returncode == -9
    assert (tmp_path / "trigger").read_bytes() == b"b"
    assert crash_at("a.b", VDSM_CRASH_POWER=str(tmp_path / "no" / "trigger")).returncode == -9


# -- process groups


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "_folder", None)
    groups.set_folder(str(tmp_path / "run" / "commands"))
    return tmp_path / "run" / "commands"


@pytest.fixture
def start():
    started = []

    def start(*argv):
        process = subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        groups.kill_group(process.pid)
        process.wait()
        process.stdout.close()


def test_a_group_is_on_record_with_its_start_while_it_runs(folder, start):
    child = start("sleep", "60")
    groups.record(child.pid, "/mnt/a b")
    assert (folder / str(child.pid)).read_text() == f"{groups.start_time(child.pid)} {os.getpid()} /mnt/a b\n"
    assert os.listdir(folder) == [str(child.pid)]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    groups.forget(child.pid)
    groups.forget(child.pid)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["0", "1", "-1"])
def test_a_record_of_no_group_of_ours_kills_nobody(folder, name):
    (folder / name).write_text("1\n")
    code = f"from vdsm.common import groups; print(groups.kill_recorded({str(folder)!r}, 0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, start_new_session=True)
    assert (done.returncode, done.stdout) == (0, b"[]\n")
    assert os.listdir(folder) == []


def test_a_group_that_can_not_be_recorded_is_told_and_runs(folder, start, caplog):
    folder.rmdir()
    child = start("sleep", "60")
    groups.record(child.pid)
    assert f"process group {child.pid} is not on record" in caplog.text
    assert groups.members(child.pid) == [child.pid]


def test_a_group_that_ended_at_once_can_be_recorded(folder):
    gone = subprocess.Popen(["true"])
    gone.wait()
    groups.record(gone.pid)
    assert (folder / str(gone.pid)).read_text() == f"0 {os.getpid()} \n"


def test_what_an_earlier_run_left_is_killed_and_gone_when_it_is_told(folder, start):
    left, others = [start("sleep", "60") for _ in range(2)], start("sleep", "60")
    for child in left:
        groups.record(child.pid)
    assert sorted(groups.kill_recorded(str(folder))) == sorted(child.pid for child in left)
    assert [groups.members(child.pid) for child in (*left, others)] == [[], [], [others.pid]]
    assert os.listdir(folder) == []


def test_a_group_whose_leader_has_ended_is_killed_too(folder, start):
    # the leader waits until it is on record, and leaves a child
    shell = start("sh", "-c", "sleep 60 & echo $!; kill -STOP $$")
    child = int(shell.stdout.readline())
    groups.record(shell.pid)
    os.kill(shell.pid, 9)
    shell.wait()
    assert groups.members(shell.pid) == [child]
    assert groups.kill_recorded(str(folder)) == [shell.pid]
    assert groups.members(shell.pid) == []


def test_records_that_are_none_are_removed_and_the_others_count(folder, start):
    child = start("sleep", "60")
    groups.record(child.pid)
    (folder / "a").write_text("1")
    (folder / "1").write_text("x")
    assert groups.kill_recorded(str(folder)) == [child.pid]
    assert os.listdir(folder) == []


def test_without_a_folder_there_is_nothing_to_kill_and_nothing_is_recorded(tmp_path, monkeypatch):
    assert groups.kill_recorded(str(tmp_path / "no")) == []
    monkeypatch.setattr(groups, "_folder", None)
    monkeypatch.chdir(tmp_path)
    groups.record(os.getpid())
    groups.forget(os.getpid())
    assert os.listdir(tmp_path) == []


def test_killing_is_not_waited_for_longer_than_told(folder, start, monkeypatch):
    child = start("sleep", "60")
    groups.record(child.pid)
    with monkeypatch.context() as patched:
        patched.setattr(groups, "kill_group", lambda pgid: None)
        assert groups.kill_recorded(str(folder), 0.05) == [child.pid]
    assert groups.members(child.pid) == [child.pid]


def test_what_runs_still_of_one_that_ended_is_known_with_its_place(folder, start):
    ended, started = [start("sleep", "60") for _ in range(2)]
    groups.record(ended.pid, "/mnt/x")
    groups.record(started.pid, "/mnt/a b")
    groups.kill_group(ended.pid)
    ended.wait()
    assert groups.left_by(os.getpid()) == [groups.Left(started.pid, "/mnt/a b")]
    assert groups.left_by(1) == []
    assert os.listdir(folder) == [str(started.pid)]


def test_a_process_whose_first_thread_has_ended_runs_still(folder, start):
    code = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=[60]).start(); print(1, flush=True); "
    )
    child = start(sys.executable, "-c", code + "ctypes.CDLL(None).pthread_exit(0)")
    child.stdout.readline()
    groups.record(child.pid)
    while open(f"/proc/{child.pid}/stat").read().rpartition(")")[2].split()[0] != "Z":  # noqa: SIM115 - until it has
        assert child.poll() is None
    assert groups.members(child.pid) == [child.pid]
    assert groups.left_by(os.getpid()) == [groups.Left(child.pid, "")]


def test_an_odd_process_name_does_not_hide_its_start(start, tmp_path):
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/sleep")
    child = start(str(odd), "60")
    while b"a) S" not in (comm := open(f"/proc/{child.pid}/comm", "rb").read()):  # noqa: SIM115 - until it has its name
        assert child.poll() is None, comm
    assert abs(groups.start_time(child.pid) - groups.start_time(os.getpid())) < 100 * 3600 * 24
    assert groups.members(child.pid) == [child.pid]


def test_one_that_does_not_end_stays_on_record_and_is_known_to_the_next_run(folder, start, monkeypatch):
    hangs, ends = start("sleep", "60"), start("sleep", "60")
    groups.record(hangs.pid, "/mnt/a")
    groups.record(ends.pid, "/mnt/a")
    kill = groups.kill_group
    monkeypatch.setattr(groups, "kill_group", lambda pgid: pgid == hangs.pid or kill(pgid))
    groups.kill_recorded(str(folder), 0.5)
    assert os.listdir(folder) == [str(hangs.pid)]
    code = f"from vdsm.common import groups; groups.set_folder({str(folder)!r}); print(groups.left_by_earlier())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == f"[Left(pid={hangs.pid}, place='/mnt/a')]\n"
    assert groups.left_by_earlier() == []  # its own, of which it knows by itself
    kill(hangs.pid)
