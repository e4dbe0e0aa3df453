# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM's watch on its lease: it survives every answer, and ends the process when the lease is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from inside import Spm
from local_world import World

from storage.errors import LeaseError
from storage.leases.flock_edge import FlockLeases
from storage.spm import mastership
from storage.spm.errors import DomainVersionTooNew, WrongMaster
from vdsm.common.errors import DeadlineExceeded

ODD = [
    DeadlineExceeded("inquire", 60),
    LeaseError("inquire", "l", -5, "EIO"),
    ValueError("a defect"),
    OSError(5, "EIO"),
]


class _Lease:
    """Answers in turn; the last one for ever. An exception is raised."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.all_given = asyncio.Event()

    async def held(self, _lease: object) -> bool:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if self.asked > len(self.answers):
            self.all_given.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The process was to end."""
    event = asyncio.Event()

    def end() -> None:
        event.set()
        raise asyncio.CancelledError  # nothing runs after it

    monkeypatch.setattr(mastership, "end_now", end)
    return event


DOOMED = """
import os, time
os.setsid()
if os.fork() == 0:
    time.sleep(60)
from storage.spm.mastership import end_now
end_now()
time.sleep(60)
"""


def test_the_end_takes_the_process_and_its_children_at_once() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as pipe:
        doomed = subprocess.Popen([sys.executable, "-c", DOOMED], pass_fds=[writer])
        os.close(writer)
        assert pipe.read() == b""  # closed when the last of them is gone
    assert doomed.wait() == -signal.SIGKILL


async def _watched(world: World, monkeypatch: pytest.MonkeyPatch, lease: _Lease) -> Spm:
    spm = Spm(world)
    monkeypatch.setattr(FlockLeases, "held", lambda _self, asked: lease.held(asked))
    await spm.start(watch_s=0.01)
    return spm


@pytest.mark.parametrize("error", ODD, ids=lambda e: type(e).__name__)
async def test_an_answer_that_fails_does_not_end_the_watch(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    ended: asyncio.Event,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lease = _Lease(error, error, error, True, error, error, error, True)
    spm = await _watched(world, monkeypatch, lease)
    async with asyncio.timeout(10):
        await lease.all_given.wait()
    assert not ended.is_set()
    assert "not known who holds" in caplog.text
    await spm.stop()


async def test_a_lost_lease_ends_the_process(
    world: World, monkeypatch: pytest.MonkeyPatch, ended: asyncio.Event
) -> None:
    spm = await _watched(world, monkeypatch, _Lease(True, False))
    async with asyncio.timeout(10):
        await ended.wait()
    await spm.stop()


async def test_four_failures_in_a_row_count_as_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, ended: asyncio.Event
) -> None:
    lease = _Lease(DeadlineExceeded("inquire", 60))
    spm = await _watched(world, monkeypatch, lease)
    async with asyncio.timeout(10):
        await ended.wait()
    assert lease.asked == 4
    await spm.stop()


async def test_the_lease_is_ours_while_the_role_is_and_free_after(world: World) -> None:
    spm = Spm(world)
    await spm.start()
    domain = await spm.domains.get(world.domain_id)
    assert await domain.leases.held(domain.sdm_lease)
    await spm.stop()
    assert (await world.storage.pool.spm_report(world.pool_id)).host_id == -1


async def test_a_master_of_another_pool_or_too_new_is_refused_before_the_lease(world: World) -> None:
    spm = Spm(world)
    with pytest.raises(WrongMaster):
        await spm.start(pool_id="00000000-0000-4000-8000-000000000001")
    with pytest.raises(DomainVersionTooNew):
        await spm.start(max_version=4)
    assert (await world.storage.pool.spm_report(world.pool_id)).host_id == -1
    await spm.stop()
