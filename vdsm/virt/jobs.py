# SPDX-License-Identifier: GPL-2.0-or-later
"""Long work on one VM: a migration, a merge, a copy of a disk, a backup. Each outlives its verb, and the agent.

    start    its claim is taken, what a new agent needs is on record, the body runs
    abort    libvirt is asked; the task is never cancelled, so the body sees how libvirt ended it and cleans up
    restart  the record's jobs take their claims again and their bodies resume, before any verb is answered
    end      off the record, the claim given back, however it ended

A kind says which claim its work holds, and how engines see it in the VM's statistics (`vmJobs`, virt.md §15). Progress
is told at most once a second: statistics are asked for more seldom, and libvirt's events come faster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vdsm.common.errors import AgentError
from vdsm.virt.capability import Capability, Handle, Json
from vdsm.virt.claims import Claim
from vdsm.virt.errors import NoSuchVmJob
from vdsm.virt.hypervisor import Domain
from vdsm.virt.records import SavedJob

log = logging.getLogger("vdsm.virt")

PROGRESS_S = 1.0


class JobKind(StrEnum):
    MIGRATION = "migration"
    SAVE = "save"
    SNAPSHOT = "snapshot"
    MERGE = "merge"
    COPY = "copy"
    BACKUP = "backup"


@dataclass(frozen=True)
class Row:
    """``shown``: the word of `vmJobs` for libvirt's block job; empty for work that engines see elsewhere."""

    claim: Claim
    shown: str = ""


KINDS: dict[JobKind, Row] = {
    JobKind.MIGRATION: Row(Claim.MIGRATION),
    JobKind.SAVE: Row(Claim.SAVE),
    JobKind.SNAPSHOT: Row(Claim.SNAPSHOT),
    JobKind.MERGE: Row(Claim.MERGE, "commit"),
    JobKind.COPY: Row(Claim.COPY),
    JobKind.BACKUP: Row(Claim.BACKUP),
}

# current and end: bytes, or whatever libvirt counts in
Progress = Callable[[int, int], None]


class Body(Protocol):
    async def run(self, progress: Progress) -> None:
        """Do the work to its end, or see to the end of work that goes on already."""

    async def abort(self) -> None:
        """Ask libvirt to end it; `run` ends by that."""


Resume = Callable[[SavedJob], Body]


@dataclass
class _Job:
    saved: SavedJob
    body: Body
    task: asyncio.Task[None]
    current: int = 0
    end: int = 0
    told_s: float = float("-inf")


class VmJobs(Capability):
    def __init__(self, vm: Handle, resumes: Mapping[str, Resume], *, now: Callable[[], float] = time.monotonic) -> None:
        """``resumes``: how the body of a kind is made again from what was saved of it."""
        self._vm = vm
        self._resumes = resumes
        self._now = now
        self._jobs: dict[str, _Job] = {}

    async def start(self, saved: SavedJob, body: Body) -> asyncio.Task[None]:
        """Begin; the task ends when the job has. Raises `ClaimedByJob` when it may not meet what goes on."""
        async with contextlib.AsyncExitStack() as claim:
            await claim.enter_async_context(self._claim(saved))
            try:
                await self._vm.change(jobs=(*self._vm.record.jobs, saved))
            except BaseException:  # who asked has left: it never began, and no new agent may take it up
                await self._off_record(saved)
                raise
            return self._spawn(saved, body, claim.pop_all())

    async def abort(self, job_id: str) -> None:
        """Ask for its end. Raises `NoSuchVmJob`."""
        job = self._jobs.get(job_id)
        if job is None:
            raise NoSuchVmJob(self._vm.vm_id, job_id)
        await job.body.abort()

    def report(self) -> Json:
        return {"vmJobs": {job_id: _shown(job) for job_id, job in self._jobs.items() if _word(job)}}

    async def recover(self, domain: Domain) -> None:
        for saved in self._vm.record.jobs:
            resume = self._resumes.get(saved.kind)
            if resume is None:
                log.error("VM %s: %s %s can't be resumed by this agent", self._vm.vm_id, saved.kind, saved.job_id)
                continue
            claim = contextlib.AsyncExitStack()
            await claim.enter_async_context(self._claim(saved))
            self._spawn(saved, resume(saved), claim)

    def close(self) -> None:
        """What goes on is left as it is: it ends with the VM, or the next agent resumes it by the record."""
        for job in self._jobs.values():
            job.task.cancel()

    def _claim(self, saved: SavedJob) -> contextlib.AbstractAsyncContextManager[object]:
        return self._vm.claims.take(KINDS[JobKind(saved.kind)].claim, saved.on)

    def _spawn(self, saved: SavedJob, body: Body, claim: contextlib.AsyncExitStack) -> asyncio.Task[None]:
        name = f"{saved.kind} {saved.job_id} of VM {self._vm.vm_id}"
        task = asyncio.create_task(self._run(saved, body, claim), name=name)
        self._jobs[saved.job_id] = _Job(saved, body, task)
        return task

    async def _run(self, saved: SavedJob, body: Body, claim: contextlib.AsyncExitStack) -> None:
        async with claim:
            try:
                await body.run(lambda current, end: self._progress(saved.job_id, current, end))
            except AgentError as e:
                log.error("VM %s: %s %s failed: %s", self._vm.vm_id, saved.kind, saved.job_id, e)
            except Exception:  # a defect in one job must not be lost, nor keep its claim
                log.exception("VM %s: %s %s failed", self._vm.vm_id, saved.kind, saved.job_id)
            await self._off_record(saved)
            self._jobs.pop(saved.job_id, None)

    async def _off_record(self, saved: SavedJob) -> None:
        await self._vm.change(jobs=tuple(job for job in self._vm.record.jobs if job.job_id != saved.job_id))

    def _progress(self, job_id: str, current: int, end: int) -> None:
        job = self._jobs.get(job_id)
        if job is not None and (self._now() - job.told_s >= PROGRESS_S or current >= end):
            job.current, job.end, job.told_s = current, end, self._now()


def _word(job: _Job) -> str:
    return KINDS[JobKind(job.saved.kind)].shown


def _shown(job: _Job) -> Json:
    return {
        "id": job.saved.job_id,
        "jobType": "block",
        "blockJobType": _word(job),
        "bandwidth": 0,
        "cur": str(job.current),
        "end": str(job.end),
        "drive": job.saved.on,
        "imgUUID": job.saved.image_id,
    }
