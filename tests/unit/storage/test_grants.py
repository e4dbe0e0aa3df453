# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process held is free when its last writer is gone: real processes, killed."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storage import grants, locks
from storage.grants import Grants
from storage.in_use import InUse
from storage.lock_table import Locks
from storage.locks import Lock, LockTimeout
from storage.spm import control
from storage.spm.errors import SpmEnded
from vdsm.common import commands, ends, groups
from vdsm.common.link import Link

SOON_S = 10.0
NEAR, FAR, ELSEWHERE = (locks.image(domain, "i") for domain in ("near", "far", "elsewhere"))
MOUNTS = {"near": "/mnt/a", "far": "/mnt/b"}

# a job: takes a lock over its link, starts a writer that works on a mount (and does not end with it, as one that hangs
# in the kernel), and works until it is killed
JOB = """
import asyncio, socket, subprocess, sys
from storage import locks
from storage.lock_link import LocksByLink
from vdsm.common import groups
from vdsm.common.link import Link

async def work():
    groups.set_folder(sys.argv[2])
    held = LocksByLink()
    held.link = Link(*await asyncio.open_connection(sock=socket.socket(fileno=int(sys.argv[1]))), name="the agent")
    asyncio.ensure_future(held.link.run())
    wanted = [locks.image(domain, "i") for domain in sys.argv[3].split(",")]
    holding = [held.hold([lock], who="job 1") for lock in wanted]
    for hold in holding:
        await hold.__aenter__()
    for place in sys.argv[4:]:
        writer = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
        groups.record(writer.pid, place)
        print(writer.pid, flush=True)
    print("works", flush=True)
    await asyncio.sleep(60)

asyncio.run(work())
"""


@dataclass
class Job:
    process: asyncio.subprocess.Process
    grants: Grants
    writers: list[int] = field(default_factory=list)

    async def die(self) -> None:
        groups.kill_group(self.process.pid)
        await self.process.wait()
        self.grants.end(self.process.pid)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(groups, "_folder", None)
    groups.set_folder(str(tmp_path / "commands"))
    yield tmp_path / "commands"
    groups.kill_recorded(str(tmp_path / "commands"))


@pytest.fixture
def held() -> Locks:
    return Locks()


class Jobs:
    def __init__(self, held: Locks, folder: Path) -> None:
        self._held, self._folder = held, folder
        self._links: list[tuple[Link, asyncio.Task[None]]] = []

    async def start(self, domains: str, *places: str) -> Job:
        """One that holds its locks and whose writers, one on each place, run."""
        ours, theirs = socket.socketpair()
        process = await commands.start(
            [sys.executable, "-c", JOB, str(theirs.fileno()), str(self._folder), domains, *places],
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env={**commands.ENVIRONMENT, "PYTHONPATH": os.getcwd()},
        )
        theirs.close()
        taken = Grants(self._held, lambda ids: {d: MOUNTS[d] for d in ids if d in MOUNTS}, "a job's process")
        link = Link(*await asyncio.open_connection(sock=ours), serve=taken.serve, name="a job")
        self._links.append((link, asyncio.create_task(link.run())))
        job = Job(process, taken)
        assert process.stdout is not None
        async with asyncio.timeout(SOON_S):
            while (line := await process.stdout.readline()) != b"works\n":
                job.writers.append(int(line))
        return job

    async def close(self) -> None:
        for link, run in self._links:
            await link.close()
            await run


@pytest.fixture
async def jobs(held: Locks, folder: Path) -> AsyncIterator[Jobs]:
    jobs = Jobs(held, folder)
    yield jobs
    await jobs.close()


async def _free(held: Locks, lock: Lock) -> None:
    async with held.hold([lock], who="prepare for vm:1", wait_s=SOON_S):
        pass


async def test_of_a_job_and_a_flow_of_the_agent_on_one_image_one_waits_for_the_other(held: Locks, jobs: Jobs) -> None:
    job = await jobs.start("near")
    with pytest.raises(LockTimeout, match="job 1 had it"):
        async with held.hold([NEAR], who="task 1", wait_s=0.01):
            pass
    await _free(held, FAR)
    waiting = asyncio.create_task(_free(held, NEAR))
    await asyncio.sleep(0)
    assert held.states()[0].waiting
    await job.die()
    await waiting
    assert held.names == []


