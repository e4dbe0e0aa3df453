# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks as clients see them: those of the SPM process, and this host's own (``spmStart``).

Both have ids of one kind. A host's own tasks live as long as the agent; the SPM's are stored on the
master domain and go with the role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storage.locks import Lock, LockTable
from storage.pool import Pool
from storage.spm.errors import NotSpm
from storage.tasks.record import Recovery
from storage.tasks.runner import CodeOf, StepInvalid, Task, Tasks, UnknownTask
from vdsm.common.ids import BLANK_UUID


class PoolTasks:
    def __init__(self, pool: Pool, code_of: CodeOf, held: LockTable) -> None:
        self._pool = pool
        self._own = Tasks(None, _NoSteps(), code_of, held)

    async def start_spm(self, pool_id: str, max_version: int | None) -> str:
        """Begin to take the SPM role; the task's id. Raises `PoolUnknown`."""
        self._pool.require(pool_id)

        async def body(task: Task) -> str:
            await self._pool.start_spm(pool_id, max_version)
            return ""

        return await self._own.start("spmStart", body, about=pool_id)

    async def status(self, task_id: str) -> Mapping[str, Any]:
        if self._owns(task_id):
            return self._own.status(task_id)
        status: Mapping[str, Any] = await self._ask("task.status", task_id)
        return status

    async def info(self, task_id: str) -> Mapping[str, Any]:
        if self._owns(task_id):
            return {"id": task_id, "verb": self._own.get(task_id).record.verb}
        info: Mapping[str, Any] = await self._ask("task.info", task_id)
        return info

    async def stop(self, task_id: str) -> None:
        if self._owns(task_id):
            self._own.stop(task_id)
        else:
            await self._ask("task.stop", task_id)

    async def clear(self, task_id: str) -> None:
        if self._owns(task_id):
            await self._own.clear(task_id)
        else:
            await self._ask("task.clear", task_id)

    async def revert(self, task_id: str) -> None:
        if self._owns(task_id):
            self._own.revert(task_id)
        else:
            await self._ask("task.revert", task_id)

    async def of_spm(self) -> list[Mapping[str, Any]]:
        """Tasks of the pool. Raises `NotSpm` on any other host, also on one without a pool."""
        if self._pool.connected is None:
            raise NotSpm(BLANK_UUID)
        tasks: list[Mapping[str, Any]] = await self._pool.call_spm("task.all", {})
        return tasks

    async def all(self) -> list[Mapping[str, Any]]:
        """Tasks of this host and, if it is SPM, of the pool."""
        own: list[Mapping[str, Any]] = [{**task, "tag": ""} for task in self._own.described()]
        if self._pool.spm.status != "SPM":
            return own
        return own + await self.of_spm()

    def _owns(self, task_id: str) -> bool:
        return any(record.task_id == task_id for record in self._own.all())

    async def _ask(self, verb: str, task_id: str) -> Any:
        if self._pool.connected is None:
            raise UnknownTask(task_id)
        try:
            return await self._pool.call_spm(verb, {"task_id": task_id})
        except NotSpm:
            raise UnknownTask(task_id) from None


class _NoSteps:
    """This host's own tasks store no steps back."""

    def locks(self, _: Sequence[Recovery]) -> list[Lock]:
        return []

    async def run(self, recovery: Recovery) -> None:
        raise StepInvalid(recovery.call, "tasks of the host have none")
