# SPDX-License-Identifier: GPL-2.0-or-later
"""Long work on a VM: it keeps its claim, outlives the agent, and is ended by asking, not by cutting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from vdsm.virt.claims import Claim
from vdsm.virt.errors import ClaimedByJob, HypervisorError, NoSuchVmJob
from vdsm.virt.jobs import KINDS, JobKind, VmJobs
from vdsm.virt.records import SavedJob
from vdsm.virt.vm import Vm

from .fakes import VM, World, settle, until, xml_of

MERGE = SavedJob("job-1", "merge", "vda", "image-1", {"base": "b"})


class Work:
    def __init__(self, saved: SavedJob | None = None) -> None:
        self.saved = saved
        self.progress: Callable[[int, int], None] = lambda _current, _end: None
        self.ends = asyncio.Event()
        self.error: Exception | None = None
        self.aborted = 0

    async def run(self, progress: Callable[[int, int], None]) -> None:
        self.progress = progress
        await self.ends.wait()
        if self.error is not None:
            raise self.error

    async def abort(self) -> None:
        self.aborted += 1
        self.ends.set()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def up(world: World) -> Vm:
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.reported == "Up")
    await settle()
    return vm


def shown(jobs: VmJobs) -> dict[str, Any]:
    found: dict[str, Any] = jobs.report()["vmJobs"]
    return found


async def test_a_job_is_shown_claimed_and_on_record_until_it_ends(world: World) -> None:
    vm = await up(world)
    jobs, work = VmJobs(vm, {}), Work()
    task = await jobs.start(MERGE, work)
    await settle()
    assert vm.claims.holds(Claim.MERGE)
    assert vm.record.jobs == (MERGE,)
    work.progress(5, 10)
    assert shown(jobs) == {
        "job-1": {
            "id": "job-1",
            "jobType": "block",
            "blockJobType": "commit",
            "bandwidth": 0,
            "cur": "5",
            "end": "10",
            "drive": "vda",
            "imgUUID": "image-1",
        }
    }
    work.ends.set()
    await task
    assert (shown(jobs), vm.record.jobs, vm.claims.holds(Claim.MERGE)) == ({}, (), False)


@pytest.mark.parametrize("error", [HypervisorError("merge", 1, "no"), ValueError("odd")])
async def test_a_job_that_fails_gives_all_back(world: World, error: Exception) -> None:
    vm = await up(world)
    jobs, work = VmJobs(vm, {}), Work()
    work.error = error
    task = await jobs.start(MERGE, work)
    work.ends.set()
    await task
    assert (shown(jobs), vm.record.jobs, vm.claims.holds(Claim.MERGE)) == ({}, (), False)


async def test_a_job_that_may_not_meet_another_is_refused_and_leaves_nothing(world: World) -> None:
    vm = await up(world)
    jobs = VmJobs(vm, {})
    await jobs.start(MERGE, Work())
    with pytest.raises(ClaimedByJob):
        await jobs.start(SavedJob("job-2", "copy", "vda"), Work())
    assert vm.record.jobs == (MERGE,)
    await jobs.start(SavedJob("job-3", "copy", "vdb"), Work())
    assert [job.job_id for job in vm.record.jobs] == ["job-1", "job-3"]


async def test_an_abort_asks_and_the_job_sees_its_own_end(world: World) -> None:
    vm = await up(world)
    jobs, work = VmJobs(vm, {}), Work()
    task = await jobs.start(MERGE, work)
    await jobs.abort("job-1")
    await task
    assert work.aborted == 1 and not task.cancelled()
    with pytest.raises(NoSuchVmJob):
        await jobs.abort("job-1")


async def test_an_agent_that_ends_leaves_its_jobs_to_the_next(world: World) -> None:
    vm = await up(world)
    jobs = VmJobs(vm, {})
    task = await jobs.start(MERGE, Work())
    await settle()
    jobs.close()
    await asyncio.wait([task])
    assert vm.record.jobs == (MERGE,)
    made: list[Work] = []

    def resume(saved: SavedJob) -> Work:
        made.append(Work(saved))
        return made[-1]

    again = VmJobs(vm, {JobKind.MERGE: resume})
    await again.recover(await world.hypervisor.domain(VM))
    assert [work.saved for work in made] == [MERGE]
    assert vm.claims.holds(Claim.MERGE)
    made[0].ends.set()
    await until(lambda: vm.record.jobs == ())


async def test_a_job_that_this_agent_does_not_know_stays_on_record(world: World) -> None:
    vm = await up(world)
    later = SavedJob("job-9", "a later kind")
    await vm.change(jobs=(MERGE, later))
    await VmJobs(vm, {}).recover(await world.hypervisor.domain(VM))
    assert vm.record.jobs == (MERGE, later)


async def test_progress_is_told_once_a_second_and_the_end_always(world: World) -> None:
    vm, clock = await up(world), Clock()
    jobs, work = VmJobs(vm, {}, now=clock), Work()
    await jobs.start(MERGE, work)
    await settle()
    told = []
    for current, now in ((1, 100.0), (2, 100.9), (3, 101.1), (9, 101.2), (10, 101.3)):
        clock.now = now
        work.progress(current, 10)
        told.append(shown(jobs)["job-1"]["cur"])
    assert told == ["1", "1", "3", "3", "10"]


async def test_work_that_engines_see_elsewhere_is_no_vm_job(world: World) -> None:
    vm = await up(world)
    jobs = VmJobs(vm, {})
    await jobs.start(SavedJob("job-1", "backup"), Work())
    assert shown(jobs) == {}


@pytest.mark.parametrize("kind", list(JobKind))
def test_each_kind_has_its_claim(kind: JobKind) -> None:
    assert KINDS[kind].claim.name == kind.name
