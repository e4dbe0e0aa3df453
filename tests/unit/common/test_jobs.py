# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a job: it ends exactly once, whatever cancels it and whenever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm.common import jobs as jobs_module
from vdsm.common.errors import AgentError
from vdsm.common.events import Events
from vdsm.common.jobs import FINAL, Job, JobExists, JobNotDone, Jobs, JobStatus, NoSuchJob


class Broken(AgentError):
    msg = "broken on purpose"


class Body:
    """Does what it is told: ends when released, cleans up for as long as it is held."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cleaning = asyncio.Event()
        self.clean = asyncio.Event()
        self.clean.set()
        self.outcome: Any = "done"
        self.cleaned = 0

    async def __call__(self, job: Job) -> Any:
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cleaning.set()
            await self.clean.wait()
            self.cleaned += 1
            raise
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def start(jobs: Jobs, body: Any, job_id: str = "a") -> Job:
    return jobs.start(job_id, body, job_type="virt", verb="VM.merge", description="merge", owner="vm")


async def ends(job: Job) -> JobStatus:
    async with asyncio.timeout(5):
        await job.wait()
    return job.status


async def test_a_job_cancelled_before_its_first_step_is_aborted() -> None:
    body = Body()
    job = start(Jobs(), body)
    job.cancel()
    assert await ends(job) is JobStatus.ABORTED
    assert not body.entered.is_set() and job.ended_at is not None


async def test_stop_ends_what_has_not_begun_what_runs_and_what_is_done() -> None:
    jobs, bodies = Jobs(), [Body(), Body(), Body()]
    done, runs = start(jobs, bodies[0], "done"), start(jobs, bodies[1], "runs")
    bodies[0].release.set()
    assert await ends(done) is JobStatus.DONE
    await bodies[1].entered.wait()
    fresh = start(jobs, bodies[2], "fresh")
    async with asyncio.timeout(5):
        await jobs.stop()
    assert (done.status, runs.status, fresh.status) == (JobStatus.DONE, JobStatus.ABORTED, JobStatus.ABORTED)


async def test_a_second_cancel_does_not_cut_the_clean_up() -> None:
    jobs, body = Jobs(), Body()
    body.clean.clear()
    job = start(jobs, body)
    await body.entered.wait()
    job.cancel()
    await body.cleaning.wait()
    job.cancel()
    stopping = asyncio.ensure_future(jobs.stop())
    await asyncio.sleep(0.01)
    assert job.status is JobStatus.ABORTING and not stopping.done()
    body.clean.set()
    await stopping
    assert (job.status, body.cleaned) == (JobStatus.ABORTED, 1)


async def test_stop_is_bounded_and_names_what_does_not_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jobs_module, "STOP_S", 0.05)
    jobs, body = Jobs(), Body()
    body.clean.clear()
    start(jobs, body, "stubborn")
    await body.entered.wait()
    async with asyncio.timeout(5):
        await jobs.stop()
    assert "job stubborn" in caplog.text and "did not end" in caplog.text
    body.clean.set()


async def test_a_cancel_after_the_end_changes_nothing() -> None:
    jobs, body = Jobs(), Body()
    body.release.set()
    job = start(jobs, body)
    assert await ends(job) is JobStatus.DONE
    job.cancel()
    assert (job.status, job.result) == (JobStatus.DONE, "done")


async def test_a_job_that_ends_in_spite_of_its_cancel_tells_its_result() -> None:
    async def stubborn(job: Job) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "finished anyway"
        return ""

    job = start(Jobs(), stubborn)
    await asyncio.sleep(0)
    job.cancel()
    assert await ends(job) is JobStatus.DONE
    assert job.result == "finished anyway"


async def test_failures_keep_their_error_and_unexpected_ones_are_told(caplog: pytest.LogCaptureFixture) -> None:
    jobs, known, unknown = Jobs(), Body(), Body()
    known.outcome, unknown.outcome = Broken(), KeyError("x")
    known.release.set()
    unknown.release.set()
    first, second = start(jobs, known, "first"), start(jobs, unknown, "second")
    assert await ends(first) is await ends(second) is JobStatus.FAILED
    assert str(first.error) == "broken on purpose"
    assert "KeyError" in str(second.error) and "Traceback" in caplog.text


async def test_each_end_is_one_event() -> None:
    events = Events()
    subscription = events.subscribe("test")
    jobs = Jobs(events)
    jobs_started = [start(jobs, Body(), name) for name in ("a", "b")]
    jobs_started[0].cancel()
    await jobs.stop()
    await asyncio.sleep(0)
    subscription.close()
    told = [(event.method, event.params["status"]) async for event in subscription]
    assert sorted(told) == [("|jobs|status|a", "aborted"), ("|jobs|status|b", "aborted")]


async def test_a_running_job_is_kept_and_its_id_taken() -> None:
    jobs, body = Jobs(), Body()
    job = start(jobs, body)
    with pytest.raises(JobExists):
        start(jobs, body)
    with pytest.raises(JobNotDone):
        jobs.clear("a")
    body.release.set()
    await ends(job)
    jobs.clear("a")
    with pytest.raises(NoSuchJob):
        jobs.get("a")


async def test_finished_jobs_are_forgotten_after_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, body = Jobs(), Body()
    body.release.set()
    job = start(jobs, body)
    runs = start(jobs, Body(), "runs")
    await ends(job)
    assert job.ended_at is not None
    monkeypatch.setattr(jobs_module, "KEEP_FINISHED_S", -1.0)
    assert jobs.all() == [runs]
    await jobs.stop()


STEPS = st.sampled_from(["start", "cancel", "step", "release", "fail", "stop"])


@given(st.lists(st.tuples(STEPS, st.integers(0, 2)), max_size=14))
def test_whatever_happens_every_job_ends_once_and_stop_returns(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        events = Events()
        subscription = events.subscribe("test")
        jobs, bodies = Jobs(events), [Body(), Body(), Body()]
        started: dict[int, Job] = {}
        wanted: dict[int, JobStatus] = {}
        async with asyncio.timeout(10):
            for step, n in steps:
                job = started.get(n)
                if step == "start" and job is None:
                    started[n] = start(jobs, bodies[n], str(n))
                elif step == "step":
                    for _ in range(5):
                        await asyncio.sleep(0)
                elif step == "stop":
                    await jobs.stop()
                    assert all(j.finished for j in started.values())
                elif step in ("release", "fail") and n not in wanted:
                    bodies[n].outcome = Broken() if step == "fail" else "done"
                    bodies[n].release.set()
                    wanted[n] = JobStatus.FAILED if step == "fail" else JobStatus.DONE
                elif step == "cancel" and job is not None:
                    job.cancel()
            await jobs.stop()
            for n, job in started.items():
                await job.wait()
                assert job.status in {JobStatus.ABORTED, wanted.get(n, JobStatus.ABORTED)} <= FINAL
            await asyncio.sleep(0)
        subscription.close()
        told = [event.unique_id async for event in subscription]
        assert sorted(told) == sorted(str(n) for n in started)

    asyncio.run(run())
