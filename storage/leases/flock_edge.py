# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock of a domain on a local disk: flock on its file ``ids``, nothing written.

There is one host, so there are no host ids to join and no versions: joining always succeeds, the
version is -1. The kernel gives the lock back when its process has ended and the last writer that has a copy
(`kept.Kept`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os

from storage.errors import LeaseError, LeaseHeld
from storage.leases.kept import Kept
from storage.leases.model import (
    Holder,
    HostRecord,
    Lease,
    LeaseOwner,
    LeaseRecord,
    Lockspace,
    Membership,
)
from storage.leases.threads import in_thread

CALL_S = 60.0
VERSION = -1

# A process that only looks (see `holder`) holds the lock for some microseconds.
TRIES = 5
TRY_AGAIN_S = 0.02


class FlockLeases:
    """`storage.leases.Leases` by flock. Locks belong to this object's process."""

    on_storage = False

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept = kept or Kept()
        self._held: dict[str, int] = {}
        self._joined: dict[str, int] = {}

    async def format_lockspace(self, space: Lockspace) -> None:
        """Nothing: the file stays empty."""

    async def format_lease(self, lease: Lease) -> None:
        """Nothing: the file stays empty."""

    async def clear_lease(self, lease: Lease) -> None:
        """Nothing: the file stays empty."""

    async def start_join(self, space: Lockspace, host_id: int) -> None:
        self._joined[space.path] = host_id

    async def joined(self, space: Lockspace, host_id: int) -> bool | None:
        return self._joined.get(space.path) == host_id

    async def memberships(self) -> list[Membership]:
        """None: what is joined here ends with this process."""
        return []

    async def leave(self, space: Lockspace | Membership, host_id: int) -> None:
        self._joined.pop(space.path, None)

    async def acquire(self, lease: Lease, *, timeout_s: float) -> int:
        path = _lock_path(lease)
        if path in self._held:
            return VERSION
        async with asyncio.timeout(timeout_s):
            for _ in range(TRIES):
                fd = await _try_lock("acquire", path, fcntl.LOCK_EX, timeout_s)
                if fd is not None:
                    self._held[path] = fd
                    self._kept.add(fd)
                    return VERSION
                await asyncio.sleep(TRY_AGAIN_S)
        raise LeaseHeld(str(lease))

    async def release(self, lease: Lease) -> None:
        fd = self._held.pop(_lock_path(lease), None)
        if fd is not None:
            fcntl.flock(fd, fcntl.LOCK_UN)  # given back, whoever has copies
            self._close(fd)

    async def held(self, lease: Lease) -> bool:
        return _lock_path(lease) in self._held

    async def read_lease(self, lease: Lease) -> LeaseRecord:
        return LeaseRecord(lease.lockspace, lease.resource, VERSION)

    async def owners(self, lease: Lease) -> list[LeaseOwner]:
        return []

    async def is_gone(self, space: Lockspace, owner: LeaseOwner) -> bool:
        return False

    async def hosts(self, space: Lockspace) -> list[HostRecord]:
        return []

    async def holder(self, space: Lockspace, lease: Lease) -> Holder:
        """The host id is that of this host: nobody else can hold a local lock."""
        path = _lock_path(lease)
        mine = self._joined.get(space.path, 0)
        if path in self._held:
            return Holder(VERSION, mine)
        fd = await _try_lock("look", path, fcntl.LOCK_SH, CALL_S)
        if fd is None:
            return Holder(VERSION, mine)
        os.close(fd)
        return Holder(VERSION, None)

    async def close(self) -> None:
        while self._held:
            self._close(self._held.popitem()[1])

    def _close(self, fd: int) -> None:
        self._kept.drop(fd)
        os.close(fd)


def _lock_path(lease: Lease) -> str:
    return os.path.join(os.path.dirname(lease.path), "ids")


async def _try_lock(operation: str, path: str, kind: int, timeout_s: float) -> int | None:
    """As `_lock`. A lock that came when nobody waited for it any more is given back."""
    locked: list[int] = []

    def lock() -> int | None:
        fd = _lock(operation, path, kind)
        locked.extend([] if fd is None else [fd])
        return fd

    return await in_thread(f"flock of {path}", timeout_s, lock, lambda: _close_all(locked))


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _lock(operation: str, path: str, kind: int) -> int | None:
    """The locked descriptor; None when another process has the lock."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        raise LeaseError(operation, path, e.errno or 0, os.strerror(e.errno or 0)) from None
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            os.close(fd)
        return None
    return fd
