# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent asks its SPM process, in few words."""

from __future__ import annotations

from typing import Any

from storage.spm.serving import Server
from storage.tasks.record import TaskRecord
from vdsm.api.codes import all_codes
from vdsm.common.ids import new_uuid

CODES = {f"{cls.__module__}:{cls.__qualname__}": code for cls, code in all_codes().items()}


class SpmVerbs:
    """Of one SPM and one domain of its pool."""

    def __init__(self, server: Server, pool_id: str, domain_id: str) -> None:
        self.server = server
        self.serve = server.serve
        self.pool_id, self.domain_id = pool_id, domain_id

    async def start(self, **changes: Any) -> None:
        await self.serve("start", self.wanted(**changes))

    def wanted(self, **changes: Any) -> dict[str, Any]:
        return {
            "pool_id": self.pool_id,
            "host_id": 1,
            "master_id": self.domain_id,
            "domain_ids": [self.domain_id],
            "max_version": None,
            "watch_s": 10,
            **changes,
        }

    async def begin(self, image: str, volume: str, parent: str = "", source_image: str = "", **changes: Any) -> str:
        """The id of a createVolume task."""
        wanted = {
            "image_id": image,
            "volume_id": volume,
            "capacity": 1 << 20,
            "format": "COW",
            "allocation": "SPARSE",
            "parent_id": parent,
            **changes,
        }
        params = {"domain_id": self.domain_id, "source_image_id": source_image, "volume": wanted}
        task_id = await self.serve("volume.create", params)
        return str(task_id)

    async def create(self, image: str, volume: str, parent: str = "", source_image: str = "", **changes: Any) -> str:
        """The id of a finished one; its volume is there."""
        task_id = await self.begin(image, volume, parent, source_image, **changes)
        record = await self.wait(task_id)
        assert record.state == "finished", record
        return task_id

    async def delete(self, image: str, *volumes: str, force: bool = False) -> TaskRecord:
        params = {"domain_id": self.domain_id, "image_id": image, "volume_ids": list(volumes), "force": force}
        return await self.wait(str(await self.serve("volume.delete", params)))

    async def delete_image(self, image: str) -> TaskRecord:
        params = {"domain_id": self.domain_id, "image_id": image}
        return await self.wait(str(await self.serve("image.delete", params)))

    async def wait(self, task_id: str) -> TaskRecord:
        return await self.server.role.tasks.wait(task_id)


def ids(count: int) -> list[str]:
    return [new_uuid() for _ in range(count)]