async def test_what_a_dead_job_held_is_free_after_its_last_writer(held: Locks, jobs: Jobs) -> None:
    job = await jobs.start("near", "/mnt/a", "/mnt/a")
    await job.die()
    first, second = job.writers
    with pytest.raises(
        LockTimeout, match=rf"job 1 of a job's process that ended, whose writer ({first}|{second}) still"
    ):
        async with held.hold([NEAR], who="task 1", wait_s=0.01):
            pass
    waiting = asyncio.create_task(_free(held, NEAR))
    groups.kill_group(first)
    await ends.first_end([first])
    async with asyncio.timeout(SOON_S):
        while str(second) not in held.states()[0].holders[0][0]:
            await asyncio.sleep(0.01)
    assert not waiting.done()
    groups.kill_group(second)
    await waiting
    assert held.names == []
    assert os.listdir(groups._folder or "") == [str(job.process.pid)]


async def test_a_writer_elsewhere_keeps_no_domain(held: Locks, jobs: Jobs) -> None:
    job = await jobs.start("near,far", "/mnt/b")
    await job.die()
    await _free(held, NEAR)
    assert held.names == [str(FAR)]


@pytest.mark.parametrize(("domains", "place"), [("near,far", ""), ("elsewhere", "/mnt/b")], ids=["writer", "domain"])
async def test_what_is_not_known_to_be_elsewhere_is_kept(held: Locks, jobs: Jobs, domains: str, place: str) -> None:
    job = await jobs.start(domains, place)
    await job.die()
    assert len(held.names) == len(domains.split(","))
    groups.kill_group(job.writers[0])
    async with asyncio.timeout(SOON_S):
        while held.names:
            await asyncio.sleep(0.01)


async def test_what_is_kept_long_is_told(
    held: Locks, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(grants, "TELL_S", 0.01)
    job = await jobs.start("near", "/mnt/a")
    await job.die()
    async with asyncio.timeout(SOON_S):
        while "01_img_near/i is kept: job 1 of a job's process" not in caplog.text:
            await asyncio.sleep(0.01)


async def test_a_dead_job_takes_nothing_more(held: Locks) -> None:
    dead = Grants(held, lambda ids: {}, "a job's process")
    dead.end(0)
    with pytest.raises(Exception, match="does not serve"):
        await dead.serve("lock.take", {"number": 1, "locks": [], "who": "job 1", "wait_s": 1.0})
    async with held.hold([NEAR], who="StorageDomain.attach") as grant:
        dead.lend(grant)
    assert held.names == []


async def test_the_end_of_one_that_is_gone_is_told_at_once() -> None:
    async with asyncio.timeout(SOON_S):
        await ends.first_end([os.getpid(), 1 << 22])


@pytest.mark.parametrize(("what", "named"), [("spm", "an SPM process"), ("once", "a process for one change")])
async def test_a_writer_that_is_left_is_told_with_what_its_process_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, named: str
) -> None:
    class Ended:
        pid = os.getpid()  # it had one writer: us

        @classmethod
        async def spawn(cls, *_: object, ended: Callable[[str], Awaitable[None]], **__: object) -> Ended:
            made = cls()
            made.ended = ended
            return made

        def when_link_ended(self, tell: Callable[[], None]) -> None:
            return

        async def call(self, *_: object, **__: object) -> None:
            await self.ended("killed")
            raise SpmEnded("pool", "killed")

        async def end(self) -> None:
            return

    monkeypatch.setattr(control, "LeasedProcess", Ended)
    left = [groups.Left(os.getpid(), "")]
    monkeypatch.setattr(groups, "left_by", lambda _: left)
    over = asyncio.Event()
    monkeypatch.setattr(ends, "first_end", lambda _: over.wait())
    table = Locks()
    in_use = InUse(str(tmp_path))
    spm = control.SpmControl(in_use, table, lambda _: {}, lambda _: None, unmoved, {})
    grant = await table.take([NEAR], who="the change", wait_s=1)
    spawned = spm._spawn(what, "pool", unmoved_too)
    process, lent = await spawned
    lent.lend(grant)
    table.give_back(grant)
    with pytest.raises(SpmEnded):
        await process.call("change", {}, timeout_s=1)
    with pytest.raises(LockTimeout, match=f"the change of {named} that ended, whose writer {os.getpid()} still runs"):
        await table.take([NEAR], who="another", wait_s=0.05)
    left.clear()
    over.set()
    table.give_back(await table.take([NEAR], who="another", wait_s=SOON_S))


async def unmoved(_domain_id: str, _version: int) -> None:
    return


async def unmoved_too(_reason: str) -> None:
    return
