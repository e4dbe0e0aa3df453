# SPDX-License-Identifier: GPL-2.0-or-later
"""Which domains belong to a pool: written into each domain's metadata, and the master's, under the SPM's lease.

How a domain comes to a pool is in `storage.spm.once`. Whoever asks for any of
this holds the domains alone, and lends us that: no task runs on a domain that comes or goes. What decides is read
and written in one change of the metadata, so nothing that is written beside it is lost. When the pool's map of
domains lives on the master (an engine that passes no map), it is kept there too; engines of today pass the map when
they connect, and then nothing of it is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from storage.domain import Domain
from storage.domains import Domains
from storage.ondisk.domain_fields import DomainMetadata, check_name, encode_pool_domains
from storage.ondisk.values import DomainClass, DomainRole, DomainStatus
from storage.spm.errors import BackupMaster, DomainIsMaster, DomainNotInPool, IsoMaster

ACQUIRE_S = 240.0

FREED: Mapping[str, str | None] = {
    "ROLE": DomainRole.REGULAR.value,
    "POOL_UUID": "",
    "POOL_DESCRIPTION": None,
    "POOL_DOMAINS": None,
    "POOL_SPM_ID": None,
    "POOL_SPM_LVER": None,
    "MASTER_VERSION": "0",
}


def check_can_be_master(domain: Domain) -> None:
    """Raises `IsoMaster`, `BackupMaster`."""
    if domain.domain_class is not DomainClass.DATA:
        refused = IsoMaster if domain.domain_class is DomainClass.ISO else BackupMaster
        raise refused(domain.domain_id, domain.domain_class)


class Attachments:
    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    async def destroy_pool(self, pool_id: str, master_id: str, domain_ids: list[str]) -> None:
        """Free all domains of the pool, the master last."""

        def left(metadata: DomainMetadata) -> Mapping[str, str]:
            return _without(metadata, pool_id) if pool_id in metadata.pools else {}

        for domain_id in [d for d in domain_ids if d != master_id]:
            domain = await self._domains.get(domain_id)
            async with _locked_if_shared(domain):
                await domain.change_metadata(left)
        master = await self._domains.get(master_id)
        await master.change_metadata(lambda metadata: FREED if pool_id in metadata.pools else {})

    async def detach(self, pool_id: str, domain_id: str) -> None:
        """Raises `DomainNotInPool`, `DomainIsMaster`."""

        def detached(metadata: DomainMetadata) -> Mapping[str, str]:
            if pool_id not in metadata.pools:
                raise DomainNotInPool(domain_id, pool_id)
            if metadata.role is DomainRole.MASTER:
                raise DomainIsMaster(domain_id)
            return _without(metadata, pool_id)

        domain = await self._domains.get(domain_id)
        async with _locked_if_shared(domain):
            await domain.change_metadata(detached)

    async def write_map(self, master_id: str, domains: Mapping[str, str]) -> None:
        """The pool's map on the master, for a pool whose engine passes none."""
        statuses = {domain_id: DomainStatus(status) for domain_id, status in domains.items()}
        await self._write(master_id, {"POOL_DOMAINS": encode_pool_domains(statuses)})

    async def rename(self, domain_id: str, description: str) -> None:
        """Raises `DomainNameTooLong`, `NameNotAscii`, `InvalidContent`."""
        domain = await self._domains.get(domain_id)
        await domain.change_metadata(lambda metadata: {"DESCRIPTION": check_name(description, metadata.version)})

    async def _write(self, domain_id: str, changes: Mapping[str, str | None]) -> None:
        await (await self._domains.get(domain_id)).change_metadata(lambda _: changes)


def _without(metadata: DomainMetadata, pool_id: str) -> dict[str, str]:
    return {"POOL_UUID": ",".join(other for other in metadata.pools if other != pool_id)}


@asynccontextmanager
async def _locked_if_shared(domain: Domain) -> AsyncIterator[None]:
    """An ISO domain's other pools write the same line, under its lock; of any other our lease of the master will do."""
    if domain.domain_class is not DomainClass.ISO or domain.version.has_leases:
        yield
        return
    await domain.leases.acquire(domain.sdm_lease, timeout_s=ACQUIRE_S)
    try:
        yield
    finally:
        await domain.leases.release(domain.sdm_lease)
