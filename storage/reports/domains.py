# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains as people look at them: those of the connected pool, and what else lies on connected storage.

How a domain of the pool is, its monitor says, and by its last look who it is. Of one that nobody watches (attached and
not active, of another pool, of none) the metadata is read; when that does not answer, `DomainSeen.trouble` says so.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from storage.domain import Domain
from storage.domains import Domains
from storage.errors import DomainNotFound
from storage.monitor import DomainHealth, Monitors
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.values import DomainStatus
from storage.pool import Pool
from storage.reports.asking import Asking
from vdsm.common.errors import AgentError


@dataclass(frozen=True)
class DomainSeen:
    domain_id: str
    status: DomainStatus | None
    """In the connected pool; None: it is in another one, or in none."""
    host_id: int | None
    """Of this host there; None where nobody watches the domain."""
    mount: str
    """Where it was seen; empty when it was not."""
    metadata: DomainMetadata | None
    health: DomainHealth | None
    trouble: str = ""
    """Why it is not known who it is."""


class DomainReports:
    def __init__(self, pool: Pool, domains: Domains, monitors: Monitors, asking: Asking) -> None:
        self._pool = pool
        self._domains = domains
        self._monitors = monitors
        self._asking = asking

    async def all(self) -> list[DomainSeen]:
        """Those of the pool first."""
        connected = self._pool.connected
        in_pool = {} if connected is None else connected.domains
        places = self._domains.source.seen()
        names = [*sorted(in_pool), *sorted(places.keys() - in_pool.keys())]
        return list(await asyncio.gather(*(self._seen(name) for name in names)))

    async def one(self, domain_id: str) -> DomainSeen:
        """Raises `DomainNotFound` for what is neither in the pool nor on connected storage."""
        connected = self._pool.connected
        known = {*self._domains.source.seen(), *(() if connected is None else connected.domains)}
        if domain_id not in known:
            raise DomainNotFound(domain_id)
        return await self._seen(domain_id)

    async def _seen(self, domain_id: str) -> DomainSeen:
        connected, place = self._pool.connected, self._domains.source.seen().get(domain_id)
        health = self._monitors.health().get(domain_id)
        metadata, trouble = await self._metadata(domain_id, health)
        return DomainSeen(
            domain_id,
            None if connected is None else connected.domains.get(domain_id),
            None if connected is None or health is None else connected.host_id,
            "" if place is None else place.mount,
            metadata,
            health,
            trouble,
        )

    async def _metadata(self, domain_id: str, health: DomainHealth | None) -> tuple[DomainMetadata | None, str]:
        opened = self._domains.opened(domain_id)
        if health is not None and opened is not None and opened.seen is not None:
            return opened.seen, ""
        try:
            return await self._asking.ask(domain_id, "read metadata", _read), ""
        except AgentError as e:
            return None, str(e)


async def _read(domain: Domain) -> DomainMetadata:
    return await domain.read_metadata()
