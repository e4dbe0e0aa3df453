# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks of this host and of its SPM process, as clients list, ask for and stop them."""

from __future__ import annotations

import asyncio

import pytest
from local_world import World

from storage import locks
from storage.tasks.runner import UnknownTask
from vdsm.common.ids import new_uuid


async def _waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an spmStart that goes on until it is stopped."""
    begun = asyncio.Event()

    async def waits(_pool_id: str, _max_version: int | None) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(world.storage.pool, "start_spm", waits)
    task_id = await world.storage.tasks.start_spm(world.pool_id, None)
    async with asyncio.timeout(5):
        await begun.wait()
    return task_id


async def test_a_host_that_is_not_spm_lists_its_own_tasks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = await _waiting(world, monkeypatch)
    assert await world.storage.tasks.all() == [
        {
            "taskID": task_id,
            "taskState": "running",
            "taskResult": "",
            "code": 0,
            "message": "Task is running",
            "verb": "spmStart",
            "tag": "",
            "state": "running",
            "result": "",
            "progress": None,
        }
    ]
    assert await world.storage.tasks.info(task_id) == {"id": task_id, "verb": "spmStart"}
    await world.storage.tasks.stop(task_id)


async def test_a_task_of_this_host_is_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = await _waiting(world, monkeypatch)
    await world.storage.tasks.stop(task_id)
    status = await world.finish(task_id)
    assert (status["taskResult"], status["code"]) == ("cleanSuccess", 411)
    await world.storage.tasks.clear(task_id)
    assert await world.storage.tasks.all() == []


async def test_the_spm_lists_the_pools_tasks_behind_its_own(spm: World) -> None:
    volume = new_uuid()
    task_id = await spm.start_volume(new_uuid(), volume)
    await spm.finish(task_id)
    own, pools = await spm.storage.tasks.all()
    assert (own["verb"], own["state"], own["result"]) == ("spmStart", "finished", "")
    assert (pools["taskID"], pools["verb"], pools["tag"]) == (task_id, "createVolume", "spm")
    assert (pools["state"], pools["result"]) == ("finished", volume)
    assert await spm.storage.tasks.info(task_id) == {"id": task_id, "verb": "createVolume"}


async def test_a_task_of_the_spm_is_stopped_and_leaves_nothing(spm: World) -> None:
    image = new_uuid()
    async with spm.storage.locks.hold([locks.image(spm.domain_id, image)], who="the test"):
        task_id = await spm.start_volume(image, new_uuid())
        await spm.storage.tasks.stop(task_id)
        status = await spm.finish(task_id)
    assert (status["taskResult"], status["code"]) == ("cleanSuccess", 411)
    assert spm.image_files(image) == set()


async def test_a_task_that_there_is_not_is_unknown_in_and_out_of_a_pool(world: World) -> None:
    tasks, unknown = world.storage.tasks, new_uuid()
    for ask in (tasks.info, tasks.status, tasks.stop, tasks.clear, tasks.revert):
        with pytest.raises(UnknownTask, match=unknown):
            await ask(unknown)
    await world.storage.pool.disconnect(world.pool_id)
    for ask in (tasks.info, tasks.status, tasks.stop, tasks.clear, tasks.revert):
        with pytest.raises(UnknownTask, match=unknown):
            await ask(unknown)
