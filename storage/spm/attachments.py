# SPDX-License-Identifier: GPL-2.0-or-later
"""Which domains belong to a pool: written into each domain's metadata, and the master's.

A domain is attached under its own SDM lease, so that two pools can't take it at the same time. Whoever asks for any of
this holds the domains alone, and lends us that: no task runs on a domain that comes or goes. What decides is read
and written in one change of the metadata, so nothing that is written beside it is lost. When the pool's map of
domains lives on the master (an engine that passes no map), it is kept there too; engines of today pass the map when
they connect, and then nothing of it is written.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from storage.domain import Domain
from storage.domains import Domains
from storage.leases import Leases, joining
from storage.ondisk.domain_fields import DomainMetadata, encode_pool_domains, master_fields
from storage.ondisk.layout import RESERVED_HOST_ID
from storage.ondisk.values import DomainRole, DomainStatus
from storage.spm.errors import DomainHasPool, DomainIsMaster, DomainNotInPool, MixedDomainVersions
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.storage.spm")

ACQUIRE_S = 60.0
JOIN_S = 180.0

FREED: Mapping[str, str | None] = {
    "ROLE": DomainRole.REGULAR.value,
    "POOL_UUID": "",
    "POOL_DESCRIPTION": None,
    "POOL_DOMAINS": None,
    "POOL_SPM_ID": None,
    "POOL_SPM_LVER": None,
    "MASTER_VERSION": "0",
}

POOL_OTHERS = crash_point("pool.create.others", "all domains but the master name the pool")


class Attachments:
    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    async def create_pool(
        self, pool_id: str, name: str, master_id: str, master_version: int, domain_ids: list[str]
    ) -> None:
        """Write a new pool on to its domains. The master's metadata comes last: it makes the pool."""
        all_ids = list(dict.fromkeys([master_id, *domain_ids]))
        for domain_id in all_ids:
            _check_free(await (await self._domains.get(domain_id)).read_metadata(), domain_id, pool_id)
        master = await self._domains.get(master_id)
        async with self._locked(master, RESERVED_HOST_ID):
            _check_free(await master.read_metadata(), master_id, pool_id)
            for domain_id in all_ids[1:]:
                await self._write(domain_id, {"POOL_UUID": pool_id})
            POOL_OTHERS.reach()
            async with master.master_files():  # its folders are made
                pass
            domains = dict.fromkeys(all_ids, DomainStatus.ATTACHED)
            domains[master_id] = DomainStatus.ACTIVE
            fields = master_fields(
                pool_id=pool_id, pool_description=name, domains=domains, master_version=master_version
            )
            await self._write(master_id, fields)

    async def destroy_pool(self, pool_id: str, master_id: str, domain_ids: list[str]) -> None:
        """Free all domains of the pool, the master last."""
        for domain_id in [d for d in domain_ids if d != master_id] + [master_id]:
            freed = FREED if domain_id == master_id else {"POOL_UUID": ""}
            domain = await self._domains.get(domain_id)
            await domain.change_metadata(
                lambda metadata, freed=freed: freed if pool_id in metadata.pools else {}  # type: ignore[misc]
            )

    async def attach(self, pool_id: str, host_id: int, domain_id: str, master_version: int) -> None:
        """Raises `DomainHasPool`, `MixedDomainVersions`."""

        def attached(metadata: DomainMetadata) -> Mapping[str, str]:
            _check_free(metadata, domain_id, pool_id)
            if metadata.version > master_version:
                raise MixedDomainVersions(domain_id, int(metadata.version), master_version)
            return {"POOL_UUID": pool_id}

        domain = await self._domains.get(domain_id)
        async with self._locked(domain, host_id):
            await domain.change_metadata(attached)

    async def detach(self, pool_id: str, domain_id: str) -> None:
        """Raises `DomainNotInPool`, `DomainIsMaster`."""

        def detached(metadata: DomainMetadata) -> Mapping[str, str]:
            if pool_id not in metadata.pools:
                raise DomainNotInPool(domain_id, pool_id)
            if metadata.role is DomainRole.MASTER:
                raise DomainIsMaster(domain_id)
            return {"POOL_UUID": ",".join(other for other in metadata.pools if other != pool_id)}

        await (await self._domains.get(domain_id)).change_metadata(detached)

    async def write_map(self, master_id: str, domains: Mapping[str, str]) -> None:
        """The pool's map on the master, for a pool whose engine passes none."""
        statuses = {domain_id: DomainStatus(status) for domain_id, status in domains.items()}
        await self._write(master_id, {"POOL_DOMAINS": encode_pool_domains(statuses)})

    async def rename(self, domain_id: str, description: str) -> None:
        await self._write(domain_id, {"DESCRIPTION": description})

    async def _write(self, domain_id: str, changes: Mapping[str, str | None]) -> None:
        await (await self._domains.get(domain_id)).change_metadata(lambda _: changes)

    @asynccontextmanager
    async def _locked(self, domain: Domain, host_id: int) -> AsyncIterator[None]:
        """The domain's SDM lease; a lockspace that nobody here had joined is left again, also one half joined.

        The reserved id is for a moment only: whoever is joined with it was cut off.
        """
        leases = self._domains.leases(domain)
        was_joined = host_id != RESERVED_HOST_ID and await leases.joined(domain.lockspace, host_id) is not False
        try:
            await joining.join(leases, domain, host_id, timeout_s=JOIN_S)
            await leases.acquire(domain.sdm_lease, timeout_s=ACQUIRE_S)
            try:
                yield
            finally:
                await leases.release(domain.sdm_lease)
        finally:
            if not was_joined:
                await _leave(leases, domain, host_id)


async def _leave(leases: Leases, domain: Domain, host_id: int) -> None:
    """What was done stays done when this fails; the agent leaves it then."""
    try:
        await leases.leave(domain.lockspace, host_id)
    except AgentError as e:
        log.warning("domain %s: host id %d stays joined: %s", domain.domain_id, host_id, e)


def _check_free(metadata: DomainMetadata, domain_id: str, pool_id: str) -> None:
    others = [pool for pool in metadata.pools if pool != pool_id]
    if others:
        raise DomainHasPool(domain_id, others[0])
