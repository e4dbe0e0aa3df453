# SPDX-License-Identifier: GPL-2.0-or-later
"""The I/O helper: real files, a mount that hangs (a FIFO does), a helper that dies."""

import asyncio
import base64
import contextlib
import errno
import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage.errors import IoFailed, StorageNotResponding
from storage.file import ionursery, iopool, ioprocess
from storage.file.io import FileIo
from storage.file.iohelper import long, requests, serving
from vdsm.common import hanging as hanging_module


@pytest.fixture
async def io(tmp_path):
    made = FileIo(str(tmp_path), timeout_s=5.0)
    yield made
    await made.close()


@pytest.fixture
def hanging(tmp_path):
    path = tmp_path / "hanging"
    os.mkfifo(path)
    return str(path)


async def test_write_atomic_replaces_and_leaves_nothing_else(io, tmp_path):
    path = tmp_path / "metadata"
    await io.write_atomic(str(path), b"old")
    await io.write_atomic(str(path), b"new", mode=0o660)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o660
    assert os.listdir(tmp_path) == ["metadata"]


async def test_write_atomic_does_not_follow_a_planted_link(io, tmp_path):
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "metadata.new").symlink_to(tmp_path / "victim")
    await io.write_atomic(str(tmp_path / "metadata"), b"x")
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path)) == ["metadata", "victim"]
    assert not (tmp_path / "metadata").is_symlink()


async def test_a_rename_that_was_abandoned_cannot_land_on_newer_content(io, tmp_path, monkeypatch):
    path = str(tmp_path / "metadata")
    renames = []
    with monkeypatch.context() as patch:
        patch.setattr(requests.os, "rename", lambda *names: renames.append(names))
        requests.write_atomic(path, base64.b64encode(b"older").decode(), 0o644)  # killed in its rename: not done yet
    await io.write_atomic(path, b"newer")
    with pytest.raises(FileNotFoundError):
        os.rename(*renames[0])  # it happens now
    assert Path(path).read_bytes() == b"newer"


async def test_a_link_that_was_abandoned_cannot_land_on_newer_content(io, tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"older")
    renames = []
    with monkeypatch.context() as patch:
        patch.setattr(requests.os, "rename", lambda *names: renames.append(names))
        patch.setattr(requests, "remove", lambda _path: None)
        requests.relink(str(source), str(target))
    source.unlink()
    source.write_bytes(b"newer")
    await io.relink(str(source), str(target))
    with pytest.raises(FileNotFoundError):
        os.rename(*renames[0])
    assert target.read_bytes() == b"newer"
    assert target.stat().st_ino == source.stat().st_ino
    await io.relink(str(source), str(target))
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


async def test_temporaries_of_other_files_stay(io, tmp_path):
    for name in ("metadata2.new", "metadata2.new.1", "metadata.newer"):
        (tmp_path / name).touch()
    await io.write_atomic(str(tmp_path / "metadata"), b"x")
    assert sorted(os.listdir(tmp_path)) == ["metadata", "metadata.newer", "metadata2.new", "metadata2.new.1"]


