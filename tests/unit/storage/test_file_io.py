# SPDX-License-Identifier: GPL-2.0-or-later
"""The I/O helper: real files, a mount that hangs (a FIFO does), a helper that dies."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from storage.errors import IoFailed, StorageNotResponding
from storage.file import io as io_module
from storage.file import iohelper
from storage.file.io import FileIo


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
    with pytest.raises(IoFailed, match="ELOOP"):
        await io.write_atomic(str(tmp_path / "metadata"), b"x")
    assert (tmp_path / "victim").read_bytes() == b"mine"


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


async def test_allocate_takes_space_and_tells_its_progress(io, tmp_path):
    path = tmp_path / "volume"
    await io.create(str(path), size=300 << 20)
    told = []
    await io.allocate(str(path), 300 << 20, timeout_s=30, progress=lambda done, size: told.append((done, size)))
    assert path.stat().st_blocks * 512 >= 300 << 20
    assert told[-1] == (300 << 20, 300 << 20)
    assert len(told) > 1


@pytest.fixture
def unable(monkeypatch):
    """The helper's operations in this process, on a file system that can't reserve space (NFS v3, ext2)."""

    def refuse(fd, offset, size):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(iohelper, "_fallocate", refuse)


@pytest.mark.parametrize(("begin", "end"), [(0, 3 << 20), (5000, 3 << 20), (2 << 20, 4 << 20)])
def test_where_space_cannot_be_reserved_no_byte_of_the_file_changes(unable, tmp_path, begin, end):
    path = tmp_path / "volume"
    data = os.urandom(2 << 20)
    path.write_bytes(data)
    iohelper.allocate(str(path), end, begin, lambda done, size: None)
    assert path.read_bytes() == data + bytes(end - len(data))


def test_where_space_cannot_be_reserved_all_behind_the_end_is_written(unable, tmp_path):
    path = tmp_path / "volume"
    path.write_bytes(bytes(4096))
    told = []
    iohelper.allocate(str(path), 20 << 20, 4096, lambda done, size: told.append((done, size)))
    assert path.stat().st_size == 20 << 20
    assert path.stat().st_blocks * 512 >= 20 << 20
    assert told[-1] == (20 << 20, 20 << 20)
    assert len(told) > 1


def test_a_file_that_is_long_enough_is_left_alone_where_space_cannot_be_reserved(unable, tmp_path):
    path = tmp_path / "volume"
    data = os.urandom(8192)
    path.write_bytes(data)
    iohelper.allocate(str(path), 4096, 0, lambda done, size: None)
    assert path.read_bytes() == data


def test_an_error_of_reserving_is_no_reason_to_write(tmp_path, monkeypatch):
    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(iohelper, "_fallocate", full)
    path = tmp_path / "volume"
    path.write_bytes(b"x")
    with pytest.raises(OSError, match="full"):
        iohelper.allocate(str(path), 1 << 20, 0, lambda done, size: None)
    assert path.read_bytes() == b"x"


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
        patch.setattr(io_module._Helper, "kill", lambda self: None)
        io.timeout_s = 0.3
        for _ in range(io_module.MAX_STUCK):
            with pytest.raises(StorageNotResponding):
                await io.read(hanging)
        assert io.stuck == io_module.MAX_STUCK
        started = time.monotonic()
        with pytest.raises(StorageNotResponding, match="2 helpers hang"):
            await io.read(hanging)
        assert time.monotonic() - started < 0.1
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
