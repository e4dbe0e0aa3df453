# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts of each lockspace: the lock daemon says who is alive, the records on storage say who they are.

The daemon answers from memory and for joined lockspaces only. Names are read by the domain's I/O helper and kept: when
the storage is dead, one wants to know all the more who is in it. A record's time is by the clock of who wrote it, so
only this host's own says how long ago it was; of others the daemon knows whether it was within 8 I/O timeouts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from storage.domain import Domain
from storage.domains import Domains
from storage.leases import HostIdOwner, HostRecord, HostStatus
from storage.leases.presence import LIMIT_IN_IO_TIMEOUTS
from storage.ondisk.values import DomainStatus
from storage.pool import Pool
from storage.reports.asking import Asking
from vdsm.common.errors import AgentError


@dataclass(frozen=True)
class HostSeen:
    host_id: int
    name: str
    """What its lock daemon calls itself; empty where that is not known."""
    status: HostStatus
    generation: int
    here: bool
    renewed_s: float | None
    """Seconds since its last renewal; None where only `DomainHosts.limit_s` is known."""


@dataclass(frozen=True)
class DomainHosts:
    domain_id: str
    shared: bool
    """False: the domain's lock knows no host ids, as on a folder of this host."""
    limit_s: float
    """Who is live renewed within that time."""
    hosts: tuple[HostSeen, ...]
    trouble: str
    """What did not answer; what stands here was known before then."""


@dataclass(frozen=True)
class _Space:
    shared: bool
    limit_s: float
    owners: Mapping[int, HostIdOwner]


class HostReports:
    def __init__(self, pool: Pool, domains: Domains, asking: Asking) -> None:
        self._pool = pool
        self._domains = domains
        self._asking = asking
        self._known: dict[str, _Space] = {}

    async def all(self) -> list[DomainHosts]:
        """Of the pool's active domains."""
        return list(await asyncio.gather(*(self.of(domain_id) for domain_id in self.active())))

    def active(self) -> list[str]:
        connected = self._pool.connected
        domains = {} if connected is None else connected.domains
        return sorted(domain_id for domain_id, status in domains.items() if status is DomainStatus.ACTIVE)

    async def of(self, domain_id: str) -> DomainHosts:
        (space, silent), (records, mute) = await asyncio.gather(self._space(domain_id), self._records(domain_id))
        own = self.own_id(domain_id)
        owners = {} if space is None else space.owners
        hosts = [_host(n, own, owners.get(n), records.get(n)) for n in sorted({*owners, *records})]
        return DomainHosts(
            domain_id,
            space is None or space.shared,
            0.0 if space is None else space.limit_s,
            tuple(hosts),
            silent or mute,
        )

    def own_id(self, domain_id: str) -> int | None:
        """This host's; None where it has none: the domain is not used here."""
        return self._pool.connected.host_id if self._pool.connected is not None and domain_id in self.active() else None

    async def _space(self, domain_id: str) -> tuple[_Space | None, str]:
        try:
            self._known[domain_id] = found = await self._asking.ask(domain_id, "read host ids", _read_space)
        except AgentError as e:
            return self._known.get(domain_id), str(e)
        return found, ""

    async def _records(self, domain_id: str) -> tuple[dict[int, HostRecord], str]:
        domain = self._domains.opened(domain_id)
        if domain is None or not domain.leases.on_storage or self.own_id(domain_id) is None:
            return {}, ""
        try:
            found = await self._asking.wait(domain_id, "ask sanlock for hosts", lambda: _joined_hosts(domain))
        except AgentError as e:
            return {}, str(e)
        return {record.host_id: record for record in found}, ""


async def _read_space(domain: Domain) -> _Space:
    owners = await domain.host_id_owners()
    return _Space(domain.leases.on_storage, float(LIMIT_IN_IO_TIMEOUTS * domain.lockspace.io_timeout_s), owners)


async def _joined_hosts(domain: Domain) -> list[HostRecord]:
    """None where this host has not joined: the daemon knows nobody there."""
    joined = any(member.name == domain.domain_id for member in await domain.leases.memberships())
    return await domain.leases.hosts(domain.lockspace) if joined else []


def _host(host_id: int, own: int | None, owner: HostIdOwner | None, record: HostRecord | None) -> HostSeen:
    here = host_id == own
    # an older look of ours: the id has another owner meanwhile
    named = owner is not None and (record is None or owner.generation == record.generation)
    return HostSeen(
        host_id,
        owner.name if owner is not None and named else "",
        record.status if record is not None else HostStatus.UNKNOWN,
        record.generation if record is not None else owner.generation if owner is not None else 0,
        here,
        time.monotonic() - record.timestamp if here and record is not None and record.timestamp else None,
    )
