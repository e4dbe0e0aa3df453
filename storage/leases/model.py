# SPDX-License-Identifier: GPL-2.0-or-later
"""Leases on shared storage, as flows see them: one Protocol, two edges (sanlock, flock).

- A *lockspace* is a domain's file ``ids``: a host joins it with its host id and renews that there.
- A *lease* is one resource: the SDM lease (who may write shared metadata), one per volume.
- Address, alignment, sector size and I/O timeout always travel together: no call relies on a default.

Timeline with an I/O timeout of N seconds: renewal every 2N; a host that cannot renew for 8N loses
its leases and the processes that hold them are killed; 60 s later (the watchdog's time) others may
take them over. Joining takes 2N to 5N; with an id that another host used 8N + 60 s, after which that
host is known to be dead, or the joining fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True)
class Lockspace:
    name: str
    path: str
    align: int
    sector: int
    io_timeout_s: int
    offset: int = 0


@dataclass(frozen=True)
class Membership:
    """A lockspace that the lock daemon has joined for this host, or is joining."""

    name: str
    host_id: int
    path: str
    offset: int = 0


@dataclass(frozen=True)
class Lease:
    lockspace: str
    resource: str
    path: str
    offset: int
    align: int
    sector: int

    def __str__(self) -> str:
        return f"{self.lockspace}:{self.resource}"


@dataclass(frozen=True)
class LeaseRecord:
    """What stands on the disk at a lease's address."""

    lockspace: str
    resource: str
    version: int


@dataclass(frozen=True)
class LeaseOwner:
    host_id: int
    generation: int


@dataclass(frozen=True)
class HostIdOwner:
    """Who last held a host id, as its record in the lockspace says. A live owner renews ``timestamp``."""

    name: str
    generation: int
    timestamp: int

    @property
    def free(self) -> bool:
        return self.timestamp == 0


class HostStatus(StrEnum):
    UNKNOWN = "unknown"
    FREE = "free"
    LIVE = "live"
    FAIL = "fail"
    DEAD = "dead"
    UNAVAILABLE = "unavailable"
    """The domain's lock knows no hosts (flock)."""


@dataclass(frozen=True)
class HostRecord:
    host_id: int
    generation: int
    status: HostStatus
    timestamp: int = 0
    """Of its last renewal that was seen, by its own clock; 0 when it left."""


@dataclass(frozen=True)
class Holder:
    """Who holds the SDM lease. ``version`` is -1 when unknown; ``host_id`` None when nobody does."""

    version: int
    host_id: int | None


class Leases(Protocol):
    """Every call may raise `LeaseError`, `SanlockUnavailable`, `DeadlineExceeded`."""

    on_storage: bool
    """True when leases lie on storage: volumes then have lease files, the domain has xleases."""

    async def format_lockspace(self, space: Lockspace) -> None:
        """Write an empty lockspace. The file must exist."""

    async def format_lease(self, lease: Lease) -> None:
        """Write a free resource. The file must exist."""

    async def clear_lease(self, lease: Lease) -> None:
        """Make the address hold no resource."""

    async def start_join(self, space: Lockspace, host_id: int) -> None:
        """Begin to join. Nothing happens when joined or joining. See `joined` and `joining.join`."""

    async def joined(self, space: Lockspace, host_id: int) -> bool | None:
        """True: joined with this id; None: under way; False: not."""

    async def memberships(self) -> list[Membership]:
        """All of this host, whoever joined; not those that are being left. No storage access."""

    async def leave(self, space: Lockspace | Membership, host_id: int) -> None:
        """Leave, also while joining is under way, unless leases are in use.

        Raises `HostIdInUse`: nobody is killed by this call.
        """

    async def acquire(self, lease: Lease, *, timeout_s: float) -> int:
        """Take the lease for this process (again: nothing happens); its version.

        It may wait for minutes and keeps nobody from asking about, taking or giving back another lease.
        Raises `LeaseHeld`, also when another process of this host has it, `LeaseNotFormatted`.
        """

    async def release(self, lease: Lease) -> None:
        """Give back. Nothing happens when it is not held."""

    async def held(self, lease: Lease) -> bool:
        """True when this process holds the lease as far as the lock daemon knows; no storage access."""

    async def read_lease(self, lease: Lease) -> LeaseRecord:
        """Raises `LeaseNotFormatted`."""

    async def owners(self, lease: Lease) -> list[LeaseOwner]:
        """Who took the lease and did not give it back, dead hosts among them."""

    async def is_gone(self, space: Lockspace, owner: LeaseOwner) -> bool:
        """Whether the owner is known to be dead or to have left since. What is not known counts as alive."""

    async def hosts(self, space: Lockspace) -> list[HostRecord]:
        """Hosts of a joined lockspace, as the daemon knows them without storage. None where locks know no hosts."""

    async def holder(self, space: Lockspace, lease: Lease) -> Holder:
        """Who holds the lease now, dead hosts not counted. The lockspace must be joined."""

    async def close(self) -> None: ...
