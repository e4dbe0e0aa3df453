# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools made, and made again of what is left of them: by a host that is in none.

Each takes the lease of its master-to-be in a process of its own (`storage.spm.once`).
"""

from __future__ import annotations

from collections.abc import Mapping

from storage.domains import Domains
from storage.lockspaces import Lockspaces
from storage.pool import Pool
from storage.pool_master import ConnectedPool
from storage.spm.errors import PoolConnected
from storage.turns import DomainTurns
from storage.under_way import Step, UnderWay
from vdsm.common.types import Json


class NewPools:
    def __init__(
        self, pool: Pool, domains: Domains, lockspaces: Lockspaces, turns: DomainTurns, under_way: UnderWay
    ) -> None:
        self._pool = pool
        self._domains = domains
        self._lockspaces = lockspaces
        self._turns = turns
        self._under_way = under_way

    async def create(
        self,
        pool_id: str,
        name: str,
        master_id: str,
        master_version: int,
        domain_ids: list[str],
        lease_fields: Mapping[str, str],
    ) -> None:
        """Raises `PoolConnected`, `LockTimeout`, `ChangeUnderWay`, and what the domains are refused for."""
        step = Step(f"it waits for its turn with its domains, or reads them: {', '.join({master_id, *domain_ids})}")
        making = self._create(pool_id, name, master_id, master_version, domain_ids, lease_fields, step)
        await self._under_way.wait(f"Making pool {pool_id} of master domain {master_id}", pool_id, step, making)

    async def _create(
        self,
        pool_id: str,
        name: str,
        master_id: str,
        master_version: int,
        domain_ids: list[str],
        lease_fields: Mapping[str, str],
        step: Step,
    ) -> None:
        alone = self._turns.alone({master_id, *domain_ids}, "StoragePool.create")
        async with alone as grant, self._pool.lane("create pool"):
            if self._pool.connected is not None:
                raise PoolConnected(self._pool.connected.pool_id)
            for domain_id in {master_id, *domain_ids}:
                await self._domains.get(domain_id)
            params: dict[str, Json] = {
                "pool_id": pool_id,
                "name": name,
                "master_id": master_id,
                "master_version": master_version,
                "domain_ids": domain_ids,
                "lease_fields": dict(lease_fields),
                "places": self._domains.source.known([master_id, *domain_ids]),
            }
            await self._lockspaces.leave_reserved()  # of a creation that was cut off: the same, but other domains
            try:
                await self._pool.spm.once(grant, master_id, pool_id, "pool.create", params, step=step.take)
            finally:  # its process may have died in the middle
                await self._lockspaces.leave_reserved()

    async def reconstruct(self, pool: ConnectedPool, name: str, lease_fields: Mapping[str, str]) -> None:
        """Make a domain the master of the pool, whose own is lost: ``pool`` is how it is to be, and is not connected
        here afterwards either.

        Raises `PoolConnected`, `DomainHasPool`, `LockTimeout`, `ChangeUnderWay`.
        """
        step = Step(f"it waits for its turn with domain {pool.master_id}, or reads it")
        what = f"Making domain {pool.master_id} the master of pool {pool.pool_id}"
        await self._under_way.wait(what, pool.pool_id, step, self._reconstruct(pool, name, lease_fields, step))

    async def _reconstruct(self, pool: ConnectedPool, name: str, lease_fields: Mapping[str, str], step: Step) -> None:
        alone = self._turns.alone([pool.master_id], "StoragePool.reconstructMaster")
        async with alone as grant, self._pool.lane("reconstruct master"):
            if self._pool.connected is not None:
                raise PoolConnected(self._pool.connected.pool_id)
            await self._domains.get(pool.master_id)
            params: dict[str, Json] = {
                "pool_id": pool.pool_id,
                "host_id": pool.host_id,
                "name": name,
                "master_id": pool.master_id,
                "master_version": pool.master_version,
                "domains": {domain_id: status.value for domain_id, status in pool.domains.items()},
                "lease_fields": dict(lease_fields),
                "places": self._domains.source.known([pool.master_id]),
            }
            await self._pool.spm.once(grant, pool.master_id, pool.pool_id, "pool.reconstruct", params, step=step.take)
