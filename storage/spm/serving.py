# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of the SPM process: what its agent may ask over their socket, as plain JSON.

All but ``start`` need the open gate. A verb that starts a task answers with its id. What still
runs when the role is given up is interrupted before the lease is released.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from storage import locks
from storage.domain import Domain
from storage.domains import Domains
from storage.locks import LockTable
from storage.new_volume import NewVolume
from storage.ondisk.values import Allocation, Legality, VolumeFormat
from storage.spm.agent import Agent
from storage.spm.attachments import Attachments
from storage.spm.master_move import move
from storage.spm.own_lease import OwnLease
from storage.spm.recoveries import Recoveries
from storage.spm.role import Role, Wanted, code_of
from storage.spm.volumes import Volumes, changing
from storage.tasks.runner import Task
from storage.tasks.steps import Read
from storage.tasks.uncut import to_its_end
from vdsm.common.errors import RemoteError
from vdsm.common.types import Json

Params = Mapping[str, Any]
Verb = Callable[[Params], Awaitable[Json]]


class Server:
    def __init__(
        self,
        new_lease: Callable[[], OwnLease],
        domains: Domains,
        agent: Agent,
        held: LockTable,
        *,
        readers: Mapping[str, Read],
        repository: str,
        codes: Mapping[str, int],
    ) -> None:
        self.domains = domains
        self.role = Role(new_lease, domains, agent, Recoveries(domains, agent, readers), held, code_of(codes))
        self._agent = agent
        self._locks = held
        self._repository = repository
        self._attachments = Attachments(domains)
        self._volumes = Volumes(domains, held, agent)
        self._serving: set[asyncio.Task[Any]] = set()
        self._verbs: dict[str, Verb] = {
            "start": self._start,
            "pool.destroy": self._destroy_pool,
            "pool.write_map": self._write_map,
            "pool.upgrade": self._upgrade,
            "domain.activate": self._activate,
            "domain.bring_up": self._bring_up,
            "master.switch": self._switch_master,
            "master.move": self._move_master,
            "domain.detach": self._detach,
            "domain.rename": self._rename,
            "volume.create": self._create_volume,
            "volume.delete": self._delete_volumes,
            "volume.extend_size": self._extend_size,
            "volume.describe": self._describe,
            "volume.set_legality": self._set_legality,
            "image.delete": self._delete_image,
            "task.status": self._task_status,
            "task.info": self._task_info,
            "task.all": self._all_tasks,
            "task.stop": self._stop_task,
            "task.clear": self._clear_task,
            "task.revert": self._revert_task,
        }

    async def serve(self, verb: str, params: dict[str, Any]) -> Json:
        handler = self._verbs.get(verb)
        if handler is None:
            raise RemoteError("spm", f"The SPM process has no verb {verb!r}")
        self.domains.source.learn(params.pop("places", {}))
        ours = asyncio.current_task()
        assert ours is not None
        self._serving.add(ours)
        try:
            return await handler(params)
        finally:
            self._serving.discard(ours)

    async def stop(self) -> None:
        """Give the role up."""
        self.role.close_gate()
        interrupted = list(self._serving)
        for serving in interrupted:
            serving.cancel()
        if interrupted:
            await asyncio.wait(interrupted)
        await self.role.stop()

    async def _start(self, p: Params) -> Json:
        return await self.role.start(
            Wanted(p["pool_id"], p["host_id"], p["master_id"], tuple(p["domain_ids"]), p["max_version"], p["watch_s"])
        )

    async def _destroy_pool(self, p: Params) -> Json:
        wanted = self.role.wanted
        await self._attachments.destroy_pool(wanted.pool_id, wanted.master_id, p["domain_ids"])
        return None

    async def _write_map(self, p: Params) -> Json:
        await self._attachments.write_map(self.role.wanted.master_id, p["domains"])
        return None

    async def _upgrade(self, p: Params) -> Json:
        master = await self._master()
        await self.role.activations.upgrade(self.role.pool_id, master, p["version"], p["domain_ids"])
        return None

    async def _activate(self, p: Params) -> Json:
        await self.role.activations.prepare(p["domain_id"], int((await self._master()).version))
        return None

    async def _bring_up(self, p: Params) -> Json:
        self.role.activations.begin([p["domain_id"]], int((await self._master()).version))
        return None

    async def _master(self) -> Domain:
        """Raises `NotSpm`."""
        return await self.domains.get(self.role.wanted.master_id)

    async def _switch_master(self, p: Params) -> Json:
        """A task, with locks of its own."""
        alone = [locks.domain(d, locks.Mode.EXCLUSIVE) for d in (self.role.wanted.master_id, p["domain_id"])]

        async def body(task: Task) -> str:
            task.worked = True  # the master is moved or it is not: nobody stops it half way
            await self._move_master(p)
            return ""

        return await self.role.tasks.start("switchMaster", body, alone, about=p["domain_id"])

    async def _move_master(self, p: Params) -> Json:
        """Under locks of the caller."""
        moving = move(self.role, self._agent, p["domain_id"], p["version"], map_on_master=p["map_on_master"])
        await to_its_end(moving)
        return None

    async def _detach(self, p: Params) -> Json:
        await self._attachments.detach(self.role.wanted.pool_id, p["domain_id"])
        return None

    async def _rename(self, p: Params) -> Json:
        self.role.require_open()
        await self._attachments.rename(p["domain_id"], p["description"])
        return None

    async def _create_volume(self, p: Params) -> Json:
        wanted = self.role.wanted
        new = dict(p["volume"], source_image_id=p["source_image_id"])
        new["format"] = VolumeFormat(new["format"])
        new["allocation"] = Allocation(new["allocation"])
        volume = NewVolume(**new)
        pool_folder = os.path.join(self._repository, wanted.pool_id)
        needed = await self._volumes.creating(p["domain_id"], volume)
        return await self.role.tasks.start(
            "createVolume",
            lambda task: self._volumes.create(task, p["domain_id"], volume, pool_folder),
            needed,
            about=volume.volume_id,
        )

    async def _delete_volumes(self, p: Params) -> Json:
        ids = p["volume_ids"]
        return await self.role.tasks.start(
            "deleteVolume",
            lambda task: self._volumes.delete(task, p["domain_id"], p["image_id"], ids, force=p["force"]),
            changing(p["domain_id"], p["image_id"]),
            about=", ".join(ids),
        )

    async def _delete_image(self, p: Params) -> Json:
        return await self.role.tasks.start(
            "deleteImage",
            lambda task: self._volumes.delete_image(task, p["domain_id"], p["image_id"]),
            changing(p["domain_id"], p["image_id"]),
            job=f"purgeImage_{p['image_id']}",
            about=p["image_id"],
        )

    async def _extend_size(self, p: Params) -> Json:
        return await self.role.tasks.start(
            "extendVolumeSize",
            lambda task: self._volumes.extend_size(task, p["domain_id"], p["image_id"], p["volume_id"], p["size"]),
            changing(p["domain_id"], p["image_id"]),
            about=p["volume_id"],
        )

    async def _describe(self, p: Params) -> Json:
        self.role.require_open()
        await self._volumes.describe(p["domain_id"], p["image_id"], p["volume_id"], p["description"])
        return None

    async def _set_legality(self, p: Params) -> Json:
        self.role.require_open()
        legality = Legality(p["legality"])
        await self._volumes.set_legality(p["domain_id"], p["image_id"], p["volume_id"], legality)
        return None

    async def _task_status(self, p: Params) -> Json:
        return self.role.tasks.status(p["task_id"])

    async def _task_info(self, p: Params) -> Json:
        record = self.role.tasks.get(p["task_id"]).record
        return {"id": record.task_id, "verb": record.verb}

    async def _all_tasks(self, _: Params) -> Json:
        return list(self.role.tasks.described())

    async def _stop_task(self, p: Params) -> Json:
        self.role.tasks.stop(p["task_id"])
        return None

    async def _clear_task(self, p: Params) -> Json:
        await self.role.tasks.clear(p["task_id"])
        return None

    async def _revert_task(self, p: Params) -> Json:
        self.role.tasks.revert(p["task_id"])
        return None