async def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "metadata"
    path.write_bytes(b"old")

    def full(_fd):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(requests.os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        requests.write_atomic(str(path), base64.b64encode(b"new").decode(), 0o644)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["metadata"]


CALLS = ["fsync", "fdatasync", "rename", "link", "unlink", "rmdir", "mkdir", "ftruncate", "pwrite", "pwritev"]


class Recorded:
    """System calls of the helper's code, run in this process: their order on the disk is what is looked at."""

    def __init__(self, monkeypatch):
        self.calls = []
        for name in CALLS:
            monkeypatch.setattr(requests.os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name, call):
        def wrapped(*args, **named):
            subject = args[0] if isinstance(args[0], str) else os.readlink(f"/proc/self/fd/{args[0]}")
            self.calls.append((name, os.path.basename(subject).partition(".new")[0]))
            return call(*args, **named)

        return wrapped


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_answer(tmp_path, monkeypatch):
    seen = Recorded(monkeypatch)
    requests.write_atomic(str(tmp_path / "metadata"), base64.b64encode(b"x").decode(), 0o644)
    assert seen.calls == [("fsync", "metadata"), ("rename", "metadata"), ("fsync", tmp_path.name)]


@pytest.mark.parametrize(
    ("op", "names"),
    [
        ("create", ["new"]),
        ("make_folder", ["new"]),
        ("rename", ["old", "new"]),
        ("relink", ["old", "new"]),
        ("remove", ["old"]),
        ("remove_folder", ["folder"]),
        ("remove_tree", ["folder"]),
    ],
)
def test_every_change_of_a_folder_is_on_the_disk_before_the_answer(tmp_path, monkeypatch, op, names):
    (tmp_path / "old").touch()
    (tmp_path / "folder").mkdir()
    more = {"create": (4096, 0o660), "make_folder": (0o755,)}.get(op, ())
    seen = Recorded(monkeypatch)
    {**serving.OPERATIONS, **serving.LONG}[op](*(str(tmp_path / name) for name in names), *more)
    assert seen.calls[-1] == ("fsync", tmp_path.name)


@pytest.mark.parametrize("op", ["create", "truncate", "allocate", "write_direct"])
def test_sizes_and_content_are_on_the_disk_before_the_answer(tmp_path, monkeypatch, op):
    path = tmp_path / "volume"
    if op != "create":
        path.write_bytes(b"\1" * 4096)
    more = {
        "create": (4096, 0o660),
        "truncate": (8192,),
        "allocate": (8192, 0, lambda _done, _size: None),
        "write_direct": (base64.b64encode(b"x" * 512).decode(), 0),
    }[op]
    seen = Recorded(monkeypatch)
    {**serving.OPERATIONS, **serving.LONG}[op](str(path), *more)
    kept = [call for call, subject in seen.calls if subject == "volume"]
    assert kept[-1] in ("fsync", "fdatasync")


async def test_a_rename_between_folders_is_on_the_disk_in_both(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "f").touch()
    seen = Recorded(monkeypatch)
    requests.rename(str(tmp_path / "a" / "f"), str(tmp_path / "b" / "f"))
    assert sorted(seen.calls[1:]) == [("fsync", "a"), ("fsync", "b")]


# File systems that lack something: each fallback by itself


def refuses(number):
    def call(*_args):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("offset", [0, 4096, 5000, 8192])
def test_without_fallocate_only_the_new_range_is_written(tmp_path, monkeypatch, number, offset):
    path = tmp_path / "volume"
    path.write_bytes(b"\1" * 8192)
    monkeypatch.setattr(long, "_fallocate", refuses(number))
    told = []
    long.allocate(str(path), (20 << 20) + 512, offset, lambda done, size: told.append((done, size)))
    content = path.read_bytes()
    assert content[:8192] == b"\1" * 8192
    assert content[8192:] == bytes((20 << 20) + 512 - 8192)
    assert path.stat().st_blocks * 512 >= 20 << 20
    assert told[-1] == ((20 << 20) + 512, (20 << 20) + 512)
    assert len(told) > 2


def test_without_fallocate_a_smaller_size_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "volume"
    path.write_bytes(b"\1" * 8192)
    monkeypatch.setattr(long, "_fallocate", refuses(errno.EOPNOTSUPP))
    long.allocate(str(path), 4096, 0, lambda _done, _size: None)
    assert path.read_bytes() == b"\1" * 8192


def test_each_piece_is_on_the_disk_when_it_is_told(tmp_path, monkeypatch):
    path = tmp_path / "volume"
    path.touch()
    monkeypatch.setattr(long, "_fallocate", refuses(errno.EOPNOTSUPP))
    seen = Recorded(monkeypatch)
    long.allocate(str(path), 17 << 20, 0, lambda done, _size: seen.calls.append(("told", done)))
    for place, call in enumerate(seen.calls):
        if call[0] == "told":
            assert seen.calls[place - 1] == ("fdatasync", "volume")


def test_with_fallocate_data_stays(tmp_path):
    path = tmp_path / "volume"
    path.write_bytes(b"\1" * 8192)
    long.allocate(str(path), 1 << 20, 0, lambda _done, _size: None)
    assert path.read_bytes()[:8192] == b"\1" * 8192
    assert path.stat().st_size == 1 << 20


def test_a_full_disk_is_no_reason_to_write_zeros(tmp_path, monkeypatch):
    path = tmp_path / "volume"
    path.touch()
    monkeypatch.setattr(long, "_fallocate", refuses(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        long.allocate(str(path), 1 << 20, 0, lambda _done, _size: None)
    assert path.stat().st_size == 0


def test_what_the_kernel_says_to_an_allocation_is_told(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with open(path, "r+b", buffering=0), pytest.raises(OSError, match="Illegal seek") as refused:
        long.allocate(str(path), 1 << 20, 0, lambda _done, _size: None)
    assert refused.value.errno == errno.ESPIPE


def test_a_file_system_without_direct_io_is_told_and_leaves_no_probe(tmp_path, monkeypatch):
    real = os.open

    def without_direct(path, flags, *mode):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return real(path, flags, *mode)

    monkeypatch.setattr(requests.os, "open", without_direct)
    with pytest.raises(OSError, match="Invalid argument"):
        requests.block_size(str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("needed", [1, 512, 4096])
def test_the_probe_finds_the_smallest_size_that_works(tmp_path, monkeypatch, needed):
    def only(_fd, parts, _offset):
        if len(parts[0]) % needed:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(requests.os, "pwritev", only)
    assert requests.block_size(str(tmp_path)) == needed


def test_a_probe_that_dies_leaves_no_file(tmp_path, monkeypatch):
    left = []

    def dies(*_args):
        left.append(os.listdir(tmp_path))
        raise OSError(errno.EIO, "dead")

    monkeypatch.setattr(requests.os, "pwritev", dies)
    with pytest.raises(OSError, match="dead"):
        requests.block_size(str(tmp_path))
    assert left == [[]]


async def test_direct_io_in_the_middle_of_a_file(io, tmp_path):
    path = str(tmp_path / "f")
    await io.create(path, size=8192)
    await io.write_direct(path, b"m" * 512, offset=4096)
    assert await io.read_direct(path, offset=4096, size=512) == b"m" * 512
    assert len(await io.read_direct(path, offset=4096, size=8192)) == 4096
    assert os.path.getsize(path) == 8192


async def test_created_files_have_their_mode_whatever_the_umask(io, tmp_path):
    path = tmp_path / "volume"
    await io.create(str(path), size=1 << 20)
    status = await io.status(str(path))
    assert (status.mode, status.size, status.allocated) == (0o660, 1 << 20, 0)
    with pytest.raises(IoFailed, match="EEXIST"):
        await io.create(str(path))


async def test_space_says_whether_a_file_may_be_written(io, tmp_path):
    mine = tmp_path / "ids"
    mine.write_bytes(b"as it was")
    before = mine.stat()
    assert (await io.space(str(tmp_path), writes=[str(mine)])).refused == ""
    assert (mine.read_bytes(), mine.stat().st_mtime_ns) == (b"as it was", before.st_mtime_ns)
    assert (await io.space(str(tmp_path), writes=[str(tmp_path / "none")])).refused == ""  # which another look tells
    # not even root opens it for writing
    assert (await io.space("/sys", writes=[str(mine), "/sys/kernel/uevent_seqnum"])).refused == "Permission denied"


async def test_allocate_takes_space_and_tells_its_progress(io, tmp_path):
    path = tmp_path / "volume"
    await io.create(str(path), size=300 << 20)
    told = []
    await io.allocate(str(path), 300 << 20, timeout_s=30, progress=lambda done, size: told.append((done, size)))
    assert path.stat().st_blocks * 512 >= 300 << 20
    assert told[-1] == (300 << 20, 300 << 20)
    assert len(told) > 1


async def test_block_size_probe_leaves_no_file(io, tmp_path):
    assert await io.block_size(str(tmp_path)) in (1, 512, 4096)
    assert os.listdir(tmp_path) == []


async def test_listing_by_folder(io, tmp_path):
    for name in ("a/1.meta", "a/1", "b/2.meta"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "file").touch()
    assert await io.list_matching(str(tmp_path), ".meta") == {"a": ["1.meta"], "b": ["2.meta"]}


async def test_remove_tree_does_not_follow_links(io, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "outside")
    await io.remove_tree(str(tmp_path / "tree"))
    await io.remove_tree(str(tmp_path / "tree"))
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert (tmp_path / "outside" / "kept").exists()


@pytest.fixture
def slow_unlink(tmp_path, monkeypatch):
    """Helpers whose every unlink takes as long as is told."""
    script = tmp_path / "slow.py"

    def slow(seconds):
        script.write_text(
            "import os, time\n"
            "unlink = os.unlink\n"
            f"os.unlink = lambda *names: (time.sleep({seconds}), unlink(*names))\n"
            "import runpy\n"
            f"runpy.run_path({ionursery._SCRIPT!r}, run_name='__main__')\n"
        )
        monkeypatch.setattr(ionursery, "_SCRIPT", str(script))

    return slow


async def test_a_removal_takes_as_long_as_it_goes_forward(tmp_path, slow_unlink):
    (tmp_path / "tree").mkdir()
    for n in range(8):
        (tmp_path / "tree" / str(n)).touch()
    slow_unlink(0.3)
    io = FileIo(str(tmp_path), timeout_s=1.5)
    await io.discard(str(tmp_path / "tree"))
    await io.discard(str(tmp_path / "tree"))
    assert not (tmp_path / "tree").exists()
    await io.close()


async def test_a_removal_that_stands_still_has_a_deadline(tmp_path, slow_unlink):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").touch()
    slow_unlink(30)
    io = FileIo(str(tmp_path), timeout_s=0.5)
    with pytest.raises(StorageNotResponding, match="discard"):
        await io.discard(str(tmp_path / "tree"))
    await io.close()


async def test_a_removal_keeps_no_other_request_waiting(tmp_path, slow_unlink):
    (tmp_path / "file").touch()
    slow_unlink(1)
    io = FileIo(str(tmp_path), timeout_s=5)
    removal = asyncio.ensure_future(io.discard(str(tmp_path / "file")))
    assert await io.exists(str(tmp_path))
    assert not removal.done()
    await removal
    await io.close()


def test_a_large_file_is_removed_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(long, "CUT", 1 << 20)
    path = tmp_path / "volume"
    path.write_bytes(bytes(4 << 20))
    told = []
    long.discard(str(path), lambda done, left: told.append((done, left)))
    assert told == [(0, 3 << 20), (0, 2 << 20), (0, 1 << 20), (1, 0)]
    assert not path.exists()


def test_a_large_file_that_may_not_be_written_is_removed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(long, "CUT", 1 << 20)
    path, opened = tmp_path / "people.iso", os.open

    def refuse(name, flags, *rest, **keywords):
        if name == str(path) and flags & os.O_WRONLY:
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return opened(name, flags, *rest, **keywords)

    path.write_bytes(bytes(4 << 20))
    monkeypatch.setattr(os, "open", refuse)
    long.discard(str(path), lambda _done, _left: None)
    assert not path.exists()


def test_a_large_file_with_another_link_keeps_its_content_there(tmp_path, monkeypatch):
    monkeypatch.setattr(long, "CUT", 1 << 20)
    path, other = tmp_path / "volume", tmp_path / "shared"
    path.write_bytes(b"\1" * (4 << 20))
    os.link(path, other)
    long.discard(str(path), lambda _done, _left: None)
    assert not path.exists() and other.read_bytes() == b"\1" * (4 << 20)


async def test_errors_name_operation_path_and_errno(io, tmp_path):
    with pytest.raises(IoFailed) as e:
        await io.read(str(tmp_path / "none"))
    assert (e.value.operation, e.value.error, e.value.path) == ("read", "ENOENT", str(tmp_path / "none"))


async def test_a_longer_file_than_expected_is_refused(io, tmp_path):
    (tmp_path / "long").write_bytes(b"x" * 1000)
    with pytest.raises(IoFailed, match="EFBIG"):
        await io.read(str(tmp_path / "long"), max_size=999)


async def test_hanging_request_ends_at_its_deadline_and_the_next_is_served(io, hanging, tmp_path):
    io.timeout_s = 0.3
    started = time.monotonic()
    with pytest.raises(StorageNotResponding, match=r"read took more than 0\.3 s"):
        await io.read(hanging)
    assert time.monotonic() - started < 1.5
    io.timeout_s = 5.0
    assert await io.exists(str(tmp_path))


async def test_a_request_that_waits_its_turn_has_the_same_deadline(io, hanging, tmp_path):
    io.timeout_s = 0.5
    first = asyncio.ensure_future(io.read(hanging))
    await asyncio.sleep(0)
    io.timeout_s = 0.2
    with pytest.raises(StorageNotResponding, match="waiting for its turn"):
        await io.exists(str(tmp_path))
    with pytest.raises(StorageNotResponding):
        await first


async def test_helpers_that_cannot_be_killed_are_bounded(io, hanging, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ioprocess.Helper, "kill", lambda self: None)
        io.timeout_s = 0.3
        for _ in range(hanging_module.MOST):
            with pytest.raises(StorageNotResponding):
                await io.read(hanging)
        assert io.stuck == hanging_module.MOST
        other = FileIo(f"{io.name}/domain", mount=io.name)
        for refused in (io.read(hanging), other.read(hanging), other.allocate(hanging, 1, timeout_s=5)):
            started = time.monotonic()
            with pytest.raises(StorageNotResponding, match="2 helpers hang"):
                await refused
            assert time.monotonic() - started < 0.5
        elsewhere = FileIo(f"{io.name}/elsewhere")
        assert await elsewhere.exists(hanging)
        await elsewhere.close()
        pids = io.pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        while io.stuck:
            await asyncio.sleep(0.01)
    io.timeout_s = 5.0
    assert await io.exists(hanging)


async def test_cancelled_request_does_not_answer_the_next(io, hanging, tmp_path):
    request = asyncio.ensure_future(io.read(hanging))
    await asyncio.sleep(0.2)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert await io.list_folder(str(tmp_path)) == ["hanging"]


async def test_allocating_that_hangs_ends_and_is_counted(io, hanging):
    with pytest.raises(StorageNotResponding, match=r"allocate took more than 0\.3 s"):
        await io.allocate(hanging, 1, timeout_s=0.3)
    assert io.stuck == 1
    assert await io.exists(hanging)


async def test_requests_that_are_cancelled_together_refuse_nobody(io, hanging, tmp_path):
    others = [FileIo(f"{io.name}/{n}", mount=io.name) for n in range(4)]
    requests = [asyncio.ensure_future(other.read(hanging)) for other in others]
    async with asyncio.timeout(5):
        while not all(other.pids for other in others):
            await asyncio.sleep(0.01)
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    assert await io.exists(hanging)
    await asyncio.gather(*(other.close() for other in others))


async def test_a_failed_allocation_leaves_no_helper(io, tmp_path):
    started = []
    real = ioprocess.Helper.start.__func__

    async def start(cls, *args):
        started.append(await real(cls, *args))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ioprocess.Helper, "start", classmethod(start))
        with pytest.raises(IoFailed, match="ENOENT"):
            await io.allocate(str(tmp_path / "none"), 1, timeout_s=5)
    await asyncio.wait([started[0].end], timeout=5)
    assert not started[0].alive
    assert io.stuck == 0


async def test_a_busy_hosts_slow_start_of_a_helper_is_no_silence_of_the_storage(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nsleep 1\nexec {os.path.realpath(sys.executable)} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(ionursery, "_python", lambda: str(python))
    io = FileIo(str(tmp_path), timeout_s=0.5)
    assert await io.list_folder(str(tmp_path)) == ["python"]
    await io.close()


async def test_a_helper_that_does_not_start_is_told_and_killed(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho $$ > $(dirname $0)/pid\nexec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(ionursery, "_python", lambda: str(python))
    monkeypatch.setattr(ioprocess, "START_S", 0.5)
    io = FileIo(str(tmp_path))
    with pytest.raises(IoFailed, match="did not start"):
        await io.exists(str(tmp_path))
    pid = int((tmp_path / "pid").read_text())
    async with asyncio.timeout(5):
        while os.path.exists(f"/proc/{pid}"):
            await asyncio.sleep(0.01)
    await io.close()


async def test_killed_helper_is_replaced(io, tmp_path):
    assert await io.exists(str(tmp_path))
    os.kill(io.pids[0], signal.SIGKILL)
    async with asyncio.timeout(5):
        while True:
            try:
                assert await io.exists(str(tmp_path))
            except IoFailed:
                continue
            break


async def test_closed_io_refuses(tmp_path):
    io = FileIo(str(tmp_path))
    assert await io.exists(str(tmp_path))
    pid = io.pids[0]
    await io.close()
    assert not os.path.exists(f"/proc/{pid}")
    with pytest.raises(IoFailed, match="EBADF"):
        await io.exists(str(tmp_path))


PARENT = """
import asyncio, sys
from storage.file.io import FileIo
async def main():
    io = FileIo(sys.argv[1])
    await io.exists(sys.argv[1])
    print(io.pids[0], flush=True)
    await io.read(sys.argv[1] + "/hanging")
asyncio.run(main())
"""


def test_a_hanging_helper_dies_with_its_agent(tmp_path, hanging):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    fd = os.pidfd_open(pid)
    parent.kill()
    parent.communicate()
    import select

    assert select.select([fd], [], [], 5)[0], "the helper is still alive"
    os.close(fd)


async def test_the_helper_is_small(io, tmp_path):
    assert await io.exists(str(tmp_path))
    with open(f"/proc/{io.pids[0]}/smaps_rollup", encoding="ascii") as f:
        pss = next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
    assert pss < 16 * 1024


async def test_health_is_never_behind_a_slow_request(io, tmp_path, hanging):
    (tmp_path / "metadata").write_bytes(b"x" * 4096)
    slow = asyncio.ensure_future(io.read(hanging))
    while len(io.pids) < 1:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(3):
        took_s, content = await io.read_timed(str(tmp_path / "metadata"))
        assert (took_s < 3, content) == (True, b"x" * 4096)
        assert (await io.space(str(tmp_path))).total > 0
    assert not slow.done()
    assert len(io.pids) == 2  # one more for all looks
    os.close(os.open(hanging, os.O_WRONLY))
    await slow
    await io.space(str(tmp_path))
    async with asyncio.timeout(5):
        while len(io.pids) > 1:
            await asyncio.sleep(0.01)


async def test_health_beside_a_slow_request_has_its_deadline(io, tmp_path, hanging):
    other = tmp_path / "other"
    os.mkfifo(other)
    slow = asyncio.ensure_future(io.read(hanging))
    while len(io.pids) < 1:
        await asyncio.sleep(0.01)
    io.timeout_s = 0.3
    with pytest.raises(StorageNotResponding, match="read_timed"):
        await io.read_timed(str(other))
    os.close(os.open(hanging, os.O_WRONLY))
    await slow


async def test_what_changes_something_says_which_paths_and_what_only_reads_names_none(tmp_path, monkeypatch):
    """By that the pool knows whose helper holds a lease."""
    asked = {}

    async def ask(_pool, request):
        asked[request.op] = bool(request.writes)
        return {} if request.op in ("list_matching", "list_folder") else base64.b64encode(b"1").decode()

    monkeypatch.setattr(iopool.IoPool, "ask", ask)
    io = FileIo(str(tmp_path))
    for name, call in vars(FileIo).items():
        if inspect.iscoroutinefunction(call) and name not in ("close", "_ask", "_change"):
            given = {"path": "/f", "folder": "/f", "source": "/a", "target": "/b", "data": b"", "size": 1, "mode": 0}
            given |= {"suffix": ".x", "timeout_s": 1.0}
            wanted = inspect.signature(call).parameters
            required = {n: given[n] for n, one in wanted.items() if n != "self" and one.default is one.empty}
            with contextlib.suppress(TypeError, ValueError):  # of the answer, which is none of its own
                await call(io, **required)
    await io.close()
    changing = {call.__name__ for call in serving._CHANGING} | set(serving.LONG)
    assert asked == dict.fromkeys(serving.OPERATIONS | serving.LONG, False) | dict.fromkeys(changing, True)
