# SPDX-License-Identifier: GPL-2.0-or-later
"""One model of long work: id, owner, progress, cancel, result.

``Task.*`` verbs and ``Host.getJobs`` are two views of it. A job's body runs in a task of its own:
who started it may go away. Finished jobs are kept for an hour (storage.md 13).

A job ends exactly once, however its task does: what is cancelled before its first step never enters the
body, so the end is told by the task's own end, not by code in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

from vdsm.common.errors import AgentError, RemoteError
from vdsm.common.events import Events

log = logging.getLogger("vdsm.jobs")

KEEP_FINISHED_S = 3600.0
STOP_S = 30.0


class JobStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    ABORTING = "aborting"
    ABORTED = "aborted"
    FAILED = "failed"


class JobExists(AgentError):
    job_id: str
    msg = "A job {self.job_id} exists already"


class NoSuchJob(AgentError):
    job_id: str
    msg = "There is no job {self.job_id} on this host"


class JobNotDone(AgentError):
    job_id: str
    status: str
    msg = "Job {self.job_id} is not done: it is {self.status}"


FINAL = frozenset({JobStatus.DONE, JobStatus.ABORTED, JobStatus.FAILED})


class Job:
    def __init__(self, job_id: str, *, job_type: str, verb: str, description: str, owner: str) -> None:
        self.job_id = job_id
        self.job_type = job_type
        self.verb = verb
        self.description = description
        self.owner = owner
        self.status = JobStatus.PENDING
        self.progress: float | None = None  # percent
        self.result: Any = None
        self.error: AgentError | None = None
        self.ended_at: float | None = None  # monotonic seconds
        self._done = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    @property
    def finished(self) -> bool:
        return self.status in FINAL

    def cancel(self) -> None:
        """Ask the body to stop, once: it ends as aborted when its own clean-up is done, which no other cancel cuts."""
        if not self.finished and self.status is not JobStatus.ABORTING and self._task is not None:
            self.status = JobStatus.ABORTING
            self._task.cancel()

    async def wait(self) -> None:
        await self._done.wait()

    def _start(self, body: Callable[[Job], Awaitable[Any]], ended: Callable[[Job], None]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(body), name=f"job {self.job_id}")
        self._task.add_done_callback(lambda task: self._end(task, ended))

    async def _run(self, body: Callable[[Job], Awaitable[Any]]) -> Any:
        self.status = JobStatus.RUNNING
        return await body(self)

    def _end(self, task: asyncio.Task[Any], ended: Callable[[Job], None]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            self.status = JobStatus.ABORTED
        elif error is None:
            self.result, self.status = task.result(), JobStatus.DONE
        elif isinstance(error, AgentError):
            self.error, self.status = error, JobStatus.FAILED
            log.warning("job %s (%s) failed: %s", self.job_id, self.description, error)
        else:  # a defect in one job must not be lost nor end the agent
            kind = type(error).__name__
            self.error, self.status = RemoteError(kind, f"{kind}: {error}"), JobStatus.FAILED
            log.error("job %s (%s) failed", self.job_id, self.description, exc_info=error)
        self.ended_at = time.monotonic()
        self._done.set()
        ended(self)


class Jobs:
    def __init__(self, events: Events | None = None) -> None:
        self._jobs: dict[str, Job] = {}
        self._events = events

    def start(
        self,
        job_id: str,
        body: Callable[[Job], Awaitable[Any]],
        *,
        job_type: str,
        verb: str,
        description: str,
        owner: str,
    ) -> Job:
        """Start ``body`` as a job. Raises `JobExists`."""
        self._expire()
        if job_id in self._jobs:
            raise JobExists(job_id)
        job = self._jobs[job_id] = Job(job_id, job_type=job_type, verb=verb, description=description, owner=owner)
        job._start(body, self._tell)
        return job

    def get(self, job_id: str) -> Job:
        self._expire()
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NoSuchJob(job_id) from None

    def all(self, job_type: str | None = None) -> list[Job]:
        self._expire()
        return [job for job in self._jobs.values() if job_type is None or job.job_type == job_type]

    def clear(self, job_id: str) -> None:
        """Forget a finished job. Raises `NoSuchJob`, `JobNotDone`."""
        job = self.get(job_id)
        if not job.finished:
            raise JobNotDone(job_id, job.status)
        del self._jobs[job_id]

    async def stop(self) -> None:
        """Cancel what runs and wait for it, at most `STOP_S`: a body that does not end is told and left."""
        running = [job for job in self._jobs.values() if not job.finished]
        for job in running:
            job.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(*(job.wait() for job in running))
        for job in running:
            if not job.finished:
                log.error("job %s (%s) did not end within %g s", job.job_id, job.description, STOP_S)

    def _tell(self, job: Job) -> None:
        if self._events is not None:
            self._events.publish("jobs", "status", job.job_id, describe(job))

    def _expire(self) -> None:
        now = time.monotonic()
        for job_id, job in list(self._jobs.items()):
            if job.ended_at is not None and now - job.ended_at > KEEP_FINISHED_S:
                del self._jobs[job_id]


def describe(job: Job) -> dict[str, Any]:
    """A job as ``Host.getJobs`` shows it (without a wire code for the error; progress is a float)."""
    shown: dict[str, Any] = {
        "id": job.job_id,
        "status": str(job.status),
        "description": job.description,
        "job_type": job.job_type,
    }
    if job.progress is not None:
        shown["progress"] = float(job.progress)
    return shown
