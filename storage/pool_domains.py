# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains of the connected pool: they come, go, are used, and one of them is the master. For the SPM's host.

Each verb has its domains alone, and lends them to the process that changes them. The pool's map changes last, in the
pool's lane: what stands on the storage is then done, and doing the verb again is harmless. Nothing in the lane waits
for a domain's storage, so one that is dead keeps no other from coming and going.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from storage.domains import Domains
from storage.in_use import InUse
from storage.lockspaces import Lockspaces
from storage.ondisk.values import DomainStatus
from storage.pool import Pool
from storage.pool_master import ConnectedPool
from storage.spm.errors import (
    DomainActive,
    DomainNotActive,
    DomainNotInPool,
    WrongMaster,
)
from storage.turns import DomainTurns
from storage.under_way import Step, UnderWay
from vdsm.common.crashpoints import crash_point
from vdsm.common.types import Json

log = logging.getLogger("vdsm.storage.pool")

# it may have to be converted
ACTIVATE_S = 600.0
MOVE_S = 900.0

ATTACH_ENDED = crash_point("domain.attach.ended", "the domain names the pool, the pool's map not the domain (agent)")
DETACH_ENDED = crash_point("domain.detach.ended", "the domain names no pool, the pool's map still the domain (agent)")


class PoolDomains:
    def __init__(
        self,
        pool: Pool,
        domains: Domains,
        in_use: InUse,
        lockspaces: Lockspaces,
        turns: DomainTurns,
        under_way: UnderWay,
    ) -> None:
        self._pool = pool
        self._domains = domains
        self._in_use = in_use
        self._lockspaces = lockspaces
        self._turns = turns
        self._under_way = under_way

    async def attach(self, pool_id: str, domain_id: str) -> None:
        """Raises `LockTimeout`, `ChangeUnderWay`, and what the SPM refuses."""
        step = Step(f"it waits for its turn with domain {domain_id}")
        what = f"Attaching domain {domain_id} to pool {pool_id}"
        await self._under_way.wait(what, domain_id, step, self._attach(pool_id, domain_id, step))

    async def _attach(self, pool_id: str, domain_id: str, step: Step) -> None:
        async with self._turns.alone([domain_id], "StorageDomain.attach") as grant:
            pool = self._pool.require(pool_id)
            if domain_id in pool.domains:
                return
            self._pool.spm.require(pool_id)
            step.take(f"it reads domain {domain_id}")
            await self._domains.get(domain_id)
            params: dict[str, Json] = {
                "pool_id": pool_id,
                "host_id": pool.host_id,
                "domain_id": domain_id,
                "master_version": int((await (await self._domains.get(pool.master_id)).read_metadata()).version),
                "places": self._domains.source.known([domain_id]),
            }
            async with self._lockspaces.joined_for_once(domain_id):
                await self._pool.spm.once(grant, domain_id, pool_id, "domain.attach", params, step=step.take)
            ATTACH_ENDED.reach()
            step.take("it waits for its turn with the pool's map")
            async with self._pool.lane("attach domain"):
                await self._pool.change_map({**self._pool.require(pool_id).domains, domain_id: DomainStatus.ATTACHED})

    async def detach(self, pool_id: str, domain_id: str) -> None:
        """A domain of the map that names the pool no more is detached by this: who began it did not live to end it.

        Raises `DomainActive`, `DomainNotInPool`, `VolumesInUse`, `LockTimeout`, `ChangeUnderWay`, and what the SPM
        refuses.
        """
        step = Step(f"it waits for its turn with domain {domain_id}, or for domain {domain_id} itself")
        what = f"Detaching domain {domain_id} from pool {pool_id}"
        await self._under_way.wait(what, domain_id, step, self._detach(pool_id, domain_id))

    async def _detach(self, pool_id: str, domain_id: str) -> None:
        async with self._turns.alone([domain_id], "StorageDomain.detach") as grant:
            pool = self._pool.require(pool_id)
            if pool.domains.get(domain_id) is DomainStatus.ACTIVE:
                raise DomainActive(domain_id)
            self._in_use.check_domain(domain_id)
            try:
                await self._pool.call_under(grant, pool, "domain.detach", {"domain_id": domain_id})
            except DomainNotInPool:
                if domain_id not in pool.domains:
                    raise
                log.warning("domain %s was detached before, the map of pool %s had it still", domain_id, pool_id)
            DETACH_ENDED.reach()
            async with self._pool.lane("detach domain"):
                known = self._pool.require(pool_id).domains
                leaving = await self._pool.change_map({d: status for d, status in known.items() if d != domain_id})
            await leaving

    async def activate(self, pool_id: str, domain_id: str) -> None:
        """It may have to be converted. Raises `DomainNotInPool`, `ChangeUnderWay`, and what the SPM refuses."""
        step = Step(f"it reads domain {domain_id}, or converts it")
        what = f"Activating domain {domain_id} of pool {pool_id}"
        await self._under_way.wait(what, domain_id, step, self._activate(pool_id, domain_id))

    async def _activate(self, pool_id: str, domain_id: str) -> None:
        self._check_in_pool(pool_id, domain_id)
        metadata = await (await self._domains.get(domain_id)).read_metadata()
        if pool_id not in metadata.pools:
            raise DomainNotInPool(domain_id, pool_id)
        await self._pool.call_spm("domain.activate", {"domain_id": domain_id}, timeout_s=ACTIVATE_S)
        async with self._pool.lane("activate domain"):
            await self._set_status(pool_id, domain_id, DomainStatus.ACTIVE)

    async def deactivate(self, pool_id: str, domain_id: str, new_master_id: str = "", version: int = 0) -> None:
        """Of the master: its role goes to another domain first. Without one nothing happens, as in the field: whoever
        stops using the last domain of a pool ends the SPM role and leaves the pool.

        Raises what `switch_master` does, and `ChangeUnderWay`.
        """
        pool = self._pool.require(pool_id)
        if domain_id == pool.master_id:
            if not new_master_id:
                log.info("domain %s stays the active master of pool %s: no other one is named", domain_id, pool_id)
                return
            step = Step(f"the master's role goes from domain {domain_id} to domain {new_master_id}")
            what = f"Deactivating domain {domain_id} of pool {pool_id}"
            moving = self._deactivate_master(pool, new_master_id, version)
            await self._under_way.wait(what, domain_id, step, moving)
        else:
            await self._give_up(pool_id, domain_id)

    async def _deactivate_master(self, pool: ConnectedPool, new_master_id: str, version: int) -> None:
        moving = _moving(pool, pool.master_id, new_master_id, version)
        self._pool.spm.require(pool.pool_id)
        await self._see_well(new_master_id)
        async with self._turns.alone([pool.master_id, new_master_id], "StorageDomain.deactivate") as grant:
            await self._pool.call_under(grant, pool, "master.move", moving, timeout_s=MOVE_S)
        await self._give_up(pool.pool_id, pool.master_id)

    async def _give_up(self, pool_id: str, domain_id: str) -> None:
        self._check_in_pool(pool_id, domain_id)
        await self._pool.call_spm("task.all", {})  # only the SPM changes the pool
        async with self._pool.lane("deactivate domain"):
            leaving = await self._set_status(pool_id, domain_id, DomainStatus.ATTACHED)
        await leaving

    async def switch_master(self, pool_id: str, old_id: str, new_id: str, version: int) -> str:
        """Begin to move the master's role; the task's id.

        Raises `WrongMaster`, `DomainNotInPool`, `DomainNotActive`, `NotSpm`; the task also `IsoMaster`, `BackupMaster`,
        `MixedDomainVersions`.
        """
        moving = _moving(self._pool.require(pool_id), old_id, new_id, version)
        self._pool.spm.require(pool_id)
        await self._see_well(new_id)
        task_id: str = await self._pool.call_spm("master.switch", moving)
        return task_id

    async def _see_well(self, domain_id: str) -> None:
        """Before it is to be the master: where it hangs, both domains would be locked for minutes."""
        await (await self._domains.get(domain_id)).read_metadata()

    async def _set_status(self, pool_id: str, domain_id: str, status: DomainStatus) -> Awaitable[object]:
        self._check_in_pool(pool_id, domain_id)  # it may have gone meanwhile
        return await self._pool.change_map({**self._pool.require(pool_id).domains, domain_id: status})

    def _check_in_pool(self, pool_id: str, domain_id: str) -> None:
        if domain_id not in self._pool.require(pool_id).domains:
            raise DomainNotInPool(domain_id, pool_id)


def _moving(pool: ConnectedPool, old_id: str, new_id: str, version: int) -> dict[str, Json]:
    """What the SPM process is asked. Raises what this host knows to be wrong."""
    if old_id != pool.master_id:
        raise WrongMaster(pool.pool_id, old_id, f"its master is {pool.master_id}")
    if version <= pool.master_version:
        raise WrongMaster(pool.pool_id, new_id, f"version {version} is not newer than {pool.master_version}")
    if new_id not in pool.domains or new_id == old_id:
        raise DomainNotInPool(new_id, pool.pool_id)
    if pool.domains[new_id] is not DomainStatus.ACTIVE:
        raise DomainNotActive(new_id)
    return {"domain_id": new_id, "version": version, "map_on_master": pool.map_on_master}
