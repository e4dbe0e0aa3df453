# SPDX-License-Identifier: GPL-2.0-or-later
"""The I/O of one mount with real helpers: what waits behind what, what a hung lane leaves alone, what helpers remain.

A FIFO that nobody opens at the other end hangs whoever opens it.
"""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage.errors import IoFailed, StorageNotResponding
from storage.file import ioclaims, ioidle, ionursery, ioprocess
from storage.file.io import FileIo
from storage.file.iolanes import MOST_HELPERS, WIDTHS, Lane
from storage.file.iopool import IoPools
from vdsm.common import groups, hanging, metrics

SOON_S = 5.0


class Mount:
    """A folder that stands for a mount, and the pools of a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pools = IoPools()
        self.users: list[FileIo] = []

    def io(self, name: str = "", timeout_s: float = 20.0) -> FileIo:
        user = FileIo(
            f"{self.path}/{name}" if name else str(self.path),
            mount=str(self.path),
            timeout_s=timeout_s,
            pools=self.pools,
        )
        self.users.append(user)
        return user

    def fifo(self, name: str) -> str:
        path = self.path / name
        os.mkfifo(path)
        return str(path)

    def fifos(self, name: str, count: int) -> list[str]:
        return [self.fifo(f"{name}{n}") for n in range(count)]

    def file(self, name: str, size: int = 4096) -> str:
        path = self.path / name
        path.write_bytes(bytes(size))
        return str(path)

    async def release(self, fifo: str) -> None:
        """Whoever waits to read it reads its end."""
        async with asyncio.timeout(SOON_S):
            while True:
                with contextlib.suppress(OSError):  # nobody has come to wait yet
                    os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
                    return
                await asyncio.sleep(0.01)

    @property
    def helpers(self) -> list[int]:
        return self.pools.of(str(self.path)).pids

    async def helpers_are(self, count: int) -> None:
        async with asyncio.timeout(SOON_S):
            while len(self.helpers) != count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def mount(tmp_path: Path) -> AsyncIterator[Mount]:
    made = Mount(tmp_path / "mount")
    made.path.mkdir()
    yield made
    await asyncio.gather(*(user.close() for user in made.users))
    await made.pools.close()


@pytest.fixture
def immortal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Helpers that are killed go on: they hang in the kernel. They end with the test."""
    pids: list[int] = []
    monkeypatch.setattr(ioprocess.Helper, "kill", lambda self: pids.append(self.pid))
    yield
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def begin(*requests):
    return [asyncio.ensure_future(request) for request in requests]


