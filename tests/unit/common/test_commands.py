# SPDX-License-Identifier: GPL-2.0-or-later
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import pytest

from vdsm.common import commands, groups, hanging
from vdsm.common.errors import CommandFailed, CommandHangs, CommandNotFound, DeadlineExceeded, OutputTooLong


async def test_output_of_both_streams_is_returned():
    done = await commands.run(["sh", "-c", "echo out; echo err >&2"], timeout_s=5)
    assert (done.out, done.err) == (b"out\n", b"err\n")


async def test_input_reaches_the_command():
    done = await commands.run(["cat"], timeout_s=5, stdin=b"x" * 300_000)
    assert done.out == b"x" * 300_000


async def test_failure_names_command_code_and_stderr():
    with pytest.raises(CommandFailed, match=r"'sh -c .*' failed with code 3: broken") as e:
        await commands.run(["sh", "-c", "echo broken >&2; exit 3"], timeout_s=5)
    assert e.value.code == 3


async def test_secrets_are_never_shown():
    with pytest.raises(CommandFailed) as e:
        await commands.run(["sh", "-c", 'echo "$0" >&2; exit 1', commands.Secret("hunter2")], timeout_s=5)
    assert "hunter2" not in str(e.value)
    assert str(e.value).count("****") == 2


async def test_what_looks_like_a_secret_is_not_shown_either():
    with pytest.raises(CommandFailed) as e:
        await commands.run(["sh", "-c", "echo password=hunter2 >&2; exit 1", "secret=hunter2"], timeout_s=5)
    assert "hunter2" not in str(e.value)


def test_no_text_is_made_of_a_secret_argument():
    assert "hunter2" not in f"{commands.Secret('hunter2')} {commands.Secret('hunter2')!r}"


async def test_missing_command_says_so():
    with pytest.raises(CommandNotFound, match="no-such-command-here"):
        await commands.run(["no-such-command-here"], timeout_s=5)


async def test_deadline_kills_the_whole_group(tmp_path):
    pids = tmp_path / "pids"
    with pytest.raises(DeadlineExceeded):
        await commands.run(["sh", "-c", f"sleep 60 & echo $! $$ > {pids}; wait"], timeout_s=0.5)
    await _all_gone([int(pid) for pid in pids.read_text().split()])


async def test_cancel_kills_the_whole_group(tmp_path):
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    task = asyncio.ensure_future(commands.run(["sh", "-c", f"sleep 60 & echo $! $$ > {pids}; wait"], timeout_s=30))
    text = await asyncio.to_thread(pids.read_text)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _all_gone([int(pid) for pid in text.split()])


@pytest.mark.parametrize("begin", [partial(commands.run, timeout_s=30), commands.start], ids=["command", "child"])
async def test_cancel_in_the_midst_of_a_start_kills_the_whole_group(tmp_path, monkeypatch, begin):
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    loop, release = asyncio.get_running_loop(), asyncio.Event()
    start = loop.subprocess_exec

    async def held(*arguments, **options):
        made = await start(*arguments, **options)
        await release.wait()
        return made

    monkeypatch.setattr(loop, "subprocess_exec", held)
    task = asyncio.ensure_future(begin(["sh", "-c", f"sleep 60 & echo $! $$ > {pids}; wait"]))
    text = await asyncio.to_thread(pids.read_text)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    release.set()
    await _all_gone([int(pid) for pid in text.split()])


@pytest.fixture
async def unkillable(monkeypatch, tmp_path):
    """A signal does nothing, as to a process that waits in the kernel. The ids of those that were to be killed."""
    asked = []
    monkeypatch.setattr(groups, "kill_group", asked.append)
    monkeypatch.setattr(commands, "DEATH_S", 0.1)
    monkeypatch.setattr(hanging, "SETTLE_S", 0.01)
    monkeypatch.setattr(groups, "_folder", str(tmp_path / "groups"))
    os.mkdir(tmp_path / "groups")
    yield asked
    for pid in asked:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        while os.listdir(tmp_path / "groups"):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)  # their pipes are closed


async def test_a_child_that_cannot_be_killed_is_given_up_and_seen_to_when_it_ends(unkillable, tmp_path):
    ended = asyncio.Event()
    with pytest.raises(CommandHangs, match=r"'sleep 60'.* 0\.1 s and can't be killed"):
        await asyncio.wait_for(commands.run(["sleep", "60"], timeout_s=0.1, ended_late=ended.set), 5)
    assert os.listdir(tmp_path / "groups") == [str(unkillable[0])], "the next start kills it"
    assert not ended.is_set()
    os.kill(unkillable[0], signal.SIGKILL)
    await asyncio.wait_for(ended.wait(), 5)
    assert os.listdir(tmp_path / "groups") == []


