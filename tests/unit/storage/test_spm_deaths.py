# SPDX-License-Identifier: GPL-2.0-or-later
"""An SPM process that dies anywhere in its start, its end or a task's removal leaves all to the next one."""

from __future__ import annotations

import contextlib

import pytest
from local_world import World

from vdsm.common.crashpoints import REGISTRY
from vdsm.common.errors import AgentError
from vdsm.common.ids import new_uuid

# the agent's own: it dies at them on a real host only
AGENT = {"spm.start.spawned", "spm.start.told", "spm.stop.asked", "spm.stop.ended"}
START = sorted(name for name in REGISTRY if name.startswith("spm.start.") and name not in AGENT)
STOP = sorted(name for name in REGISTRY if name.startswith("spm.stop.") and name not in AGENT)
CLEAR = "task.clear.removed"
HALF_MADE = "volume.create.metadata"


async def _spm_dies_at(world: World, point: str, monkeypatch: pytest.MonkeyPatch, image: str) -> None:
    """An SPM that would die at that point creates a volume, clears the task and gives the role up."""
    marker = world.top / f"{point}.{image}"
    with monkeypatch.context() as patched, contextlib.suppress(AgentError):
        patched.setenv("VDSM_CRASH_AT", f"{point}:{marker}")
        await world.become_spm()
        task_id = await world.start_volume(image, new_uuid())
        if point == HALF_MADE:
            await world.until_free()
        await world.finish(task_id)
        await world.storage.tasks.clear(task_id)
        await world.storage.pool.stop_spm(world.pool_id)
    await world.until_free()
    assert marker.exists(), f"{point} was not reached"


@pytest.mark.parametrize("point", [*START, *STOP, CLEAR])
async def test_the_next_spm_undoes_what_was_left_and_keeps_what_was_made(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    half, image = new_uuid(), new_uuid()
    await _spm_dies_at(world, HALF_MADE, monkeypatch, half)
    assert len(world.stored_tasks()) == 1
    await _spm_dies_at(world, point, monkeypatch, image)
    assert (await world.become_spm())["taskResult"] == "success"
    assert [status["taskResult"] for status in await world.storage.tasks.of_spm()] == ["cleanSuccess"]
    made = [] if point in START else [image]
    assert await world.storage.volumes.images(world.domain_id) == made
    assert world.storage.locks.names == []
    assert sorted(path.name for path in (world.domain / "images").iterdir()) == made
