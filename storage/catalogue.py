# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains as a whole: made, described, checked, formatted. Any host may, in or out of a pool."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from storage.domain import Domain, Space
from storage.domains import Domains
from storage.errors import DomainNotFound, DomainUsedByHosts, StorageError
from storage.in_use import InUse
from storage.leases import presence
from storage.lockspaces import Lockspaces
from storage.new_domain import NewDomain
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.values import DomainClass, DomainKind, FormatVersion
from storage.pool import Pool
from storage.servers import kinds
from storage.servers.errors import KindUnsupported, RemotePathInvalid
from storage.source import DomainSource
from storage.spm.errors import DomainAttached, DomainInConnectedPool
from storage.turns import DomainTurns
from storage.under_way import Step, UnderWay

NEW_VERSIONS = {
    DomainClass.DATA: (FormatVersion.V3, FormatVersion.V4, FormatVersion.V5),
    DomainClass.ISO: (FormatVersion.V0,),
    DomainClass.BACKUP: (FormatVersion.V0,),
}
"""By class: host ids of different pools are the same, so what several pools use has no lockspace."""
REPORT_S = 20.0


class VersionUnsupported(StorageError):
    domain_class: str
    version: int
    known: str
    msg = "No {self.domain_class} domain of format version {self.version} can be made: its version is {self.known}"


@dataclass(frozen=True)
class DomainReport:
    domain: Domain
    metadata: DomainMetadata


class Catalogue:
    def __init__(
        self,
        domains: Domains,
        sources: Mapping[DomainKind, DomainSource],
        pool: Pool,
        in_use: InUse,
        lockspaces: Lockspaces,
        turns: DomainTurns,
        under_way: UnderWay,
    ) -> None:
        """``sources``: by the kind of domain that is made there."""
        self._domains = domains
        self._sources = sources
        self._pool = pool
        self._in_use = in_use
        self._lockspaces = lockspaces
        self._turns = turns
        self._under_way = under_way

    async def create(
        self,
        domain_id: str,
        kind: DomainKind,
        spec: str,
        description: str,
        *,
        domain_class: DomainClass,
        version: int,
        block_size: int,
        max_hosts: int,
    ) -> None:
        """Make a domain on connected storage. Raises `KindUnsupported`, `VersionUnsupported`,
        `RemotePathInvalid`, `NotConnected`, `DomainExists`, `BlockSizeUnsupported`, `LockTimeout`.
        """
        source = self._sources.get(kind)
        if source is None:
            raise KindUnsupported(kind)
        known = NEW_VERSIONS[domain_class]
        if version not in known:
            raise VersionUnsupported(domain_class, version, " or ".join(str(int(v)) for v in known))
        if reason := kinds.misnamed(kind, spec):
            raise RemotePathInvalid(spec, kind, reason)
        wanted = NewDomain(
            domain_id, kind, spec, description, block_size, max_hosts, domain_class, FormatVersion(version)
        )

        async def create() -> None:
            async with self._turns.alone([domain_id], "StorageDomain.create"):
                await source.create(wanted)

        step = Step("it waits for another creation there, or writes")
        await self._under_way.wait(f"Making domain {domain_id} at {spec}", domain_id, step, create())

    async def report(self, domain_id: str) -> DomainReport:
        domain = await self._domains.get(domain_id)
        return DomainReport(domain, await domain.read_metadata())

    async def space(self, domain_id: str) -> Space:
        return await (await self._domains.get(domain_id)).space()

    async def validate(self, domain_id: str) -> None:
        """Raises what the metadata is refused for, or the storage's silence."""
        domain = await self._domains.get(domain_id)
        await domain.read_metadata()
        await domain.probe()

    async def format(self, domain_id: str) -> None:
        """Remove the domain from its storage, or what is left of it when an earlier format was cut off.

        A domain that another host is alive in is refused; where one died in it, 8 I/O timeouts pass to know that.

        Raises `DomainAttached`, `DomainInConnectedPool`, `VolumesInUse`, `DomainUsedByHosts`, `FormatCutOff`,
        `LockTimeout`, `ChangeUnderWay`.
        """
        step = Step(f"it waits for its turn with domain {domain_id}, for its hosts, or removes it")
        await self._under_way.wait(f"Formatting domain {domain_id}", domain_id, step, self._format_alone(domain_id))

    async def _format_alone(self, domain_id: str) -> None:
        async with self._turns.alone([domain_id], "StorageDomain.format"):
            await self._format(domain_id)

    async def _format(self, domain_id: str) -> None:
        connected = self._pool.connected
        if connected is not None and domain_id in connected.domains:
            raise DomainInConnectedPool(domain_id, connected.pool_id)
        try:
            domain = await self._domains.get(domain_id)
        except DomainNotFound:
            if await self._finish_format(domain_id):
                return
            raise
        await _check_free(domain)
        self._in_use.check_domain(domain_id)
        await self._lockspaces.leave_domain(domain_id)  # no pool here has it: left joined by one that was killed
        if alive := await presence.alive(domain):
            hosts = [f"host id {host_id} ({owner.name or 'unreadable'})" for host_id, owner in alive.items()]
            raise DomainUsedByHosts(domain_id, ", ".join(hosts))
        await _check_free(domain)  # another host may have attached it meanwhile
        try:
            await domain.format()
        finally:
            await self._domains.forget(domain_id)

    async def _finish_format(self, domain_id: str) -> bool:
        for source in dict.fromkeys(self._sources.values()):
            if await source.finish_format(domain_id):
                return True
        return False

    async def reports(self) -> list[DomainReport]:
        """Every domain on connected storage that can be read, all asked at the same time."""
        ids = sorted(await self._domains.source.all())
        reports = await asyncio.gather(*(self._look(domain_id) for domain_id in ids))
        return [report for report in reports if report is not None]

    async def _look(self, domain_id: str) -> DomainReport | None:
        try:
            async with asyncio.timeout(REPORT_S), self._domains.look(domain_id) as domain:
                return DomainReport(domain, await domain.read_metadata())
        except (StorageError, TimeoutError):  # what cannot be read is not offered; asking for it by id says why
            return None


async def _check_free(domain: Domain) -> None:
    if pools := (await domain.read_metadata()).pools:
        raise DomainAttached(domain.domain_id, pools[0])
