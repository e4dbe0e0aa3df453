# SPDX-License-Identifier: GPL-2.0-or-later
"""What an engine changes about a pool and its domains, each with the way in which it goes on after a death.

Run in the test's process and, where an agent is to die, in a process of its own: what one makes another finds on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from inside import Spm
from local_world import World, take_domain

from storage.ondisk.values import DomainStatus
from storage.pool_master import ConnectedPool
from storage.spm.control import SpmStatus
from storage.spm.errors import UpgradeRunning
from storage.spm.once import Once
from storage.spm.own_lease import OwnLease
from tests.decoder import domain as decoder
from tests.decoder import text as decoder_text
from vdsm.common.errors import AgentError
from vdsm.common.ids import new_uuid

ACTIVE, ATTACHED = DomainStatus.ACTIVE, DomainStatus.ATTACHED


class Change:
    """``points``: where its crash points begin. ``version``: of the pool's domains before it."""

    points: ClassVar[str]
    version: ClassVar[int] = 5
    once: ClassVar[bool] = False
    """Done by a process of its own, beside the SPM's if there is one."""

    def __init__(self, world: World, second: str = "", image: str = "", ended: str = "") -> None:
        self.world = world
        self.second = second or new_uuid()
        self.image = image or new_uuid()
        """One with a volume, on the master."""
        self.ended = ended
        """The task that made it."""

    @property
    def ids(self) -> list[str]:
        return [self.second, self.image, self.ended]

    @property
    def folder(self) -> Path:
        return self.world.top / "second"

    def held(self) -> set[str]:
        """Domains whose lease somebody has."""
        paths = {self.world.domain_id: self.world.domain, self.second: self.folder / self.second}
        return {domain_id for domain_id, path in paths.items() if _is_locked(path / "dom_md" / "ids")}

    @property
    def under(self) -> set[str]:
        """Domains whose lease whoever makes it has at each of its points."""
        return {self.second} if self.once else {self.world.domain_id}

    async def prepare(self) -> None:
        """By a host that is SPM."""
        world = self.world
        self.ended = await world.start_volume(self.image, new_uuid())
        await world.finish(self.ended)
        await world.create_domain(self.second, self.folder, version=self.version)

    def elsewhere(self, world: World) -> Self:
        """The same, prepared, in a world of its own."""
        take_domain(self.world.folder, world.folder, world.domain_id)
        taken = type(self)(world, *self.ids)
        take_domain(self.folder, taken.folder, self.second)
        return taken

    async def start(self) -> None:
        """A host of that world, ready for the change."""
        await self.world.start()
        await self.world.connect_folder(self.folder)
        await self.ready()

    async def _attach(self, status: DomainStatus = ACTIVE) -> None:
        await self.world.storage.pool_domains.attach(self.world.pool_id, self.second)
        if status is ACTIVE:
            await self.world.storage.pool_domains.activate(self.world.pool_id, self.second)

    def known(self) -> Mapping[str, DomainStatus]:
        """The map that the engine has while the change is under way."""
        return {self.world.domain_id: ACTIVE, self.second: ACTIVE}

    async def join(self) -> None:
        """As an engine does with a host whose agent, or SPM process, is gone."""
        await self.world.storage.pool.connect(self.world.pool_id, 1, self.world.domain_id, 1, self.known())

    async def ready(self) -> None:
        """Joined, and SPM."""
        await self.join()
        if self.world.storage.pool.spm.status is not SpmStatus.SPM:
            status = await self.world.become_spm()
            assert status["taskResult"] == "success", status

    async def change(self) -> None:
        raise NotImplementedError

    async def inside(self, spm: Spm) -> None:
        """The part of it that the SPM process, or the process of this one change, does: in this process."""
        raise NotImplementedError

    async def again(self) -> None:
        """The engine asks again."""
        await self.change()

    def left(self) -> None:
        """What lies there at the end."""
        raise NotImplementedError

    def fields(self, domain_id: str) -> dict[str, str]:
        top = self.world.folder if domain_id == self.world.domain_id else self.folder
        found: dict[str, str] = decoder.decode(top / domain_id, converting=self.version != 5).fields
        return found


