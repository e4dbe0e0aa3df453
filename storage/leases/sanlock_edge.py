# SPDX-License-Identifier: GPL-2.0-or-later
"""Leases by the sanlock daemon.

- The process registers once, before its first acquire. sanlock then watches the process: when a
  lease cannot be renewed any more, the process is killed. So whoever acquires is a process that may die.
- Calls on the registered descriptor are serialised by one lock that the *thread* holds: two calls
  at once on it have let two hosts hold one lease. An acquire, which may wait for minutes,
  names our pid on a connection of its own and keeps nobody from asking `held`.
- Alignment, sector and I/O timeout come from the domain with every call.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import TypeVar

import sanlock

from storage.errors import (
    HostIdInUse,
    HostIdNotAcquired,
    LeaseError,
    LeaseHeld,
    LeaseNotFormatted,
    SanlockUnavailable,
    StorageError,
)
from storage.leases.model import Holder, HostRecord, HostStatus, Lease, LeaseOwner, LeaseRecord, Lockspace
from storage.leases.threads import in_thread

T = TypeVar("T")

CALL_S = 60.0
LEAVE_S = 120.0

# sanlock's own numbers (sanlock_rv.h); below -200 so that no errno is among them
LEADER_MAGIC = -223
LEADER_LOCKSPACE = -226
LEADER_RESOURCE = -227
LEADER_CHECKSUM = -229
ACQUIRE_IDLIVE = -243
ACQUIRE_OWNED = -244
ACQUIRE_OTHER = -245
ACQUIRE_OWNED_RETRY = -247

_HELD = {ACQUIRE_IDLIVE, ACQUIRE_OWNED, ACQUIRE_OTHER, ACQUIRE_OWNED_RETRY, errno.EEXIST}
# the last: the file is too short to hold one
_NO_LEASE = {LEADER_MAGIC, LEADER_LOCKSPACE, LEADER_RESOURCE, LEADER_CHECKSUM, errno.EMSGSIZE}
_NO_DAEMON = {errno.ECONNREFUSED, errno.EPIPE, errno.ECONNRESET}

_STATUS = {
    sanlock.HOST_UNKNOWN: HostStatus.UNKNOWN,
    sanlock.HOST_FREE: HostStatus.FREE,
    sanlock.HOST_LIVE: HostStatus.LIVE,
    sanlock.HOST_FAIL: HostStatus.FAIL,
    sanlock.HOST_DEAD: HostStatus.DEAD,
}


class SanlockLeases:
    """`storage.leases.Leases` by sanlock. One per process."""

    on_storage = True

    def __init__(self) -> None:
        self._registered = -1
        self._guard = threading.Lock()

    # Formatting

    async def format_lockspace(self, space: Lockspace) -> None:
        await _call(
            "format lockspace",
            space.path,
            lambda: sanlock.write_lockspace(
                space.name.encode(),
                space.path,
                offset=space.offset,
                iotimeout=space.io_timeout_s,
                align=space.align,
                sector=space.sector,
            ),
        )

    async def format_lease(self, lease: Lease) -> None:
        await self._write(lease, clear=False)

    async def clear_lease(self, lease: Lease) -> None:
        await self._write(lease, clear=True)

    async def _write(self, lease: Lease, *, clear: bool) -> None:
        await _call(
            "clear" if clear else "format",
            str(lease),
            lambda: sanlock.write_resource(
                lease.lockspace.encode(),
                lease.resource.encode(),
                _disks(lease),
                clear=clear,
                align=lease.align,
                sector=lease.sector,
            ),
        )

    # The host's id

    async def start_join(self, space: Lockspace, host_id: int) -> None:
        try:
            await self._add(space, host_id, wait=False, timeout_s=CALL_S)
        except LeaseError as e:
            if e.code not in (errno.EEXIST, errno.EINPROGRESS):
                raise HostIdNotAcquired(space.name, host_id, f"{e.text} ({e.code})") from e

    async def joined(self, space: Lockspace, host_id: int) -> bool | None:
        return await self._inquire_space(space, host_id, wait=False, timeout_s=CALL_S)

    async def join(self, space: Lockspace, host_id: int, *, timeout_s: float) -> None:
        try:
            await self._add(space, host_id, wait=True, timeout_s=timeout_s)
        except LeaseError as e:
            if e.code == errno.EEXIST:
                return
            if e.code == errno.EINPROGRESS and await self._inquire_space(
                space, host_id, wait=True, timeout_s=timeout_s
            ):
                return
            raise HostIdNotAcquired(space.name, host_id, f"{e.text} ({e.code})") from e

    async def leave(self, space: Lockspace, host_id: int) -> None:
        try:
            await _call(
                "leave",
                space.name,
                lambda: sanlock.rem_lockspace(
                    space.name.encode(), host_id, space.path, offset=space.offset, wait=True, unused=True
                ),
                LEAVE_S,
            )
        except LeaseError as e:
            if e.code == errno.EBUSY:
                raise HostIdInUse(space.name, host_id) from e
            if e.code != errno.ENOENT:
                raise

    async def _add(self, space: Lockspace, host_id: int, *, wait: bool, timeout_s: float) -> None:
        await _call(
            "join",
            space.name,
            lambda: sanlock.add_lockspace(
                space.name.encode(),
                host_id,
                space.path,
                offset=space.offset,
                iotimeout=space.io_timeout_s,
                wait=wait,
            ),
            timeout_s,
        )

    async def _inquire_space(self, space: Lockspace, host_id: int, *, wait: bool, timeout_s: float) -> bool | None:
        return await _call(
            "inquire",
            space.name,
            lambda: sanlock.inq_lockspace(space.name.encode(), host_id, space.path, offset=space.offset, wait=wait),
            timeout_s,
        )

    # Leases of this process

    async def acquire(self, lease: Lease, *, timeout_s: float) -> int:
        def acquire() -> None:
            self._descriptor()
            try:
                sanlock.acquire(lease.lockspace.encode(), lease.resource.encode(), _disks(lease), pid=os.getpid())
            except sanlock.SanlockException as e:
                # "exists" tells that a process of this host has it: perhaps another one than ours
                if e.errno != errno.EEXIST or not self._holds(lease):
                    raise

        await _call("acquire", str(lease), acquire, timeout_s, undo=lambda: self._release(lease))
        return (await self.read_lease(lease)).version

    async def release(self, lease: Lease) -> None:
        await _call("release", str(lease), lambda: self._release(lease))

    def _release(self, lease: Lease) -> None:
        descriptor = self._descriptor()
        with self._guard:
            try:
                sanlock.release(lease.lockspace.encode(), lease.resource.encode(), _disks(lease), slkfd=descriptor)
            except sanlock.SanlockException as e:
                if e.errno not in (errno.ENOENT, errno.EPERM):  # not held
                    raise

    async def held(self, lease: Lease) -> bool:
        return await _call("inquire", str(lease), lambda: self._holds(lease))

    def _holds(self, lease: Lease) -> bool:
        with self._guard:
            held = sanlock.inquire(slkfd=self._registered) if self._registered >= 0 else []
        wanted = lease.lockspace.encode(), lease.resource.encode()
        return any((h["lockspace"], h["resource"]) == wanted for h in held)

    def _descriptor(self) -> int:
        with self._guard:
            if self._registered < 0:
                self._registered = sanlock.register()
            return self._registered

    # What others hold

    async def read_lease(self, lease: Lease) -> LeaseRecord:
        found = await _call(
            "read",
            str(lease),
            lambda: sanlock.read_resource(lease.path, offset=lease.offset, align=lease.align, sector=lease.sector),
        )
        return LeaseRecord(found["lockspace"].decode(), found["resource"].decode(), found["version"])

    async def owners(self, lease: Lease) -> list[LeaseOwner]:
        found = await _call(
            "read owners",
            str(lease),
            lambda: sanlock.read_resource_owners(
                lease.lockspace.encode(), lease.resource.encode(), _disks(lease), align=lease.align, sector=lease.sector
            ),
        )
        return [LeaseOwner(owner["host_id"], owner["generation"]) for owner in found]

    async def hosts(self, space: Lockspace, host_id: int = 0) -> list[HostRecord]:
        found = await _call("hosts", space.name, lambda: sanlock.get_hosts(space.name.encode(), host_id))
        return [
            HostRecord(h["host_id"], h["generation"], _STATUS.get(h["flags"] & 0xF, HostStatus.UNKNOWN)) for h in found
        ]

    async def holder(self, space: Lockspace, lease: Lease) -> Holder:
        record = await self.read_lease(lease)
        owners = await self.owners(lease)
        if not owners:
            return Holder(record.version, None)
        owner = owners[0]
        try:
            hosts = await self.hosts(space, owner.host_id)
        except LeaseError as e:
            # not known yet, or this host is still joining the lockspace: the owner counts as alive
            if e.code in (errno.EAGAIN, errno.ENOENT):
                return Holder(record.version, owner.host_id)
            raise
        gone = hosts and (
            hosts[0].generation != owner.generation or hosts[0].status in (HostStatus.DEAD, HostStatus.FREE)
        )
        return Holder(record.version, None if gone else owner.host_id)

    async def close(self) -> None:
        """End the registration. sanlock then releases what this process still held."""
        with self._guard:
            if self._registered >= 0:
                os.close(self._registered)
                self._registered = -1


async def _call(
    operation: str,
    lease: str,
    call: Callable[[], T],
    timeout_s: float = CALL_S,
    undo: Callable[[], None] | None = None,
) -> T:
    try:
        return await in_thread(f"sanlock {operation} of {lease}", timeout_s, call, undo)
    except sanlock.SanlockException as e:
        raise _error(operation, lease, e) from None


def _error(operation: str, lease: str, e: sanlock.SanlockException) -> StorageError:
    text = " ".join(str(a) for a in e.args[1:]) or str(e)
    if e.errno in _NO_DAEMON or (e.errno == errno.ENOENT and not os.path.exists(_socket())):
        return SanlockUnavailable(f"{operation}: {text}")
    if e.errno in _NO_LEASE and operation != "hosts":
        return LeaseNotFormatted(lease)
    if operation == "acquire" and e.errno in _HELD:
        return LeaseHeld(lease)
    if operation == "acquire" and e.errno == errno.ENOSPC:
        text = "this host has not joined the lockspace"
    return LeaseError(operation, lease, e.errno, text)


def _socket() -> str:
    return os.path.join(os.environ.get("SANLOCK_RUN_DIR", "/run/sanlock"), "sanlock.sock")


def _disks(lease: Lease) -> list[tuple[str, int]]:
    return [(lease.path, lease.offset)]
