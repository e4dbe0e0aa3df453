# SPDX-License-Identifier: GPL-2.0-or-later
"""One change under a lease that is taken for it, in a process of its own: a pool made, a domain attached or freed.

The lock daemon kills every process that holds a lease in a lockspace that fails. So the SPM process holds none but its
master's: what needs the lease of another domain runs here, and a domain that fails in the middle costs this change
only. The order of such changes is the agent's, which starts one at a time and lends us its hold of the domains; it also
leaves the lockspaces that were joined for them, once this process is gone.

A domain is attached under its own SDM lease, so that two pools can't take it at the same time. What decides is read
and written in one change of the metadata, so nothing that is written beside it is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from storage.domain import ChangeFields, Domain
from storage.domains import Domains
from storage.ondisk.domain_fields import DomainMetadata, master_fields
from storage.ondisk.layout import RESERVED_HOST_ID
from storage.ondisk.values import DomainClass, DomainRole, DomainStatus
from storage.spm.attachments import FREED, check_can_be_master
from storage.spm.errors import DomainHasPool, MixedDomainVersions
from storage.spm.own_lease import OwnLease
from storage.tasks.files import empty
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import RemoteError
from vdsm.common.types import Json

ACQUIRE_S = 240.0

POOL_OTHERS = crash_point("pool.create.others", "all domains but the master name the pool")
RECONSTRUCT_TAKEN = crash_point("pool.reconstruct.taken", "the new master's lease is ours, nothing is written")
RECONSTRUCT_WRITTEN = crash_point("pool.reconstruct.written", "the pool has its new master, the caller was not told")
ATTACH_TAKEN = crash_point("domain.attach.taken", "the domain's lease is ours, nothing is written")
ATTACH_WRITTEN = crash_point("domain.attach.written", "the domain names the pool, its lease is still ours")


class Once:
    def __init__(self, lease: OwnLease, domains: Domains, tell_step: Callable[[str], Awaitable[None]]) -> None:
        """``tell_step``: what we are at, for who waits for us."""
        self._lease = lease
        self._domains = domains
        self._tell_step = tell_step
        self._serving: set[asyncio.Task[Any]] = set()

    async def serve(self, verb: str, params: dict[str, Any]) -> Json:
        self._domains.source.learn(params.pop("places", {}))
        ours = asyncio.current_task()
        assert ours is not None
        self._serving.add(ours)
        try:
            match verb:
                case "pool.create":
                    await self.create_pool(**params)
                case "pool.reconstruct":
                    await self.reconstruct(**params)
                case "domain.attach":
                    await self.attach(**params)
                case "domain.free":
                    await self.free(**params)
                case _:
                    raise RemoteError("spm", f"There is no change {verb!r}")
        finally:
            self._serving.discard(ours)
        return None

    async def stop(self) -> None:
        """What still runs is interrupted, then the lease given back. The process ends afterwards."""
        for serving in self._serving:
            serving.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        await self._lease.give_back()

    async def create_pool(
        self,
        pool_id: str,
        name: str,
        master_id: str,
        master_version: int,
        domain_ids: list[str],
        lease_fields: Mapping[str, str],
    ) -> None:
        """Write a new pool on to its domains. The master's metadata comes last: it makes the pool."""
        all_ids = list(dict.fromkeys([master_id, *domain_ids]))
        master = await self._domains.get(master_id)
        check_can_be_master(master)
        for domain_id in all_ids:
            metadata = await (await self._domains.get(domain_id)).read_metadata()
            _check_free(metadata, domain_id, pool_id)
            if metadata.domain_class is DomainClass.DATA and metadata.version != master.version:
                raise MixedDomainVersions(domain_id, int(metadata.version), int(master.version))
        await self._take(master, RESERVED_HOST_ID)
        before = await master.read_metadata()
        _check_free(before, master_id, pool_id)
        for domain_id in all_ids[1:]:
            await (await self._domains.get(domain_id)).change_metadata(lambda metadata: _joined(metadata, pool_id))
        POOL_OTHERS.reach()
        await _make_folders(master, before)
        domains = dict.fromkeys(all_ids, DomainStatus.ATTACHED)
        domains[master_id] = DomainStatus.ACTIVE
        fields = master_fields(pool_id=pool_id, pool_description=name, domains=domains, master_version=master_version)
        await master.change_metadata(lambda _: {**fields, **lease_fields})

    async def reconstruct(
        self,
        pool_id: str,
        host_id: int,
        name: str,
        master_id: str,
        master_version: int,
        domains: Mapping[str, str],
        lease_fields: Mapping[str, str],
    ) -> None:
        """Make a domain the master of a pool that lost its own, in one write. The host id stays joined."""
        master = await self._domains.get(master_id)
        check_can_be_master(master)
        _check_free(await master.read_metadata(), master_id, pool_id)
        await self._take(master, host_id)
        RECONSTRUCT_TAKEN.reach()
        await _make_folders(master, await master.read_metadata())
        statuses = {domain_id: DomainStatus(status) for domain_id, status in domains.items()}
        fields = master_fields(pool_id=pool_id, pool_description=name, domains=statuses, master_version=master_version)

        def of_a_master(metadata: DomainMetadata) -> Mapping[str, str]:
            _check_free(metadata, master_id, pool_id)
            return {**fields, **lease_fields}

        await master.change_metadata(of_a_master)
        RECONSTRUCT_WRITTEN.reach()

    async def attach(self, pool_id: str, host_id: int, domain_id: str, master_version: int) -> None:
        """Raises `DomainHasPool`, `MixedDomainVersions`."""

        def attached(metadata: DomainMetadata) -> Mapping[str, str]:
            _check_free(metadata, domain_id, pool_id)
            if metadata.domain_class is DomainClass.DATA and metadata.version > master_version:
                raise MixedDomainVersions(domain_id, int(metadata.version), master_version)
            return _joined(metadata, pool_id)

        domain = await self._domains.get(domain_id)
        await self._take(domain, host_id)
        ATTACH_TAKEN.reach()
        await _change(domain, attached)
        ATTACH_WRITTEN.reach()

    async def free(self, host_id: int, domain_id: str) -> None:
        """Whatever pools have the domain: it belongs to none after this."""
        domain = await self._domains.get(domain_id)
        await self._take(domain, host_id)
        await _change(domain, lambda metadata: FREED if metadata.role is DomainRole.MASTER else {"POOL_UUID": ""})

    async def _take(self, domain: Domain, host_id: int) -> None:
        at = f"domain {domain.domain_id} at {domain.place}"
        await self._tell_step(f"it joins the lockspace of {at} and takes its lease")
        await self._lease.take(domain, host_id, timeout_s=ACQUIRE_S)
        await self._tell_step(f"it has the lease and writes the metadata of {at}")


async def _make_folders(master: Domain, before: DomainMetadata) -> None:
    """Of who becomes a master. Tasks that an earlier time as one left there would be undone by its first SPM, on
    volumes that are in use since. One that says Master already has the pool's own.
    """
    async with master.master_files() as folders:
        if before.role is not DomainRole.MASTER:
            await empty(folders.tasks)


async def _change(domain: Domain, change: ChangeFields) -> None:
    try:
        await domain.change_metadata(change)
    finally:
        if not domain.version.has_leases:  # what stands in a file is given back by I/O, which ends before us
            await domain.leases.release(domain.sdm_lease)


def _joined(metadata: DomainMetadata, pool_id: str) -> Mapping[str, str]:
    """An ISO domain keeps its other pools."""
    return {"POOL_UUID": ",".join([*(pool for pool in metadata.pools if pool != pool_id), pool_id])}


def _check_free(metadata: DomainMetadata, domain_id: str, pool_id: str) -> None:
    others = [pool for pool in metadata.pools if pool != pool_id]
    if others and metadata.domain_class is not DomainClass.ISO:
        raise DomainHasPool(domain_id, others[0])
