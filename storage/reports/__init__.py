# SPDX-License-Identifier: GPL-2.0-or-later
"""What people ask about the storage of this host, put together from what its parts know.

    pools     the connected pool, who is SPM
    domains   who they are, how they are
    hosts     who is in each lockspace
    leases    who holds what of each domain

Answered from memory where that knows, else through the domain's own I/O helpers (`asking`). Nothing is decided by any
of it, nothing is changed, and storage that is dead costs its own row only.
"""

from __future__ import annotations

from storage.domains import Domains
from storage.monitor import Monitors
from storage.pool import Pool
from storage.reports.asking import Asking
from storage.reports.domains import DomainReports
from storage.reports.hosts import HostReports
from storage.reports.leases import LeaseReports
from storage.reports.pools import PoolReports

__all__ = ["Reports"]


class Reports:
    def __init__(self, pool: Pool, domains: Domains, monitors: Monitors, leased: str) -> None:
        """``leased``: the folder of `storage.leases.records`."""
        self._asking = Asking(domains, monitors)
        self.domains = DomainReports(pool, domains, monitors, self._asking)
        self.hosts = HostReports(pool, domains, self._asking)
        self.leases = LeaseReports(pool, self.hosts, self._asking, leased)
        self.pools = PoolReports(pool, domains, self.leases)

    async def close(self) -> None:
        await self._asking.close()
