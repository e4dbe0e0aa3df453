# SPDX-License-Identifier: GPL-2.0-or-later
"""Detaching by force: a domain that is lost leaves its pool; one that is found is freed of pools that are lost.

- The pool is named: its map and its links change, nothing is written on the domain, which may be away for good.
- No pool is named (the blank id): whatever pools the domain names are removed from it, under its own lease. So a domain
  of a pool that exists no more is imported. A host that is in no pool takes the lease with the reserved id.
"""

from __future__ import annotations

from storage.domains import Domains
from storage.in_use import InUse
from storage.lockspaces import Lockspaces
from storage.ondisk.layout import RESERVED_HOST_ID
from storage.pool import Pool
from storage.spm.errors import DomainInConnectedPool, DomainIsMaster, DomainNotInPool
from storage.turns import DomainTurns
from storage.under_way import Step, UnderWay
from vdsm.common.types import Json

WHO = "StorageDomain.detach by force"


class ForcedDetach:
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

    async def drop(self, pool_id: str, domain_id: str) -> None:
        """For the SPM. Raises `NotSpm`, `DomainNotInPool`, `DomainIsMaster`."""
        async with self._pool.lane("forced detach"):
            pool = self._pool.require(pool_id)
            self._pool.spm.require(pool_id)
            if domain_id not in pool.domains:
                raise DomainNotInPool(domain_id, pool_id)
            if domain_id == pool.master_id:
                raise DomainIsMaster(domain_id)
            leaving = await self._pool.change_map({d: status for d, status in pool.domains.items() if d != domain_id})
        await leaving

    async def free(self, domain_id: str) -> None:
        """Raises `DomainInConnectedPool`, `VolumesInUse`, `LockTimeout`, `ChangeUnderWay`, and what its lease is
        refused for."""
        step = Step(f"it waits for its turn with domain {domain_id}, or reads it")
        await self._under_way.wait(
            f"Freeing domain {domain_id} of its pools", domain_id, step, self._free(domain_id, step)
        )

    async def _free(self, domain_id: str, step: Step) -> None:
        connected = self._pool.connected
        if connected is not None and domain_id in connected.domains:
            raise DomainInConnectedPool(domain_id, connected.pool_id)
        async with self._turns.alone([domain_id], WHO) as grant:
            if not (await (await self._domains.get(domain_id)).read_metadata()).pools:
                return
            params: dict[str, Json] = {
                "host_id": connected.host_id if connected is not None else RESERVED_HOST_ID,
                "domain_id": domain_id,
                "places": self._domains.source.known([domain_id]),
            }
            pool_id = connected.pool_id if connected is not None else ""
            self._in_use.check_domain(domain_id)
            async with self._lockspaces.joined_for_once(domain_id):
                await self._pool.spm.once(grant, domain_id, pool_id, "domain.free", params, step=step.take)
