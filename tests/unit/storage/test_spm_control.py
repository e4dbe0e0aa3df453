# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM role while it is coming, going or lost: what callers are told meanwhile, and what is left."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from local_world import World
from test_spm_locks import stop_at

from storage.spm.control import SpmStatus
from storage.spm.errors import ChangeEnded, NotSpm, SpmBusy, SpmStartFailed
from storage.spm.process import LeasedProcess
from vdsm.common.ids import new_uuid


async def _until(world: World, status: SpmStatus) -> None:
    async with asyncio.timeout(10):
        while world.storage.pool.spm.status is not status:
            await asyncio.sleep(0.01)


def _asked(verb: str) -> Any:
    return lambda _process, asked, *_: asked == verb


async def test_a_role_that_is_coming_is_neither_started_nor_stopped_nor_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = world.storage.pool
    starting = stop_at(monkeypatch, LeasedProcess, "call", _asked("start"))
    task_id = await world.storage.tasks.start_spm(world.pool_id, None)
    async with asyncio.timeout(10):
        await starting.reached.wait()
    pid = pool.spm.pid
    assert (await pool.spm_report(world.pool_id)).status is SpmStatus.CONTEND
    with pytest.raises(SpmBusy):
        await pool.start_spm(world.pool_id, None)
    with pytest.raises(SpmBusy):
        await pool.stop_spm(world.pool_id)
    with pytest.raises(NotSpm):
        await world.start_volume(new_uuid(), new_uuid())
    starting.go.set()
    assert (await world.finish(task_id))["taskResult"] == "success"
    assert (pool.spm.status, pool.spm.pid) == (SpmStatus.SPM, pid)


async def test_a_start_whose_process_is_killed_says_so_and_leaves_the_role_free(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = world.storage.pool
    with monkeypatch.context() as patched:
        starting = stop_at(patched, LeasedProcess, "call", _asked("start"))
        task_id = await world.storage.tasks.start_spm(world.pool_id, None)
        async with asyncio.timeout(10):
            await starting.reached.wait()
        assert pool.spm.pid is not None
        os.kill(pool.spm.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while pool.spm.pid is not None:
                await asyncio.sleep(0.01)
        starting.go.set()
        status = await world.finish(task_id)
    assert status["taskResult"] == "cleanSuccess"
    assert "was killed by signal 9" in status["message"]
    assert (pool.spm.status, pool.spm.lease_version) == (SpmStatus.FREE, -1)
    assert (await world.become_spm())["taskResult"] == "success"


async def test_a_role_that_was_told_as_ours_after_its_process_had_ended_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between its answer and the agent's next step."""
    spm, call = world.storage.pool.spm, LeasedProcess.call

    async def dies(process: LeasedProcess, verb: str, params: Any, *, timeout_s: float) -> Any:
        answer = await call(process, verb, params, timeout_s=timeout_s)
        os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while spm.pid is not None:
                await asyncio.sleep(0.01)
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(LeasedProcess, "call", dies)
        with pytest.raises(SpmStartFailed, match="was killed by signal 9"):
            await world.storage.pool.start_spm(world.pool_id, None)
    assert spm.status is SpmStatus.FREE


async def test_a_lost_role_has_no_lease_version_and_is_not_taken_again(spm: World) -> None:
    control = spm.storage.pool.spm
    assert control.pid is not None
    os.kill(control.pid, signal.SIGKILL)
    await _until(spm, SpmStatus.FREE)
    assert (control.lease_version, control.pid) == (-1, None)
    assert "killed by signal 9" in control.ended_because
    report = await spm.storage.pool.spm_report(spm.pool_id)
    assert (report.status, report.lease_version, report.host_id) == (SpmStatus.FREE, -1, -1)
    assert (await spm.become_spm())["taskResult"] == "success"
    assert control.ended_because == ""


async def test_the_process_of_one_change_ends_with_it_however_it_ended(
    spm: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, role, pids = new_uuid(), spm.storage.pool.spm.pid, []
    await spm.create_domain(second, spm.top / "second")
    call = LeasedProcess.call

    async def watched(process: LeasedProcess, verb: str, params: Any, *, timeout_s: float) -> Any:
        if verb == "domain.attach":
            pids.append(process.pid)
            if len(pids) == 1:
                os.kill(process.pid, signal.SIGKILL)
        return await call(process, verb, params, timeout_s=timeout_s)

    monkeypatch.setattr(LeasedProcess, "call", watched)
    with pytest.raises(ChangeEnded, match="was cut off"):
        await spm.storage.pool_domains.attach(spm.pool_id, second)
    await spm.storage.pool_domains.attach(spm.pool_id, second)
    assert len(set(pids)) == 2 and role not in pids
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert spm.storage.pool.spm.pid == role
