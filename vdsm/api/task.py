# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of Task: tasks of the SPM and of this host, by id."""

from __future__ import annotations

from msgspec import field

from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, Params, Uuid


class TaskParams(Params):
    task_id: Uuid = field(name="taskID")


@verb("Task.getStatus", role=Role.READER)
async def task_get_status(call: Call, params: TaskParams) -> JsonDict:
    """State and result of a task, with the code and message of its end."""
    return dict(await call.agent.storage.tasks.status(params.task_id))


@verb("Task.getInfo", role=Role.READER)
async def task_get_info(call: Call, params: TaskParams) -> JsonDict:
    """Id and verb of a task."""
    return dict(await call.agent.storage.tasks.info(params.task_id))


@verb("Task.stop", role=Role.ADMIN)
async def task_stop(call: Call, params: TaskParams) -> None:
    """Stop a running task; what it did is undone."""
    await call.agent.storage.tasks.stop(params.task_id)


@verb("Task.clear", role=Role.ADMIN)
async def task_clear(call: Call, params: TaskParams) -> None:
    """Forget a task that has ended."""
    await call.agent.storage.tasks.clear(params.task_id)


@verb("Task.revert", role=Role.ADMIN)
async def task_revert(call: Call, params: TaskParams) -> None:
    """Undo a task that has finished, where its kind can be undone."""
    await call.agent.storage.tasks.revert(params.task_id)
