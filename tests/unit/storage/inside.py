# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM's verbs on a local folder inside the test's own process, so that a test can stop storage at any call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_world import World, mounted_domains
from spm_verbs import CODES, SpmVerbs, ids

from storage.file.iopool import IoPools
from storage.halves import STEPS_BACK
from storage.in_use import InUse
from storage.leases.kept import Kept
from storage.spm.own_lease import OwnLease
from storage.spm.serving import Server
from tests.decoder import domain as decoder

__all__ = ["NoAgent", "Spm", "ids"]


@dataclass
class NoAgent:
    """Who uses what is asked of `in_use`; what is told stands in ``told``."""

    in_use: InUse
    told: list[str] = field(default_factory=list)
    moved: list[tuple[str, int]] = field(default_factory=list)

    @asynccontextmanager
    async def removing(self, domain_id: str, image_id: str, volume_ids: Sequence[str]) -> AsyncIterator[None]:
        with self.in_use.removing(domain_id, image_id, volume_ids):
            yield

    async def tell_odd_task(self, what: str) -> None:
        self.told.append(what)

    async def master_moved(self, domain_id: str, version: int) -> None:
        self.moved.append((domain_id, version))


class Spm(SpmVerbs):
    """An SPM of `world`'s pool. ``serve`` is what its agent would ask."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.agent = NoAgent(world.storage.in_use)
        self.pools, self.kept = IoPools(), Kept()
        self.domains = mounted_domains(world.paths.mounts, self.pools, self.kept)
        server = Server(
            lambda: OwnLease(self.domains, self.pools, self.kept, world.paths.leased),
            self.domains,
            self.agent,
            world.storage.locks,
            readers=STEPS_BACK,
            repository="/rhev/data-center",
            codes=CODES,
        )
        super().__init__(server, world.pool_id, world.domain_id)

    async def stop(self) -> None:
        await self.server.stop()
        await self.domains.close()
        await self.pools.close()

    # What lies there, read by the tests' own decoder

    @property
    def path(self) -> Path:
        return self.world.domain

    def images(self) -> dict[str, Any]:
        decoded: dict[str, Any] = decoder.decode(self.path).images
        return decoded

    def roles(self, image: str) -> dict[str, str]:
        return {volume: found.fields["VOLTYPE"] for volume, found in self.images()[image].items()}
