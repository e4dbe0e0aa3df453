# SPDX-License-Identifier: GPL-2.0-or-later
"""`storage.leases.Leases` in memory, of one host: everything that is asked for is had at once."""

from __future__ import annotations

from storage.errors import LeaseNotFormatted
from storage.leases import (
    Holder,
    HostRecord,
    Lease,
    LeaseOwner,
    LeaseRecord,
    Lockspace,
    Membership,
)


class MemoryLeases:
    on_storage = False

    def __init__(self) -> None:
        self._joined: dict[str, int] = {}
        self._held: set[Lease] = set()

    async def format_lockspace(self, space: Lockspace) -> None:
        return

    async def format_lease(self, lease: Lease) -> None:
        return

    async def clear_lease(self, lease: Lease) -> None:
        return

    async def start_join(self, space: Lockspace, host_id: int) -> None:
        self._joined[space.name] = host_id

    async def joined(self, space: Lockspace, host_id: int) -> bool | None:
        return self._joined.get(space.name) == host_id

    async def memberships(self) -> list[Membership]:
        return []

    async def leave(self, space: Lockspace | Membership, host_id: int) -> None:
        self._joined.pop(space.name, None)

    async def acquire(self, lease: Lease, *, timeout_s: float) -> int:
        self._held.add(lease)
        return 1

    async def release(self, lease: Lease) -> None:
        self._held.discard(lease)

    async def held(self, lease: Lease) -> bool:
        return lease in self._held

    async def read_lease(self, lease: Lease) -> LeaseRecord:
        raise LeaseNotFormatted(str(lease))

    async def owners(self, lease: Lease) -> list[LeaseOwner]:
        return []

    async def is_gone(self, space: Lockspace, owner: LeaseOwner) -> bool:
        return True

    async def hosts(self, space: Lockspace) -> list[HostRecord]:
        return []

    async def holder(self, space: Lockspace, lease: Lease) -> Holder:
        return Holder(1, 1 if lease in self._held else None)

    async def close(self) -> None:
        return