async def end(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# Helpers


async def test_domains_of_one_mount_share_one_helper(mount):
    one, other = mount.io("one"), mount.io("other")
    for io in (one, other, one, other):
        await io.exists(str(mount.path))
        await io.space(str(mount.path))
        await io.read_mail(mount.file("mail"))
    assert len(mount.helpers) == 1


async def test_mounts_have_helpers_of_their_own(mount, tmp_path):
    other = FileIo(str(tmp_path), pools=mount.pools)
    await mount.io().exists(str(mount.path))
    await other.exists(str(tmp_path))
    assert set(mount.helpers).isdisjoint(other.pids)
    await other.close()


async def test_a_helper_that_is_not_needed_any_more_ends(mount, monkeypatch):
    monkeypatch.setattr(ioidle, "SPARE_S", 0.2)
    io, fifo = mount.io(), mount.fifo("fifo")
    slow = asyncio.ensure_future(io.read(fifo))
    await mount.helpers_are(1)
    await io.space(str(mount.path))
    assert len(mount.helpers) == 2
    await mount.release(fifo)
    await slow
    await mount.helpers_are(1)
    await asyncio.sleep(0.4)
    assert len(mount.helpers) == 1  # somebody has the mount open


async def test_the_last_helper_ends_when_nobody_asks_for_long(mount, monkeypatch):
    monkeypatch.setattr("storage.file.iopool.KEPT_S", 0.2)
    io = mount.io()
    await io.exists(str(mount.path))
    (pid,) = mount.helpers
    await mount.helpers_are(0)
    async with asyncio.timeout(SOON_S):
        while os.path.exists(f"/proc/{pid}"):
            await asyncio.sleep(0.01)
    assert await io.exists(str(mount.path))


async def test_the_last_helper_ends_soon_when_nobody_has_the_mount_open(mount, monkeypatch):
    monkeypatch.setattr("storage.file.iopool.SPARE_S", 0.1)
    monkeypatch.setattr(ioidle, "SPARE_S", 0.1)
    io = mount.io()
    await io.exists(str(mount.path))
    await io.close()
    await mount.helpers_are(0)


async def test_a_mount_that_is_about_to_go_has_no_helper_and_no_request(mount):
    io, fifo = mount.io(), mount.fifo("fifo")
    (reading,) = begin(io.read(fifo))
    await io.space(str(mount.path))
    pids = mount.helpers
    await mount.pools.end(str(mount.path))
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    with pytest.raises(IoFailed, match="closed"):
        await reading


async def test_who_closes_ends_its_own_requests_only(mount):
    one, other = mount.io("one"), mount.io("other")
    fifo, second = mount.fifo("fifo"), mount.fifo("second")
    mine, waiting, theirs = begin(one.read(fifo), one.exists(fifo), other.read(second))
    await mount.helpers_are(2)
    await one.close()
    for ended in (mine, waiting):
        with pytest.raises(IoFailed, match="EBADF"):
            await ended
    await mount.release(second)
    assert await theirs == b""


# Lanes


async def test_health_and_mail_are_behind_neither_metadata_nor_bulk(mount):
    users = [mount.io(f"domain{n}") for n in range(5)]
    mail, fifo, bulk = mount.file("mail"), mount.fifo("fifo"), mount.fifos("bulk", len(users))
    hung = begin(
        *(user.read(fifo) for user in users),
        *(user.allocate(path, 1, timeout_s=20) for user, path in zip(users, bulk, strict=True)),
    )
    await mount.helpers_are(WIDTHS[Lane.METADATA] + WIDTHS[Lane.BULK])
    for user in users:
        assert (await user.read_timed(mail))[0] < SOON_S
        assert (await user.space(mail)).total > 0
        await user.write_mail(mail, b"\1" * 512, offset=512)
        assert await user.read_mail(mail, offset=512, size=512) == b"\1" * 512
    assert not any(task.done() for task in hung)
    assert len(mount.helpers) <= MOST_HELPERS
    await end(*hung)


async def test_metadata_of_one_domain_that_is_slow_delays_no_other_domain(mount):
    slow, well, fifo = mount.io("slow"), mount.io("well"), mount.fifo("fifo")
    hung = begin(*(slow.read(fifo) for _ in range(5)))
    await mount.helpers_are(1)
    for _ in range(3):
        assert await well.exists(fifo)
    assert not any(task.done() for task in hung)
    await end(*hung)


async def test_requests_of_one_domain_are_served_in_their_order(mount):
    io, path = mount.io(), mount.file("volume", 0)
    requests = []
    for size in range(1, 20):
        requests += begin(io.truncate(path, size), io.status(path))
    answers = await asyncio.gather(*requests)
    assert [answer.size for answer in answers if answer is not None] == list(range(1, 20))


async def test_who_waits_behind_bulk_that_stands_still_has_a_deadline(mount):
    io, fifos = mount.io(), mount.fifos("fifo", WIDTHS[Lane.BULK])
    hung = begin(*(io.allocate(fifo, 1, timeout_s=20) for fifo in fifos))
    await mount.helpers_are(WIDTHS[Lane.BULK])
    started = time.monotonic()
    with pytest.raises(StorageNotResponding, match="waiting for its turn"):
        await io.allocate(str(mount.path / "other"), 1, timeout_s=0.3)
    assert 0.3 <= time.monotonic() - started < 2
    await end(*hung)


# Mounts that hang


async def test_a_stuck_lane_takes_no_other_lanes_helper_down(mount, immortal):
    io, bulk, meta = mount.io(), mount.fifo("bulk"), mount.fifo("meta")
    (reading,) = begin(io.read(meta))
    await mount.helpers_are(1)
    with pytest.raises(StorageNotResponding, match="allocate"):
        await io.allocate(bulk, 1, timeout_s=0.3)
    assert len(hanging.pids(str(mount.path))) == 1
    await mount.release(meta)
    assert await reading == b""


async def test_the_bound_on_stuck_helpers_is_one_for_all_lanes_and_domains(mount, immortal):
    fifo = mount.fifo("fifo")
    ios = [mount.io(f"domain{n}", timeout_s=0.3) for n in range(2)]
    with pytest.raises(StorageNotResponding, match="read took"):
        await ios[0].read(fifo)
    with pytest.raises(StorageNotResponding, match="read_direct took"):
        await ios[1].read_mail(fifo)
    assert len(hanging.pids(str(mount.path))) == hanging.MOST
    for io in ios:
        io.timeout_s = 20
        for refused in (
            io.exists(fifo),
            io.space(fifo),
            io.read_mail(fifo),
            io.write_mail(fifo, bytes(512)),
            io.discard(fifo),
            io.allocate(fifo, 1, timeout_s=20),
        ):
            started = time.monotonic()
            with pytest.raises(StorageNotResponding, match=r"refused: 2 helpers hang"):
                await refused
            assert time.monotonic() - started < 1


async def test_who_waits_when_the_mount_hangs_is_refused_at_once(mount, immortal):
    fifo, io = mount.fifo("fifo"), mount.io()
    working = begin(
        io.read_timed(fifo),
        io.read_mail(fifo),
        *(io.allocate(path, 1, timeout_s=20) for path in mount.fifos("bulk", WIDTHS[Lane.BULK])),
    )
    await mount.helpers_are(len(working))
    waiting = begin(io.space(fifo), io.read_mail(fifo), io.allocate(str(mount.path / "other"), 1, timeout_s=20))
    silent = [mount.io(f"domain{n}", timeout_s=0.4) for n in range(hanging.MOST)]
    for hung in begin(*(one.read(fifo) for one in silent)):
        with pytest.raises(StorageNotResponding, match="read took"):
            await hung
    started = time.monotonic()
    for task in waiting:
        with pytest.raises(StorageNotResponding, match="refused: 2 helpers hang"):
            await task
    assert time.monotonic() - started < 2
    assert not any(task.done() for task in working)  # they have deadlines of their own
    await end(*working)


async def test_never_more_helpers_than_there_are_turns(mount, immortal):
    fifo = mount.fifo("fifo")
    ios = [mount.io(f"domain{n}", timeout_s=0.5) for n in range(6)]
    bulk = iter(mount.fifos("bulk", len(ios)))
    requests = [
        request
        for io in ios
        for request in (
            io.read(fifo),
            io.read_timed(fifo),
            io.read_mail(fifo),
            io.allocate(next(bulk), 1, timeout_s=0.5),
        )
    ]
    tasks = begin(*requests)
    seen = 0
    while not all(task.done() for task in tasks):
        seen = max(seen, len(mount.helpers))
        await asyncio.sleep(0.01)
    assert 3 <= seen <= MOST_HELPERS
    for task in tasks:
        assert isinstance(task.exception(), StorageNotResponding)


async def test_what_becomes_of_requests_is_counted_by_lane(mount):
    def counted(lane, result):
        labels = {"lane": lane, "result": result}
        return metrics.REGISTRY.get_sample_value("vdsm_storage_io_seconds_count", labels) or 0

    wanted = [("health", "answered"), ("metadata", "failed"), ("mail", "silent"), ("bulk", "stopped")]
    before = {each: counted(*each) for each in wanted}
    io, fifo = mount.io(), mount.fifo("fifo")
    await io.space(fifo)
    with pytest.raises(IoFailed):
        await io.read(str(mount.path / "none"))
    io.timeout_s = 0.2
    with pytest.raises(StorageNotResponding):
        await io.read_mail(fifo)
    (bulk,) = begin(io.allocate(fifo, 1, timeout_s=20))
    await begun(mount)
    await end(bulk)
    await io.close()
    assert {each: counted(*each) for each in wanted} == {each: count + 1 for each, count in before.items()}


# Cancelled writes


SCRIPT = ionursery._SCRIPT


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """Helpers, from now on, in which each call of a function of ``os`` takes as long as is told."""

    def make_slow(call, seconds):
        (tmp_path / "seconds").write_text(str(seconds))
        script = tmp_path / "slow.py"
        script.write_text(
            "import os, runpy, time\n"
            f"call = os.{call}\n"
            f"seconds = lambda: float(open({str(tmp_path / 'seconds')!r}).read())\n"
            f"os.{call} = lambda *args: (time.sleep(seconds()), call(*args))\n"
            f"runpy.run_path({SCRIPT!r}, run_name='__main__')\n"
        )
        monkeypatch.setattr(ionursery, "_SCRIPT", str(script))

    return make_slow


async def begun(mount: Mount) -> None:
    """Until a helper works on a request. It writes its first frame before that: a little later it has read its own."""
    await mount.helpers_are(1)
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("by", ["the same domain", "another look"])
async def test_a_write_whose_caller_left_lands_before_the_next_to_the_same_path(mount, slow, by):
    slow("fsync", 0.3)
    one = mount.io("one")
    other = one if by == "the same domain" else mount.io("other")
    path = mount.file("metadata")
    (older,) = begin(one.truncate(path, 1))
    await begun(mount)
    await end(older)
    assert older.cancelled()
    (pid,) = mount.helpers
    await other.truncate(path, 2)
    assert os.path.getsize(path) == 2
    assert pid in mount.helpers  # it was looked at to its end, not killed
    await asyncio.sleep(0.4)
    assert os.path.getsize(path) == 2


async def test_a_caller_that_leaves_does_so_at_once(mount, slow):
    slow("fsync", 0.5)
    io, path = mount.io(), mount.file("metadata")
    (older,) = begin(io.truncate(path, 1))
    await begun(mount)
    started = time.monotonic()
    await end(older)
    assert time.monotonic() - started < 0.3


async def test_a_write_whose_caller_left_and_that_fails_is_told(mount, slow, caplog):
    slow("fsync", 0.3)
    io = mount.io()
    folder = mount.path / "folder"
    folder.mkdir()
    (older,) = begin(io.create(str(folder / "a"), size=1))
    await begun(mount)
    await end(older)
    os.unlink(folder / "a")
    os.rmdir(folder)
    async with asyncio.timeout(SOON_S):
        while "create of" not in caplog.text:
            await asyncio.sleep(0.01)
    assert "failed after nobody waited for it any more" in caplog.text


async def test_a_write_in_place_that_hangs_keeps_later_ones_from_its_path_and_no_other(mount, immortal, monkeypatch):
    monkeypatch.setattr(ioclaims, "GONE_S", 0.3)
    io, other, fifo = mount.io("one"), mount.io("other"), mount.fifo("fifo")
    io.timeout_s = 0.3
    with pytest.raises(StorageNotResponding, match="truncate took"):
        await io.truncate(fifo, 1)
    io.timeout_s = 20
    for later in (
        io.write_atomic(fifo, b"new"),
        other.remove(fifo),
        other.remove_tree(str(mount.path)),
        other.write_mail(f"{fifo}/below", bytes(512)),
    ):
        started = time.monotonic()
        with pytest.raises(StorageNotResponding, match="an earlier write to it hangs"):
            await later
        assert time.monotonic() - started < ioclaims.GONE_S + 1
    await io.write_atomic(f"{fifo}2", b"new")
    assert await io.exists(fifo)


async def test_what_may_still_land_is_remembered_when_nobody_has_the_mount_open(mount, immortal, monkeypatch):
    monkeypatch.setattr(ioclaims, "GONE_S", 0.1)
    monkeypatch.setattr(ioidle, "SPARE_S", 0.0)
    fifo, io = mount.fifo("fifo"), mount.io(timeout_s=0.3)
    with pytest.raises(StorageNotResponding, match="truncate took"):
        await io.truncate(fifo, 1)
    await io.close()
    mount.pools.of(str(mount.path / "other"))
    with pytest.raises(StorageNotResponding, match="an earlier write to it hangs"):
        await mount.io().truncate(fifo, 2)
    assert len(hanging.pids(str(mount.path))) == 1


async def test_pools_that_nobody_uses_are_forgotten(pools, tmp_path):
    for n in range(5):
        io = FileIo(str(tmp_path / str(n)), pools=pools)
        await io.close()
    assert len(pools._pools) == 1


async def test_a_replacement_goes_after_one_that_hangs(mount, immortal, slow, monkeypatch):
    monkeypatch.setattr(ioclaims, "GONE_S", 0.3)
    slow("fsync", 30)
    io, path = mount.io(), mount.file("metadata")
    io.timeout_s = 0.5
    with pytest.raises(StorageNotResponding):
        await io.write_atomic(path, b"older")
    slow("fsync", 0)
    io.timeout_s = 20
    await io.write_atomic(path, b"newer")
    assert Path(path).read_bytes() == b"newer"
    with pytest.raises(StorageNotResponding, match="an earlier write to it hangs"):
        await io.remove(path)  # the older one may still make it anew


async def test_bulk_whose_caller_left_ends_before_the_next_write(mount, slow):
    slow("unlink", 0.3)
    io, tree = mount.io(), mount.path / "tree"
    tree.mkdir()
    for n in range(20):
        (tree / str(n)).touch()
    (removal,) = begin(io.discard(str(tree)))
    await begun(mount)
    (pid,) = mount.helpers
    await end(removal)
    await io.make_folders(str(tree / "new"))
    assert not os.path.exists(f"/proc/{pid}")
    left = sorted(os.listdir(tree))
    await asyncio.sleep(0.5)
    assert sorted(os.listdir(tree)) == left


# Descriptors that are kept


def open_at_the_other_end(reader: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        return os.read(reader, 1) != b""
    return True


@pytest.fixture
def kept() -> Iterator[tuple[int, int]]:
    """(reader, writer) of a pipe: the reader sees its end when nobody holds a copy of the writer."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield reader, writer
    os.close(reader)


async def test_a_helper_holds_what_is_to_be_kept_until_it_is_gone(mount, kept, immortal):
    reader, writer = kept
    mount.pools.keep([writer])
    io, fifo = mount.io(timeout_s=0.3), mount.fifo("fifo")
    with pytest.raises(StorageNotResponding):
        await io.truncate(fifo, 1)
    os.close(writer)
    await io.close()
    assert open_at_the_other_end(reader)  # given up, and still there
    for pid in hanging.pids(str(mount.path)):
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(SOON_S):
        while open_at_the_other_end(reader):
            await asyncio.sleep(0.01)


async def test_a_helper_from_before_writes_nothing_that_is_to_be_kept(mount, kept):
    reader, writer = kept
    io = mount.io()
    await io.exists(str(mount.path))
    (before,) = mount.helpers
    mount.pools.keep([writer])
    await io.write_atomic(str(mount.path / "f"), b"x")
    (pid,) = mount.helpers
    assert pid != before
    os.close(writer)
    assert open_at_the_other_end(reader)
    mount.pools.keep([])
    async with asyncio.timeout(SOON_S):
        while open_at_the_other_end(reader):
            await asyncio.sleep(0.01)


async def test_a_write_that_runs_keeps_it_though_it_is_not_to_be_kept_any_more(mount, kept):
    reader, writer = kept
    mount.pools.keep([writer])
    io, fifo = mount.io(), mount.fifo("fifo")
    (writing,) = begin(io.truncate(fifo, 1))
    await begun(mount)
    mount.pools.keep([])
    os.close(writer)
    await asyncio.sleep(0.1)
    assert open_at_the_other_end(reader)
    other_end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(IoFailed, match="EINVAL"):
        await writing
    os.close(other_end)
    async with asyncio.timeout(SOON_S):
        while open_at_the_other_end(reader):
            await asyncio.sleep(0.01)


def holds(pid: int, descriptor: int) -> bool:
    """A copy of what is ours."""
    held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    return os.readlink(f"/proc/self/fd/{descriptor}") in held


async def test_who_only_reads_keeps_nothing_and_is_not_of_the_session_of_those_that_do(mount, kept):
    """So one that hangs is no reason to take its lease for held."""
    _, writer = kept
    mount.pools.keep([writer])
    io, fifo = mount.io(), mount.fifo("fifo")
    for ask, keeps in ((lambda: io.read(fifo), False), (lambda: io.truncate(fifo, 1), True)):
        (asked,) = begin(ask())
        await begun(mount)
        (helper,) = mount.helpers
        assert (holds(helper, writer), os.getsid(helper) == os.getsid(0)) == (keeps, keeps)
        await end(asked)
        with contextlib.suppress(ProcessLookupError):  # who writes may have been killed with its request
            os.kill(helper, signal.SIGKILL)
        await gone(helper)
    os.close(writer)


async def test_of_those_that_wait_for_nothing_one_that_writes_stays(mount, kept, monkeypatch):
    monkeypatch.setattr("storage.file.ioidle.SPARE_S", 0.1)
    _, writer = kept
    mount.pools.keep([writer])
    io = mount.io()
    await io.write_atomic(str(mount.path / "f"), b"x")
    (writing,) = mount.helpers
    await io.read(str(mount.path / "f"))
    _, reading = sorted(mount.helpers, key=lambda pid: pid != writing)
    await gone(reading)
    assert mount.helpers == [writing]
    os.close(writer)


async def test_pools_of_mounts_that_come_later_keep_it_too(mount, kept, tmp_path):
    reader, writer = kept
    mount.pools.keep([writer])
    later = FileIo(str(tmp_path), pools=mount.pools)
    await later.make_folder(str(tmp_path / "folder"))
    os.close(writer)
    assert open_at_the_other_end(reader)
    await later.close()
    await mount.pools.close()
    assert not open_at_the_other_end(reader)


async def test_what_is_to_be_kept_from_now_on_is_held_by_a_helper_that_starts_just_now(mount, kept):
    _, writer = kept
    io = mount.io()
    (writing,) = begin(io.write_atomic(str(mount.path / "f"), b"x"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not mount.helpers
    mount.pools.keep([writer])
    await writing
    (pid,) = mount.helpers
    assert holds(pid, writer)
    os.close(writer)


# Where they are born


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def gone(pid: int) -> None:
    async with asyncio.timeout(SOON_S):
        while os.path.exists(f"/proc/{pid}"):
            await asyncio.sleep(0.01)


async def test_helpers_of_all_mounts_are_born_by_one_process_and_die_with_it(mount, tmp_path):
    one, other, fifo = mount.io(), FileIo(str(tmp_path), pools=mount.pools), mount.fifo("fifo")
    await other.exists(fifo)
    (reading,) = begin(one.read(fifo))
    await mount.helpers_are(1)
    pids = [*mount.helpers, *other.pids]
    (nursery,) = {parent(pid) for pid in pids}
    os.kill(nursery, signal.SIGKILL)
    for pid in pids:
        await gone(pid)
    with pytest.raises(IoFailed, match="its I/O helper ended"):
        await reading
    assert await one.exists(fifo)  # by the next one
    assert parent(mount.helpers[0]) != nursery
    await other.close()


async def test_the_process_that_bears_helpers_ends_when_none_has_lived_for_a_while(mount, tmp_path, monkeypatch):
    monkeypatch.setattr(ionursery, "IDLE_S", 0.2)
    io = mount.io()
    await io.exists(str(mount.path))
    nursery = parent(mount.helpers[0])
    other = FileIo(str(tmp_path), pools=mount.pools)
    await other.exists(str(tmp_path))
    await mount.pools.end(str(tmp_path))
    await asyncio.sleep(0.4)
    assert os.path.exists(f"/proc/{nursery}")  # one lives
    await mount.pools.end(str(mount.path))
    await gone(nursery)
    assert await io.exists(str(mount.path))
    await other.close()


async def test_a_helper_is_on_record_with_its_mount_while_it_lives(mount, tmp_path, monkeypatch):
    record = tmp_path / "groups"
    record.mkdir()
    monkeypatch.setattr(groups, "_folder", str(record))
    io = mount.io()
    await io.exists(str(mount.path))
    (pid,) = mount.helpers
    assert os.getpgid(pid) == pid
    assert (record / str(pid)).read_text() == f"{groups.start_time(pid)} {os.getpid()} {mount.path}\n"
    await mount.pools.close()
    assert list(record.iterdir()) == []


async def test_a_host_that_has_no_room_for_a_helper_says_so_and_goes_on(mount):
    io = mount.io()
    await io.exists(str(mount.path))
    nursery = parent(mount.helpers[0])
    soft, hard = resource.prlimit(nursery, resource.RLIMIT_NOFILE)
    resource.prlimit(nursery, resource.RLIMIT_NOFILE, (1, hard))
    await mount.pools.end(str(mount.path))
    with pytest.raises(IoFailed, match="did not start"):
        await io.exists(str(mount.path))
    resource.prlimit(nursery, resource.RLIMIT_NOFILE, (soft, hard))
    assert await io.exists(str(mount.path))


async def test_a_helper_that_ends_by_a_fault_says_which(mount, capfd):
    io = mount.io()
    with pytest.raises(IoFailed, match="its I/O helper ended"):
        await io._ask("read", path=3.5, max_size=1)
    assert "TypeError" in capfd.readouterr().err
    assert await io.exists(str(mount.path))


async def test_a_helper_costs_little_beside_what_all_share(mount, tmp_path):
    ios = [FileIo(str(tmp_path / str(n)), pools=mount.pools) for n in range(10)]
    for io in ios:
        await io.exists(str(tmp_path))
    pids = [pid for io in ios for pid in io.pids]
    assert len(pids) == len(ios)
    assert sum(pss_kib(pid) for pid in {*pids, parent(pids[0])}) < 3.5 * 1024 * len(ios)
    await asyncio.gather(*(io.close() for io in ios))


def pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def test_a_helper_loads_nothing_of_an_environment():
    """Standard library only, and of our own packages what it serves with."""
    code = (
        "import runpy, socket, sys\n"
        "sys.argv[1:] = [str(socket.socketpair()[0].detach())]\n"
        f"runpy.run_path({ionursery._SCRIPT!r}, run_name='__main__')\n"
        "print()\n"
        "print(*sorted(n for n in sys.modules if n.split('.')[0] not in sys.stdlib_module_names))\n"
    )
    done = subprocess.run(
        [ionursery._python(), "-I", "-S", "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True
    )
    loaded = done.stdout.decode(errors="replace").splitlines()[-1].split()
    apart = {"nursery", "serving", "long", "requests", "rights"}
    assert set(loaded) - {"vdsm", "vdsm.version", "vdsm.common", "vdsm.common.framing", "storage", "storage.file"} == {
        "__main__",
        "storage.file.iohelper",
        *(f"storage.file.iohelper.{name}" for name in apart),
    }
