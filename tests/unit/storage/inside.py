# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM's verbs on a local folder inside the test's own process, so that a test can stop storage at any call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_world import World, mounted_domains

from storage.file.iopool import IoPools
from storage.in_use import InUse
from storage.leases.kept import Kept
from storage.spm.own_lease import OwnLease
from storage.spm.serving import Server
from storage.tasks.record import TaskRecord
from tests.decoder import domain as decoder
from vdsm.api.codes import all_codes
from vdsm.common.ids import new_uuid


@dataclass
class NoAgent:
    """Who uses what is asked of `in_use`; what is told stands in ``told``."""

    in_use: InUse
    told: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def removing(self, domain_id: str, image_id: str, volume_ids: Sequence[str]) -> AsyncIterator[None]:
        with self.in_use.removing(domain_id, image_id, volume_ids):
            yield

    async def tell_odd_task(self, what: str) -> None:
        self.told.append(what)


class Spm:
    """An SPM of `world`'s pool. ``serve`` is what its agent would ask."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.agent = NoAgent(world.storage.in_use)
        self.pools, kept = IoPools(), Kept()
        self.domains = mounted_domains(world.paths.mounts, self.pools, kept)
        lease = OwnLease(self.domains, self.pools, kept, world.paths.leased)
        codes = {f"{cls.__module__}:{cls.__qualname__}": code for cls, code in all_codes().items()}
        self.server = Server(
            lease, self.domains, self.agent, world.storage.locks, repository="/rhev/data-center", codes=codes
        )
        self.serve = self.server.serve

    async def start(self, **changes: Any) -> None:
        await self.serve("start", self.wanted(**changes))

    def wanted(self, **changes: Any) -> dict[str, Any]:
        return {
            "pool_id": self.world.pool_id,
            "host_id": 1,
            "master_id": self.world.domain_id,
            "domain_ids": [self.world.domain_id],
            "max_version": None,
            "watch_s": 10,
            **changes,
        }

    async def stop(self) -> None:
        await self.server.stop()
        await self.domains.close()
        await self.pools.close()

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
        params = {"domain_id": self.world.domain_id, "source_image_id": source_image, "volume": wanted}
        task_id = await self.serve("volume.create", params)
        return str(task_id)

    async def create(self, image: str, volume: str, parent: str = "", source_image: str = "", **changes: Any) -> str:
        """The id of a finished one; its volume is there."""
        task_id = await self.begin(image, volume, parent, source_image, **changes)
        record = await self.wait(task_id)
        assert record.state == "finished", record
        return task_id

    async def delete(self, image: str, *volumes: str, force: bool = False) -> TaskRecord:
        params = {"domain_id": self.world.domain_id, "image_id": image, "volume_ids": list(volumes), "force": force}
        return await self.wait(str(await self.serve("volume.delete", params)))

    async def delete_image(self, image: str) -> TaskRecord:
        params = {"domain_id": self.world.domain_id, "image_id": image}
        return await self.wait(str(await self.serve("image.delete", params)))

    async def wait(self, task_id: str) -> TaskRecord:
        return await self.server.role.tasks.wait(task_id)

    # What lies there, read by the tests' own decoder

    @property
    def path(self) -> Path:
        return self.world.domain

    def images(self) -> dict[str, Any]:
        decoded: dict[str, Any] = decoder.decode(self.path).images
        return decoded

    def roles(self, image: str) -> dict[str, str]:
        return {volume: found.fields["VOLTYPE"] for volume, found in self.images()[image].items()}


def ids(count: int) -> list[str]:
    return [new_uuid() for _ in range(count)]
