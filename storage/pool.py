# SPDX-License-Identifier: GPL-2.0-or-later
"""The storage pool that this host is connected to: its domains, their links and monitors, the SPM role.

One host, one pool. Engines of today pass the map of the pool's domains when they connect and again
whenever it changes, and with it the master's version, which then stands nowhere else: what is on the master domain
may be older. Who passes none means the map and the version on the master domain.

Nothing of a connection outlives the agent but the links under ``<repository>/<pool>`` and the joined
lockspaces: after a restart the engine connects again, which finds both as they should be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from storage.domains import Domains
from storage.links import MASTER, PoolLinks
from storage.lock_table import Grant
from storage.lockspaces import Lockspaces
from storage.monitor import Monitors
from storage.ondisk.values import DomainStatus
from storage.pool_master import ConnectedPool, check_connectable, read_master
from storage.spm.control import CALL_S, SpmControl, SpmStatus
from storage.spm.errors import (
    IsSpm,
    MapMissing,
    NotThisHostId,
    PoolConnected,
    PoolUnknown,
    WrongMaster,
)
from storage.turns import DomainTurns
from vdsm.common.errors import AgentError
from vdsm.common.ids import BLANK_UUID
from vdsm.common.owners import Lane
from vdsm.common.types import Json

log = logging.getLogger("vdsm.storage.pool")

CREATE_S = 600.0
ATTACH_S = 300.0
# a domain that does not answer gets its links when it does
LINK_S = 2.0


@dataclass(frozen=True)
class SpmReport:
    status: SpmStatus
    lease_version: int
    host_id: int
    """-1 when nobody is SPM."""


class Pool:
    def __init__(
        self,
        links: PoolLinks,
        domains: Domains,
        monitors: Monitors,
        spm: SpmControl,
        lockspaces: Lockspaces,
        turns: DomainTurns,
        *,
        watch_s: float,
    ) -> None:
        self._links = links
        self._domains = domains
        self._monitors = monitors
        self._lockspaces = lockspaces
        self._turns = turns
        self._watch_s = watch_s
        self.lane = Lane("the storage pool")
        self.spm = spm
        self.connected: ConnectedPool | None = None
        self._linking: set[asyncio.Task[None]] = set()

    def require(self, pool_id: str) -> ConnectedPool:
        """The connected pool. Raises `PoolUnknown`."""
        if self.connected is None or self.connected.pool_id != pool_id:
            raise PoolUnknown(pool_id)
        return self.connected

    # Coming and going

    async def create(
        self,
        pool_id: str,
        name: str,
        master_id: str,
        master_version: int,
        domain_ids: list[str],
        lease_fields: Mapping[str, str],
    ) -> None:
        alone = self._turns.alone({master_id, *domain_ids}, "StoragePool.create")
        async with self.lane("create pool"), alone as grant:
            if self.connected is not None:
                raise PoolConnected(self.connected.pool_id)
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
                await self.spm.once(grant, pool_id, "pool.create", params, timeout_s=CREATE_S)
            finally:  # its process may have died in the middle
                await self._lockspaces.leave_reserved()

    async def connect(
        self,
        pool_id: str,
        host_id: int,
        master_id: str,
        master_version: int,
        domains: Mapping[str, DomainStatus] | None,
    ) -> None:
        """Connect, or refresh the map of the connected pool.

        Raises `AnotherPoolConnected`, `PoolHostIdDiffers`, `MapMissing`, `MasterNotFound`, `WrongMaster`,
        `LockTimeout`.
        """
        async with self.lane("connect pool"):
            check_connectable(self.connected, pool_id, host_id)
            known = domains
            if known is None:
                if self.connected is not None and not self.connected.map_on_master:
                    raise MapMissing(pool_id)
                known = (await read_master(self._domains, pool_id, master_id)).pool_domains
            if known.get(master_id) is not DomainStatus.ACTIVE:
                raise WrongMaster(pool_id, master_id, "the map of the pool's domains does not name it as active")
            async with self._turns.used(known, "StoragePool.connect"):
                metadata = await read_master(self._domains, pool_id, master_id)
                if domains is None and metadata.master_version != master_version:
                    found = metadata.master_version
                    raise WrongMaster(pool_id, master_id, f"its master version is {found}, not {master_version}")
                pool = ConnectedPool(pool_id, host_id, master_id, master_version, known, domains is None)
                await self._use(pool)

    async def reconstruct(self, pool: ConnectedPool, name: str, lease_fields: Mapping[str, str]) -> None:
        """Make a domain the master of the pool, whose own is lost: ``pool`` is how it is to be, and is not connected
        here afterwards either.

        Raises `PoolConnected`, `DomainHasPool`, `LockTimeout`.
        """
        alone = self._turns.alone([pool.master_id], "StoragePool.reconstructMaster")
        async with self.lane("reconstruct master"), alone as grant:
            if self.connected is not None:
                raise PoolConnected(self.connected.pool_id)
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
            await self.spm.once(grant, pool.pool_id, "pool.reconstruct", params, timeout_s=CREATE_S)

    async def disconnect(self, pool_id: str) -> None:
        """Leave the pool. Nothing happens when it is not connected. Raises `IsSpm`."""
        async with self.lane("disconnect pool"):
            await self._disconnect(pool_id)

    async def destroy(self, pool_id: str, host_id: int) -> None:
        """For the SPM: free all domains, end the role, leave the pool. Raises `NotThisHostId`, `LockTimeout`."""
        async with self.lane("destroy pool"):
            pool = self.require(pool_id)
            if pool.host_id != host_id:
                raise NotThisHostId(pool_id, host_id, pool.host_id)
            async with self._turns.alone(pool.domains, "StoragePool.destroy") as grant:
                await self.call_under(grant, pool, "pool.destroy", {"domain_ids": list(pool.domains)})
                await self.spm.stop(pool_id)
                await self._disconnect(pool_id)

    async def _disconnect(self, pool_id: str) -> None:
        if self.connected is None or self.connected.pool_id != pool_id:
            return
        if self.spm.status is not SpmStatus.FREE:
            raise IsSpm(pool_id)
        await self._monitors.stop_all()
        await self._links.remove(pool_id)
        for domain_id in self.connected.domains:
            await self._domains.forget(domain_id)
        self.connected = None

    # The SPM role

    async def start_spm(self, pool_id: str, max_version: int | None) -> None:
        pool = self.require(pool_id)
        active = [d for d, status in pool.domains.items() if status is DomainStatus.ACTIVE]
        params: dict[str, Json] = {
            "pool_id": pool_id,
            "host_id": pool.host_id,
            "master_id": pool.master_id,
            "domain_ids": active,
            "max_version": max_version,
            "watch_s": self._watch_s,
            "places": self._domains.source.known(pool.domains),
        }
        await self.spm.start(pool_id, params)

    async def stop_spm(self, pool_id: str) -> None:
        self.require(pool_id)
        await self.spm.stop(pool_id)

    async def spm_report(self, pool_id: str) -> SpmReport:
        pool = self.require(pool_id)
        if self.spm.status is SpmStatus.SPM:
            return SpmReport(SpmStatus.SPM, self.spm.lease_version, pool.host_id)
        master, leases = await self._domains.with_leases(pool.master_id)
        holder = await leases.holder(master.lockspace, master.sdm_lease)
        if holder.host_id is None:
            return SpmReport(self.spm.status, -1, -1)
        return SpmReport(self.spm.status, holder.version, holder.host_id)

    async def call_spm(self, verb: str, params: Mapping[str, Any], *, timeout_s: float = CALL_S) -> Any:
        """Ask this pool's SPM process. Raises `NotSpm`, `PoolUnknown`."""
        if self.connected is None:
            raise PoolUnknown(BLANK_UUID)
        places = self._domains.source.known(self.connected.domains)
        return await self.spm.call(self.connected.pool_id, verb, {**params, "places": places}, timeout_s=timeout_s)

    async def call_under(
        self, grant: Grant, pool: ConnectedPool, verb: str, params: Mapping[str, Any], *, timeout_s: float = ATTACH_S
    ) -> None:
        """The same for what the SPM process does under locks of ours."""
        places = self._domains.source.known([*pool.domains, *(lock.domain_id for lock in grant.locks)])
        await self.spm.call_under(grant, pool.pool_id, verb, {**params, "places": places}, timeout_s=timeout_s)

    async def change_map(self, domains: Mapping[str, DomainStatus]) -> None:
        """For who has the lane."""
        assert self.connected is not None
        if self.connected.map_on_master:
            await self.call_spm("pool.write_map", {"domains": {d: status.value for d, status in domains.items()}})
        await self._use(replace(self.connected, domains=dict(domains)))

    async def master_moved(self, domain_id: str, version: int) -> None:
        """Told by the SPM process, which knows first; whoever asked it may have the lane."""
        assert self.connected is not None
        self.connected = replace(self.connected, master_id=domain_id, master_version=version)
        await self.link_domain(domain_id)

    # Links and monitors

    async def _use(self, pool: ConnectedPool) -> None:
        before, self.connected = self.connected, pool
        active = {d for d, status in pool.domains.items() if status is DomainStatus.ACTIVE}
        if before is None:  # an agent that was killed left its own joined
            await self._lockspaces.keep_only(active, pool.host_id)
        for domain_id in (before.domains if before is not None else {}).keys() - active:
            await self._monitors.stop(domain_id)
        for domain_id in sorted(active):
            self._monitors.start(domain_id, pool.host_id)
        self._links.keep_only(pool.pool_id, active)
        linking = [asyncio.get_running_loop().create_task(self.link_domain(domain_id)) for domain_id in active]
        if linking:
            _, late = await asyncio.wait(linking, timeout=LINK_S)
            self._linking.update(late)
            for task in late:
                task.add_done_callback(self._linking.discard)

    async def link_domain(self, domain_id: str) -> None:
        """Make the pool's links to a domain that answers; one that does not gets them when it does."""
        pool = self.connected
        if pool is None or pool.domains.get(domain_id) is not DomainStatus.ACTIVE:
            return
        try:
            folder = (await self._domains.get(domain_id)).folder
            await self._links.make(pool.pool_id, domain_id, folder)
            if domain_id == pool.master_id:
                await self._links.make(pool.pool_id, MASTER, folder)
        except (AgentError, OSError) as e:  # nobody waits for what is late
            log.warning("domain %s has no link yet: %s", domain_id, e)
