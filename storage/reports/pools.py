# SPDX-License-Identifier: GPL-2.0-or-later
"""The connected pool as people look at it: its master, its domains, and which host is SPM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.domains import Domains
from storage.ondisk.values import DomainStatus
from storage.pool import Pool
from storage.reports.leases import SDM, LeaseReports, LeaseSeen
from storage.spm.control import SpmStatus


@dataclass(frozen=True)
class PoolSeen:
    pool_id: str
    name: str
    """Empty while the master was not read."""
    version: int
    """Format of the pool, as its master has it; -1 while that was not read."""
    master_id: str
    master_version: int
    host_id: int
    """Of this host."""
    role: SpmStatus
    """Of this host."""
    lease: LeaseSeen | None
    """Of the master, which makes a host SPM; None when it could not be read, see ``trouble``."""
    trouble: str
    ended_because: str
    """Why this host's SPM process ended, when it did unasked."""
    domains: Mapping[str, DomainStatus]


class PoolReports:
    def __init__(self, pool: Pool, domains: Domains, leases: LeaseReports) -> None:
        self._pool = pool
        self._domains = domains
        self._leases = leases

    async def all(self) -> list[PoolSeen]:
        """One or none."""
        connected, spm = self._pool.connected, self._pool.spm
        if connected is None:
            return []
        read = await self._leases.of(connected.master_id)
        master = self._domains.opened(connected.master_id)
        metadata = None if master is None else master.seen
        return [
            PoolSeen(
                connected.pool_id,
                "" if metadata is None else metadata.pool_description,
                -1 if metadata is None else int(metadata.version),
                connected.master_id,
                connected.master_version,
                connected.host_id,
                spm.status,
                next((lease for lease in read.leases if lease.resource == SDM and not read.trouble), None),
                read.trouble,
                spm.ended_because if spm.status is SpmStatus.FREE else "",
                connected.domains,
            )
        ]