@pytest.mark.parametrize("why", ["cancel", "output"])
async def test_nothing_waits_long_for_a_child_that_cannot_be_killed(unkillable, why, tmp_path):
    argv = ["sleep", "60"] if why == "cancel" else ["sh", "-c", "trap '' PIPE; echo too much; exec sleep 60"]
    task = asyncio.ensure_future(commands.run(argv, timeout_s=60, max_output=5))
    if why == "cancel":
        while not os.listdir(tmp_path / "groups"):
            await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(asyncio.CancelledError if why == "cancel" else CommandHangs):
        await asyncio.wait_for(task, 5)


async def test_no_more_is_begun_where_commands_hang_until_one_has_ended(unkillable):
    for _ in range(hanging.MOST):
        with pytest.raises(CommandHangs):
            await commands.run(["sleep", "60"], timeout_s=0.1, place="/mnt/dead")
    with pytest.raises(hanging.PlaceHangs, match="/mnt/dead: 2 processes"):
        await commands.run(["true"], timeout_s=5, place="/mnt/dead")
    await commands.run(["true"], timeout_s=5, place="/mnt/alive")
    os.kill(unkillable[0], signal.SIGKILL)
    async with asyncio.timeout(5):
        while len(hanging.pids("/mnt/dead")) == hanging.MOST:
            await asyncio.sleep(0.01)
    await commands.run(["true"], timeout_s=5, place="/mnt/dead")


async def test_too_much_output_is_refused():
    with pytest.raises(OutputTooLong, match="more than 1000 bytes"):
        await commands.run(["sh", "-c", "yes"], timeout_s=5, max_output=1000)


async def test_left_over_child_does_not_hold_the_result():
    started = asyncio.get_running_loop().time()
    done = await commands.run(["sh", "-c", "sleep 60 & echo done"], timeout_s=30)
    assert done.out == b"done\n"
    assert asyncio.get_running_loop().time() - started < 5


async def test_environment_is_only_what_is_given(monkeypatch):
    monkeypatch.setenv("LEAK", "yes")
    done = await commands.run(["env"], timeout_s=5, env={"PATH": commands.PATH, "GIVEN": "1"})
    assert b"LEAK" not in done.out
    assert b"GIVEN=1" in done.out


def test_child_dies_with_a_killed_agent_and_its_group_at_the_next_start(tmp_path):
    script = textwrap.dedent(f"""
        import asyncio
        from vdsm.common import commands, groups
        groups.set_folder({str(tmp_path / "commands")!r})
        asyncio.run(commands.run(["sh", "-c", "sleep 60 & echo $! $$ > {tmp_path}/pids.new;"
            "mv {tmp_path}/pids.new {tmp_path}/pids; wait"], timeout_s=50))
    """)
    agent = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 10
    while not ((tmp_path / "pids").exists() and any(name.isdigit() for name in os.listdir(tmp_path / "commands"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    grandchild, child = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    agent.kill()
    agent.wait()
    assert groups.kill_recorded(str(tmp_path / "commands")) == [child]
    assert groups.members(child) == []
    assert groups.start_time(grandchild) is None or grandchild not in groups.members(child)
    assert os.listdir(tmp_path / "commands") == []


def test_recorded_id_of_a_stranger_is_left_alone(tmp_path):
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (tmp_path / str(stranger.pid)).write_text("12345\n")
        assert groups.kill_recorded(str(tmp_path)) == []
        assert stranger.poll() is None
    finally:
        stranger.send_signal(signal.SIGKILL)
        stranger.wait()


@pytest.mark.parametrize(
    ("how", "recorded"), [({"process_group": 0}, 0), ({"start_new_session": True}, 10**15)], ids=["session", "age"]
)
def test_a_group_without_its_leader_that_is_not_the_recorded_one_is_left_alone(tmp_path, how, recorded):
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, **how)
    stranger = int(leader.stdout.readline())
    leader.stdout.close()
    leader.wait()
    try:
        (tmp_path / str(leader.pid)).write_text(f"{recorded}\n")
        assert groups.kill_recorded(str(tmp_path)) == []
        assert _running(stranger)
    finally:
        os.kill(stranger, signal.SIGKILL)


async def _all_gone(pids):
    async with asyncio.timeout(5):
        for pid in pids:
            while _running(pid):
                await asyncio.sleep(0.01)


def _running(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
