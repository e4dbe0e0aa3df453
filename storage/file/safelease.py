# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock of ISO and export domains of version 0, as the field's tool takes it: no host ids, no lock daemon.

Who finds the tag free writes an own one and looks again after two I/O timeouts: whoever still stands there then has
the lock, since another one who had seen it free too would have written by that time. Who finds another's tag waits
for the lease's time and six I/O timeouts; a tag that has not changed by then is of somebody dead, and is taken as free.

It is held for one change of the metadata, never renewed: nothing runs on such a domain that a lost lock would have to
end. Who has it is a random name for each opened domain, since host ids of different pools are the same.
"""

from __future__ import annotations

import asyncio
import secrets
import time

from storage.errors import LeaseHeld
from storage.file.io import FileIo
from storage.leases.model import (
    Holder,
    HostRecord,
    Lease,
    LeaseOwner,
    LeaseRecord,
    Lockspace,
    Membership,
)
from storage.ondisk import safelease
from vdsm.common.deadlines import deadline

LEASE_IN_IO_TIMEOUTS = 6
PATIENCE_IN_IO_TIMEOUTS = LEASE_IN_IO_TIMEOUTS + 6
CONTEND_IN_IO_TIMEOUTS = 2
VERSION = -1
DIRECT_READ = 4096


class SafeLease:
    """`storage.leases.Leases` of one domain by its tag. ``io_timeout_s`` must be every host's: 10 in the field."""

    on_storage = False

    def __init__(self, io: FileIo, *, io_timeout_s: float) -> None:
        self._io = io
        self._io_timeout_s = io_timeout_s
        self._name = secrets.token_hex(safelease.OWNER_SIZE // 2)
        self._held = False
        self._joined: int | None = None

    async def format_lockspace(self, space: Lockspace) -> None:
        """Nothing: the file stays empty."""

    async def format_lease(self, lease: Lease) -> None:
        await self._io.write_direct(lease.path, safelease.free())

    async def clear_lease(self, lease: Lease) -> None:
        """Nothing: domains of this version have no lease that comes and goes."""

    async def start_join(self, space: Lockspace, host_id: int) -> None:
        self._joined = host_id

    async def joined(self, space: Lockspace, host_id: int) -> bool | None:
        return self._joined == host_id

    async def memberships(self) -> list[Membership]:
        """None: what is joined here ends with this process."""
        return []

    async def leave(self, space: Lockspace | Membership, host_id: int) -> None:
        self._joined = None

    async def acquire(self, lease: Lease, *, timeout_s: float) -> int:
        """20 s when it is free, 140 s when its owner is dead (I/O timeout 10 s)."""
        if self._held:
            return VERSION
        async with deadline(f"lock {lease}", timeout_s):
            before = await self._read(lease)
            if not safelease.is_free(before):
                owner = safelease.owner(before, lease.path)
                await asyncio.sleep(PATIENCE_IN_IO_TIMEOUTS * self._io_timeout_s)
                now = await self._read(lease)
                if now != before and not safelease.is_free(now):
                    raise LeaseHeld(str(lease), owner)
            ours = safelease.encode(self._name, time.time_ns() // 1000)
            await self._io.write_direct(lease.path, ours)
            await asyncio.sleep(CONTEND_IN_IO_TIMEOUTS * self._io_timeout_s)
            now = await self._read(lease)
        if now != ours:
            raise LeaseHeld(str(lease), safelease.owner(now, lease.path))
        self._held = True
        return VERSION

    async def release(self, lease: Lease) -> None:
        if self._held:
            self._held = False
            if safelease.owner(await self._read(lease), lease.path) == self._name:
                await self.format_lease(lease)

    async def held(self, lease: Lease) -> bool:
        return self._held

    async def read_lease(self, lease: Lease) -> LeaseRecord:
        return LeaseRecord(lease.lockspace, lease.resource, VERSION)

    async def owners(self, lease: Lease) -> list[LeaseOwner]:
        return []

    async def is_gone(self, space: Lockspace, owner: LeaseOwner) -> bool:
        return False

    async def hosts(self, space: Lockspace) -> list[HostRecord]:
        return []

    async def holder(self, space: Lockspace, lease: Lease) -> Holder:
        return Holder(VERSION, None)

    async def close(self) -> None:
        """Nothing is kept."""

    async def _read(self, lease: Lease) -> bytes:
        return (await self._io.read_direct(lease.path, size=DIRECT_READ))[: safelease.BLOCK]