def _is_locked(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def _unheard(_step: str) -> None:
    return


async def _once(spm: Spm, verb: str, params: dict[str, Any]) -> None:
    once = Once(OwnLease(spm.domains, spm.pools, spm.kept, spm.world.paths.leased), spm.domains, _unheard)
    try:
        await once.serve(verb, params)
    finally:
        await once.stop()


class Attach(Change):
    points = "domain.attach."
    once = True

    def known(self) -> Mapping[str, DomainStatus]:
        return {self.world.domain_id: ACTIVE}

    async def change(self) -> None:
        await self._attach(ATTACHED)

    async def inside(self, spm: Spm) -> None:
        params = {"pool_id": spm.pool_id, "host_id": 1, "domain_id": self.second, "master_version": 5}
        await _once(spm, "domain.attach", params)

    async def again(self) -> None:
        await self._attach(ACTIVE)

    def left(self) -> None:
        assert self.fields(self.second)["POOL_UUID"] == self.world.pool_id


class Detach(Change):
    points = "domain.detach."

    def known(self) -> Mapping[str, DomainStatus]:
        return {self.world.domain_id: ACTIVE, self.second: ATTACHED}

    async def prepare(self) -> None:
        await super().prepare()
        await self._attach(ATTACHED)

    async def change(self) -> None:
        await self.world.storage.pool_domains.detach(self.world.pool_id, self.second)

    def left(self) -> None:
        assert self.fields(self.second)["POOL_UUID"] == ""
        assert set(self.world.storage.pool.require(self.world.pool_id).domains) == {self.world.domain_id}


class Move(Change):
    points = "master.move."

    @property
    def under(self) -> set[str]:
        return {self.world.domain_id, self.second}

    async def prepare(self) -> None:
        await super().prepare()
        await self._attach()

    async def change(self) -> None:
        pool_id, old = self.world.pool_id, self.world.domain_id
        await self.world.storage.pool_domains.deactivate(pool_id, old, self.second, 2)

    async def inside(self, spm: Spm) -> None:
        await spm.serve("master.move", {"domain_id": self.second, "version": 2, "map_on_master": False})

    async def join(self) -> None:
        """It names the new master first; where that is none yet it is refused."""
        pool = self.world.storage.pool
        try:
            await pool.connect(self.world.pool_id, 1, self.second, 2, self.known())
        except AgentError:
            await pool.connect(self.world.pool_id, 1, self.world.domain_id, 1, self.known())

    async def again(self) -> None:
        assert self.ended in {task["taskID"] for task in await self.world.storage.tasks.of_spm()}
        if self.world.storage.pool.require(self.world.pool_id).master_id != self.second:
            await self.change()
        old = self.world.domain / "dom_md/metadata"
        async with asyncio.timeout(10):
            while decoder_text.domain(old.read_bytes())["ROLE"] != "Regular":
                await asyncio.sleep(0.01)

    def left(self) -> None:
        assert (self.fields(self.world.domain_id)["ROLE"], self.fields(self.second)["ROLE"]) == ("Regular", "Master")
        assert self.ended in os.listdir(self.folder / self.second / "master" / "tasks")


class Upgrade(Change):
    points = "domain.convert."
    version = 3

    async def prepare(self) -> None:
        await super().prepare()
        await self._attach()

    async def change(self) -> None:
        await self.world.storage.versions.upgrade(self.world.pool_id, 5)

    async def inside(self, spm: Spm) -> None:
        await spm.serve("pool.upgrade", {"version": 5, "domain_ids": [self.second]})

    async def again(self) -> None:
        second = self.folder / self.second / "dom_md/metadata"
        async with asyncio.timeout(10):
            while not await self._upgraded():
                await asyncio.sleep(0.01)
            while decoder_text.domain(second.read_bytes())["VERSION"] != "5":
                await asyncio.sleep(0.01)

    async def _upgraded(self) -> bool:
        """Refused while the SPM brings the others to the version that the master was left at."""
        with contextlib.suppress(UpgradeRunning):
            await self.change()
            return True
        return False

    def left(self) -> None:
        assert (self.fields(self.world.domain_id)["VERSION"], self.fields(self.second)["VERSION"]) == ("5", "5")
        (volume,) = decoder.decode(self.world.domain, converting=True).images[self.image].values()
        assert volume.fields["CAP"] == str(1 << 20)


class Reconstruct(Change):
    """The old master is lost; that its pool is made anew is asked of a host that is in no pool."""

    points = "pool.reconstruct."
    once = True

    async def prepare(self) -> None:
        await super().prepare()
        await self._attach()

    async def ready(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.world.domain / "dom_md").rename(self.world.domain / "away")

    async def change(self) -> None:
        wanted = ConnectedPool(
            self.world.pool_id, 1, self.second, 7, {self.world.domain_id: ATTACHED, self.second: ACTIVE}, True
        )
        await self.world.storage.new_pools.reconstruct(wanted, "again", {})

    async def inside(self, spm: Spm) -> None:
        params = {"pool_id": spm.pool_id, "host_id": 1, "name": "again", "master_id": self.second, "master_version": 7}
        domains = {self.world.domain_id: ATTACHED.value, self.second: ACTIVE.value}
        await _once(spm, "pool.reconstruct", {**params, "domains": domains, "lease_fields": {}})

    async def again(self) -> None:
        await self.change()
        await self.world.storage.pool.connect(self.world.pool_id, 1, self.second, 7, None)
        assert (await self.world.become_spm())["taskResult"] == "success"

    def left(self) -> None:
        found = self.fields(self.second)
        assert (found["ROLE"], found["MASTER_VERSION"], found["POOL_DESCRIPTION"]) == ("Master", "7", "again")


CHANGES: tuple[type[Change], ...] = (Attach, Detach, Move, Upgrade, Reconstruct)


def change_at(point: str) -> type[Change]:
    return next(change for change in CHANGES if point.startswith(change.points))
