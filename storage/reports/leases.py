# SPDX-License-Identifier: GPL-2.0-or-later
"""Leases of domains and who holds them: read as they lie on storage, by the domain's I/O helper.

The lock daemon could be asked as well; it reads the same bytes, and what waits there for dead storage keeps one of its
few workers. A lock of old domains and that of a local folder stand on no storage: of these only what this host does is
known.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from storage.domain import Domain
from storage.errors import StorageError
from storage.leases import HostStatus, Lease, records
from storage.ondisk.sanlock_area import decode_leader
from storage.pool import Pool
from storage.reports.asking import Asking
from storage.reports.hosts import HostReports
from storage.spm.control import SpmStatus
from vdsm.common.errors import AgentError

SDM = "SDM"
MOST_VOLUMES = 200
"""Leases of volumes that are read for one answer: each is a request."""


@dataclass(frozen=True)
class LeaseSeen:
    resource: str
    """``SDM``: who may change the domain; else a volume's id."""
    image_id: str
    version: int
    """How often it was taken; -1 where nobody counts."""
    host_id: int | None
    """Of who holds it; None: it is free."""
    generation: int
    name: str
    status: HostStatus
    here: bool
    pid: int | None = None
    """Of this host's process that took it; it may have ended."""
    writers: tuple[str, ...] = ()
    """Processes of this host that keep it beside that one."""
    ended: bool = False
    """That process is gone: the writers alone keep the lease."""


@dataclass(frozen=True)
class DomainLeases:
    domain_id: str
    leases: tuple[LeaseSeen, ...]
    unread: int
    """Volumes beyond `MOST_VOLUMES`, whose leases nobody looked at."""
    trouble: str
    """What did not answer."""


@dataclass(frozen=True)
class _Raw:
    resource: str
    image_id: str
    version: int
    host_id: int
    """0: free."""
    generation: int


class LeaseReports:
    def __init__(self, pool: Pool, hosts: HostReports, asking: Asking, leased: str) -> None:
        self._pool = pool
        self._hosts = hosts
        self._asking = asking
        self._leased = leased

    async def all(self) -> list[DomainLeases]:
        """The SDM lease of each active domain of the pool."""
        return list(await asyncio.gather(*(self.of(domain_id) for domain_id in self._hosts.active())))

    async def of(self, domain_id: str, *, volumes: bool = False) -> DomainLeases:
        """With ``volumes`` those of its volumes, too, that somebody holds."""
        what, question = ("read all leases", _read_all) if volumes else ("read its lease", _read_sdm)
        try:
            found, unread = await self._asking.ask(domain_id, what, question)
        except AgentError as e:
            kept = await self._kept_here(domain_id, LeaseSeen(SDM, "", -1, None, 0, "", HostStatus.UNKNOWN, True))
            return DomainLeases(domain_id, (kept,) if kept.pid is not None else (), 0, str(e))
        if found is None:
            return DomainLeases(domain_id, (await self._local(domain_id),), 0, "")
        held = [await self._named(domain_id, raw) for raw in found]
        return DomainLeases(domain_id, tuple(held), unread, "")

    async def _local(self, domain_id: str) -> LeaseSeen:
        """By what runs here: no other host can have it."""
        connected, own = self._pool.connected, self._hosts.own_id(domain_id)
        is_spm = self._pool.spm.status is SpmStatus.SPM and connected is not None and connected.master_id == domain_id
        lease = LeaseSeen(SDM, "", -1, own if is_spm else None, 0, "", HostStatus.UNAVAILABLE, is_spm)
        return await self._kept_here(domain_id, lease)

    async def _named(self, domain_id: str, raw: _Raw) -> LeaseSeen:
        if not raw.host_id:
            return LeaseSeen(raw.resource, raw.image_id, raw.version, None, 0, "", HostStatus.FREE, False)
        hosts = {host.host_id: host for host in (await self._hosts.of(domain_id)).hosts}
        host = hosts.get(raw.host_id)
        same = host is not None and host.generation == raw.generation
        lease = LeaseSeen(
            raw.resource,
            raw.image_id,
            raw.version,
            raw.host_id,
            raw.generation,
            host.name if host is not None and same else "",
            # one that joined anew since has lost what it held before
            HostStatus.UNKNOWN if host is None else host.status if same else HostStatus.DEAD,
            raw.host_id == self._hosts.own_id(domain_id),
        )
        return await self._kept_here(domain_id, lease) if lease.here and raw.resource == SDM else lease

    async def _kept_here(self, domain_id: str, lease: LeaseSeen) -> LeaseSeen:
        left = await asyncio.to_thread(records.left, self._leased, domain_id)
        if left is None:
            return lease
        others = tuple(str(member) for member in left.members if member.pid != left.pid)
        return replace(lease, pid=left.pid, writers=others, ended=left.alone)


async def _read_sdm(domain: Domain) -> tuple[list[_Raw] | None, int]:
    if not domain.leases.on_storage:
        return None, 0
    return [await _read(domain, domain.sdm_lease, "")], 0


async def _read_all(domain: Domain) -> tuple[list[_Raw] | None, int]:
    if not domain.leases.on_storage:
        return None, 0
    images = await domain.volumes.by_image()
    volumes = sorted((image_id, volume_id) for image_id, ids in images.items() for volume_id in ids)
    found = [await _read(domain, domain.sdm_lease, "")]
    for image_id, volume_id in volumes[:MOST_VOLUMES]:
        lease = await domain.volumes.lease(image_id, volume_id)
        if lease is not None:
            try:
                raw = await _read(domain, lease, image_id)
            except StorageError:  # damaged, or removed meanwhile: who needs it is told
                continue
            found += [raw] if raw.host_id else []
    return found, max(0, len(volumes) - MOST_VOLUMES)


async def _read(domain: Domain, lease: Lease, image_id: str) -> _Raw:
    leader = decode_leader(await domain.read_leader(lease), str(lease))
    holder = 0 if leader.free else leader.owner_id
    return _Raw(lease.resource, image_id, leader.lver, holder, leader.owner_generation)
