# SPDX-License-Identifier: GPL-2.0-or-later
"""Leases by the sanlock daemon.

- sanlock watches the process that registered: when a lease cannot be renewed any more, the process is
  killed. So whoever acquires is a process that may die.
- Each lease has a registration of its own (`Registration`), so an acquire that waits for minutes hides no other lease.
- Joining a lockspace is begun in the daemon and looked at (`joining`): a call that waits for it would
  keep one of the daemon's few workers for minutes.
- Alignment, sector and I/O timeout come from the domain with every call that has a parameter for them
  (sanlock reads the others' from the disk).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
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
from storage.leases.daemon import socket_path
from storage.leases.kept import Kept
from storage.leases.model import (
    Holder,
    HostRecord,
    HostStatus,
    Lease,
    LeaseOwner,
    LeaseRecord,
    Lockspace,
    Membership,
)
from storage.leases.registration import Registration
from storage.leases.threads import in_thread
from vdsm.common.errors import DeadlineExceeded

log = logging.getLogger("vdsm.storage.leases")

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
_NO_LEASE = {LEADER_MAGIC, LEADER_LOCKSPACE, LEADER_RESOURCE, errno.EMSGSIZE}
_NO_DAEMON = {errno.ECONNREFUSED, errno.EPIPE, errno.ECONNRESET}

# of a host's flags; one that fails to renew (HOST_FAIL) is not known to be dead yet
_STATE = 0xF
_STATUS = {
    sanlock.HOST_UNKNOWN: HostStatus.UNKNOWN,
    sanlock.HOST_FREE: HostStatus.FREE,
    sanlock.HOST_LIVE: HostStatus.LIVE,
    sanlock.HOST_FAIL: HostStatus.FAIL,
    sanlock.HOST_DEAD: HostStatus.DEAD,
}
_GONE = {sanlock.HOST_FREE, sanlock.HOST_DEAD}


class SanlockLeases:
    """`storage.leases.Leases` by sanlock. One per process."""

    on_storage = True

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept = kept or Kept()
        self._registrations: dict[Lease, Registration] = {}

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
            await _call(
                "join",
                space.name,
                lambda: sanlock.add_lockspace(
                    space.name.encode(),
                    host_id,
                    space.path,
                    offset=space.offset,
                    iotimeout=space.io_timeout_s,
                    wait=False,
                ),
            )
        except LeaseError as e:
            if e.code == errno.EINVAL:
                raise HostIdNotAcquired(space.name, host_id, "this host has joined with another id") from e
            if e.code not in (errno.EEXIST, errno.EINPROGRESS):
                raise HostIdNotAcquired(space.name, host_id, f"{e.text} ({e.code})") from e

    async def joined(self, space: Lockspace, host_id: int) -> bool | None:
        return await _call(
            "inquire",
            space.name,
            lambda: sanlock.inq_lockspace(space.name.encode(), host_id, space.path, offset=space.offset, wait=False),
        )

    async def memberships(self) -> list[Membership]:
        found = await _call("inquire", "all lockspaces", sanlock.get_lockspaces)
        return [
            Membership(f["lockspace"].decode(errors="replace"), f["host_id"], f["path"], f["offset"])
            for f in found
            if not f["flags"] & sanlock.LSFLAG_REM
        ]

    async def leave(self, space: Lockspace | Membership, host_id: int) -> None:
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

    # Leases of this process

    async def acquire(self, lease: Lease, *, timeout_s: float) -> int:
        registration = self._registrations.setdefault(lease, Registration(lease, self._kept))
        claim = object()
        try:
            await _call(
                "acquire",
                str(lease),
                lambda: registration.acquire(claim),
                timeout_s,
                undo=lambda: registration.give_up(claim),
            )
        except LeaseHeld as e:
            owner = await self._owner(lease)
            if owner is not None:
                raise LeaseHeld(e.lease, f"the host with id {owner.host_id}") from e
            raise
        try:
            return (await self.read_lease(lease)).version
        except BaseException:  # the caller has nothing of it: a lease that nobody knows of is given back by nobody
            await asyncio.shield(self._give_up(registration, claim))
            raise

    async def _give_up(self, registration: Registration, claim: object) -> None:
        try:
            await _call("release", str(registration.lease), lambda: registration.give_up(claim))
        except (StorageError, DeadlineExceeded) as e:  # its end frees it all the same
            log.warning("lease %s was not given back in order: %s", registration.lease, e)

    async def release(self, lease: Lease) -> None:
        registration = self._registrations.get(lease)
        if registration is not None:
            await _call("release", str(lease), registration.release)

    async def held(self, lease: Lease) -> bool:
        registration = self._registrations.get(lease)
        return registration is not None and await _call("inquire", str(lease), registration.held)

    async def _owner(self, lease: Lease) -> LeaseOwner | None:
        try:
            owners = await self.owners(lease)
        except (StorageError, DeadlineExceeded):  # only a sentence gets shorter by it
            return None
        return owners[0] if owners else None

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

    async def hosts(self, space: Lockspace) -> list[HostRecord]:
        found = await _call("hosts", space.name, lambda: sanlock.get_hosts(space.name.encode()))
        states = [_STATUS.get(host["flags"] & _STATE, HostStatus.UNKNOWN) for host in found]
        return [
            HostRecord(host["host_id"], host["generation"], state, host["timestamp"])
            for host, state in zip(found, states, strict=True)
        ]

    async def holder(self, space: Lockspace, lease: Lease) -> Holder:
        record = await self.read_lease(lease)
        owners = await self.owners(lease)
        if not owners:
            return Holder(record.version, None)
        gone = await self.is_gone(space, owners[0])
        return Holder(record.version, None if gone else owners[0].host_id)

    async def is_gone(self, space: Lockspace, owner: LeaseOwner) -> bool:
        try:
            found = await _call("hosts", space.name, lambda: sanlock.get_hosts(space.name.encode(), owner.host_id))
        except LeaseError as e:
            # not known yet, or this host is still joining the lockspace
            if e.code in (errno.EAGAIN, errno.ENOENT):
                return False
            raise
        return bool(found) and (found[0]["generation"] != owner.generation or found[0]["flags"] & _STATE in _GONE)

    async def close(self) -> None:
        """End the registrations. sanlock then releases what this process still held."""
        while self._registrations:
            self._registrations.popitem()[1].close()


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
    if e.errno in _NO_DAEMON or (e.errno == errno.ENOENT and not os.path.exists(socket_path())):
        return SanlockUnavailable(f"{operation}: {text}")
    if e.errno in _NO_LEASE and operation != "hosts":
        return LeaseNotFormatted(lease)
    if operation == "acquire" and e.errno in _HELD:
        return LeaseHeld(lease)
    if operation == "acquire" and e.errno == errno.ENOSPC:
        text = "this host has not joined the lockspace"
    if e.errno == errno.ENODEV:
        text = (
            "the lock daemon cannot open it: its user must be in group 36; where it is root, NFS needs no_root_squash"
        )
    if e.errno == LEADER_CHECKSUM:
        text = "it is damaged: its record has a wrong checksum"
    return LeaseError(operation, lease, e.errno, text)


def _disks(lease: Lease) -> list[tuple[str, int]]:
    return [(lease.path, lease.offset)]
