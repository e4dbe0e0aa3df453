# SPDX-License-Identifier: GPL-2.0-or-later
"""The format version of a pool's domains, as the agent sees to it: asked of the SPM process, which converts.

The pool's version is its master's. What was away while the others were converted follows when it is there again.
"""

from __future__ import annotations

import logging

from storage.domains import Domains
from storage.ondisk.values import DomainStatus
from storage.pool import Pool
from storage.pool_master import ConnectedPool
from storage.spm.control import SpmStatus
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.storage.pool")

UPGRADE_S = 600.0


class PoolVersions:
    def __init__(self, pool: Pool, domains: Domains) -> None:
        self._pool = pool
        self._domains = domains

    async def upgrade(self, pool_id: str, version: int) -> None:
        """The master is converted when this returns; the other active domains follow. For the SPM.

        Raises `UpgradeRunning`, `ConversionUnsupported`, `LockTimeout`.
        """
        pool = self._pool.require(pool_id)
        params = {"version": version, "domain_ids": _others(pool)}
        await self._pool.call_spm("pool.upgrade", params, timeout_s=UPGRADE_S)
        await (await self._domains.get(pool.master_id)).read_metadata()  # this process follows

    async def bring_up(self, domain_id: str) -> None:
        """A domain that is there again gets what it missed, also the end of its role as a master. A failure is told."""
        pool = self._pool.connected
        if pool is None or self._pool.spm.status is not SpmStatus.SPM or domain_id not in _others(pool):
            return
        try:
            await self._pool.call_spm("domain.bring_up", {"domain_id": domain_id})
        except AgentError as e:  # the next SPM looks at all of them
            log.warning("domain %s: it is not known whether its version is the pool's: %s", domain_id, e)


def _others(pool: ConnectedPool) -> list[str]:
    active = (domain_id for domain_id, status in pool.domains.items() if status is DomainStatus.ACTIVE)
    return [domain_id for domain_id in active if domain_id != pool.master_id]
