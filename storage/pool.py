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
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

from storage.domains import Domains
from storage.links import MASTER, PoolLinks
from storage.lock_table import Grant
from storage.lockspaces import Lockspaces
from storage.monitor import Monitors
from storage.ondisk.values import DomainStatus
from storage.pool_master import ConnectedPool, check_connectable, read_master
from storage.spm.control import CALL_S, CHANGE_S, SpmControl, SpmStatus
from storage.spm.errors import (
    DomainsChanged,
    IsSpm,
    MapMissing,
    NotThisHostId,
    PoolUnknown,
    WrongMaster,
)
from storage.turns import DomainTurns
from storage.under_way import Step, UnderWay
from vdsm.common.errors import AgentError
from vdsm.common.ids import BLANK_UUID
from vdsm.common.owners import Lane
from vdsm.common.types import Json

log = logging.getLogger("vdsm.storage.pool")

LANE_S = 60.0
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
        under_way: UnderWay,
        *,
        watch_s: float,
    ) -> None:
        self._links = links
        self._domains = domains
        self._monitors = monitors
        self._lockspaces = lockspaces
        self._turns = turns
        self._under_way = under_way
        self._watch_s = watch_s
        self._lane = Lane("the storage pool")
        self.spm = spm
        self.connected: ConnectedPool | None = None
        self._linking: set[asyncio.Task[None]] = set()

    def lane(self, what: str) -> AbstractAsyncContextManager[None]:
        """Changes of what is connected, one at a time. Whoever works on the storage of one domain does that before,
        under that domain's turn: a dead one keeps no other from coming and going.
        """
        return self._lane(what, wait_s=LANE_S)

    def require(self, pool_id: str) -> ConnectedPool:
        """The connected pool. Raises `PoolUnknown`."""
        if self.connected is None or self.connected.pool_id != pool_id:
            raise PoolUnknown(pool_id)
        return self.connected

    # Coming and going

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
            async with self.lane("connect pool"):
                check_connectable(self.connected, pool_id, host_id)  # as it is now
                leaving = await self._use(pool)
            await leaving

    async def disconnect(self, pool_id: str) -> None:
        """Leave the pool. Nothing happens when it is not connected. Raises `IsSpm`."""
        async with self.lane("disconnect pool"):
            await self._disconnect(pool_id)

    async def destroy(self, pool_id: str, host_id: int) -> None:
        """For the SPM: free all domains, end the role, leave the pool.

        Raises `NotThisHostId`, `DomainsChanged`, `LockTimeout`, `ChangeUnderWay`.
        """
        step = Step("it waits for its turn with the pool's domains, or for their storage")
        await self._under_way.wait(f"Ending pool {pool_id}", pool_id, step, self._destroy(pool_id, host_id))

    async def _destroy(self, pool_id: str, host_id: int) -> None:
        pool = self.require(pool_id)
        if pool.host_id != host_id:
            raise NotThisHostId(pool_id, host_id, pool.host_id)
        alone = self._turns.alone(pool.domains, "StoragePool.destroy")
        async with alone as grant, self.lane("destroy pool"):
            if self.require(pool_id).domains.keys() != pool.domains.keys():
                raise DomainsChanged(pool_id)
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
        self, grant: Grant, pool: ConnectedPool, verb: str, params: Mapping[str, Any], *, timeout_s: float = CHANGE_S
    ) -> None:
        """The same for what the SPM process does under locks of ours."""
        places = self._domains.source.known([*pool.domains, *(lock.domain_id for lock in grant.locks)])
        await self.spm.call_under(grant, pool.pool_id, verb, {**params, "places": places}, timeout_s=timeout_s)

    async def change_map(self, domains: Mapping[str, DomainStatus]) -> Awaitable[object]:
        """For who has the lane. What is given is to be awaited without it: the lockspaces of domains that are used no
        more are left, which takes long where their storage is dead."""
        assert self.connected is not None
        if self.connected.map_on_master:
            await self.call_spm("pool.write_map", {"domains": {d: status.value for d, status in domains.items()}})
        return await self._use(replace(self.connected, domains=dict(domains)))

    async def master_moved(self, domain_id: str, version: int) -> None:
        """Told by the SPM process, which knows first; whoever asked it may have the lane."""
        assert self.connected is not None
        self.connected = replace(self.connected, master_id=domain_id, master_version=version)
        await self.link_domain(domain_id)

    # Links and monitors

    async def _use(self, pool: ConnectedPool) -> Awaitable[object]:
        """Given is the end of leaving what is used no more."""
        before, self.connected = self.connected, pool
        active = {d for d, status in pool.domains.items() if status is DomainStatus.ACTIVE}
        if before is None:  # an agent that was killed left its own joined
            await self._lockspaces.keep_only(active, pool.host_id)
        given_up = (before.domains if before is not None else {}).keys() - active
        leaving = [task for domain_id in given_up if (task := self._monitors.begin_to_stop(domain_id)) is not None]
        for domain_id in sorted(active):
            self._monitors.start(domain_id, pool.host_id)
        self._links.keep_only(pool.pool_id, active)
        linking = {d: asyncio.get_running_loop().create_task(self.link_domain(d)) for d in active}
        for task in linking.values():
            self._linking.add(task)
            task.add_done_callback(self._linking.discard)
        used = before.domains if before is not None else {}
        if new := [linking[d] for d in active if used.get(d) is not DomainStatus.ACTIVE]:
            await asyncio.wait(new, timeout=LINK_S)
        return asyncio.gather(*map(asyncio.shield, leaving))

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
