# SPDX-License-Identifier: GPL-2.0-or-later
"""The lease of a leased process, seen from inside: taken, kept while the process has writers, given back.

A leased process (`storage.spm.process`) changes shared metadata under one lease. Its writers (I/O helpers that write,
qemu-img) have copies of the lease's descriptor (`storage.leases.kept`), so the lock daemon frees the lease when this
process has ended *and* its last writer. One that hangs in the kernel keeps it, however this process ended; one that
only reads has none, and keeps nothing:

- killed: idle writers die with it within milliseconds, and the lease is free; one that hangs keeps it until it ends;
- in order: the lease is released when no writer is left. While one is, nothing is released, and this process ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Protocol

from storage.domain import Domain
from storage.domains import Domains
from storage.errors import LeaseHeld, StorageError
from storage.leases import joining, records
from storage.leases.kept import Kept
from storage.spm.errors import WritersLeft
from vdsm.common import groups, hanging
from vdsm.common.errors import DeadlineExceeded

log = logging.getLogger("vdsm.storage.spm")

JOIN_S = 180.0
THERE = "it is SPM, or writers of its last SPM process hang there, or it died and may not be known to be dead yet"


class Writers(Protocol):
    """Whoever writes to storage for this process."""

    def keep(self, descriptors: Sequence[int]) -> None:
        """They hold copies of these from now on, until they are gone; empty: of nothing."""

    async def close(self) -> None:
        """All end; one that hangs is left to the kernel."""


class OwnLease:
    """``writers`` and ``kept``: of this process; ``folder``: where it is on record (`records`) who took a lease."""

    def __init__(self, domains: Domains, writers: Writers, kept: Kept, folder: str) -> None:
        self._domains = domains
        self._writers = writers
        self._kept = kept
        self._folder = folder
        self._domain: Domain | None = None

    async def take(self, domain: Domain, host_id: int, *, timeout_s: float) -> int:
        """Join the domain's lockspace and take its SDM lease; the lease's version.

        Raises `HostIdNotAcquired`, `LeaseHeld` with who has it as far as that is known, `WritersLeft` when writers of
        an earlier process of this host have, and what `Leases.acquire` raises.
        """
        leases = domain.leases
        await joining.join(leases, domain, host_id, timeout_s=JOIN_S)
        try:
            version = await leases.acquire(domain.sdm_lease, timeout_s=timeout_s)
        except LeaseHeld as e:
            raise await self._explained(e, domain, host_id) from e
        self._domain = domain
        try:
            self._writers.keep(self._kept.descriptors)
            records.write(self._folder, domain.domain_id)
        except BaseException:  # whoever asked has nothing of it, and would never give it back
            await asyncio.shield(self.release())
            raise
        return version

    async def give_back(self) -> None:
        """End the I/O helpers and release the lease, unless a writer is left: it is free when that one has ended."""
        await self._domains.close()
        await self._writers.close()
        domain, self._domain = self._domain, None
        if domain is None:
            return
        if left := [str(member) for member in groups.session_members(os.getpid()) if _is_writer(member)]:
            log.error("lease %s is not released: writers hang, and keep it: %s", domain.sdm_lease, ", ".join(left))
        else:
            await domain.leases.release(domain.sdm_lease)

    async def release(self) -> None:
        """This lease alone: the process goes on with another one. A writer of its domain that hangs keeps it."""
        domain, self._domain = self._domain, None
        if domain is None:
            return
        ours = {member.pid for member in groups.session_members(os.getsid(0))}  # who only reads is none of us
        if left := [str(pid) for pid in hanging.pids(domain.place) if pid in ours]:
            log.error("lease %s is not released: writers hang: %s", domain.sdm_lease, ", ".join(left))
            return
        await domain.leases.release(domain.sdm_lease)
        self._writers.keep(self._kept.descriptors)

    async def _explained(self, error: LeaseHeld, domain: Domain, host_id: int) -> StorageError:
        try:
            owners = await domain.leases.owners(domain.sdm_lease)
            others = [owner.host_id for owner in owners if owner.host_id != host_id]
            other = await domain.host_id_owner(others[0]) if others else None
        except (StorageError, DeadlineExceeded):  # only a sentence gets shorter by it
            return error
        if others:
            name = f" ({other.name})" if other is not None and other.name else ""
            return LeaseHeld(error.lease, f"the host with id {others[0]}{name}: {THERE}")
        left = records.left(self._folder, domain.domain_id)
        return WritersLeft(error.lease, left.pid, str(left)) if left else error


def _is_writer(member: groups.Member) -> bool:
    """Of this process, which leads the session: each has a group of its own."""
    return member.group == member.pid != os.getpid()
