# SPDX-License-Identifier: GPL-2.0-or-later
"""One lease's own registered connection to sanlock.

While an acquire waits (minutes, when the owner is dead), sanlock answers whatever else is asked about
the *same registration* with "busy". So each lease has a registration of its own: an acquire that waits
keeps nobody from asking whether another lease is still held. sanlock kills the process when any of its
registrations loses a lease, and frees a lease when its registration's descriptor is closed.

A lease that was taken is `kept.Kept`: whoever writes under it has a copy of the descriptor.

Calls on one descriptor are serialised by a lock that the *thread* holds: two calls at once on
one have let two hosts hold one lease.

Several callers of one process may ask for one lease, each with a claim of its own. A caller whose call ended too late
for it gives its claim back: the lease goes with the last one.
"""

from __future__ import annotations

import errno
import os
import threading

import sanlock

from storage.leases.kept import Kept
from storage.leases.model import Lease

_LOST = {errno.EPIPE, errno.ECONNRESET, errno.EBADF}
_NOT_HELD = {errno.ENOENT, errno.EPERM}


class Registration:
    """Blocking calls, for threads."""

    def __init__(self, lease: Lease, kept: Kept) -> None:
        self.lease = lease
        self._kept = kept
        self._descriptor = -1
        self._taken = False
        self._claims: set[object] = set()
        self._turn = threading.Lock()

    def acquire(self, claim: object) -> None:
        """Register and take the lease; nothing happens when it is held. Raises `SanlockException`."""
        with self._turn:
            if self._taken and self._inquire():
                self._claims.add(claim)
                return
            self._close()
            self._descriptor = sanlock.register()
            try:
                sanlock.acquire(*self._names(), self._disks(), slkfd=self._descriptor)
            except BaseException:
                self._close()
                raise
            self._taken = True
            self._kept.add(self._descriptor)
            self._claims.add(claim)

    def give_up(self, claim: object) -> None:
        """Release the lease unless somebody else of this process has claimed it since, or had before."""
        with self._turn:
            if claim in self._claims:
                self._claims.remove(claim)
                if not self._claims:
                    self._release()

    def release(self) -> None:
        """Give the lease back and end the registration, which frees the lease whatever the release met."""
        with self._turn:
            self._release()

    def _release(self) -> None:
        if not self._taken:
            return
        try:
            sanlock.release(*self._names(), self._disks(), slkfd=self._descriptor)
        except sanlock.SanlockException as e:
            if e.errno not in _NOT_HELD:
                raise
        finally:
            self._close()

    def held(self) -> bool:
        """What the daemon says; no waiting for an acquire that is under way."""
        if not self._taken:
            return False
        with self._turn:
            return self._taken and self._inquire()

    def close(self) -> None:
        self._close()

    def _inquire(self) -> bool:
        """A daemon that has forgotten this registration does not protect its lease any more: it is not held."""
        try:
            found = sanlock.inquire(slkfd=self._descriptor)
        except sanlock.SanlockException as e:
            if e.errno == errno.EBUSY:  # it works for this very registration: it knows it, so nothing is lost
                return True
            if e.errno in _LOST:
                return False
            raise
        return any((h["lockspace"], h["resource"]) == self._names() for h in found)

    def _close(self) -> None:
        descriptor, self._descriptor, self._taken = self._descriptor, -1, False
        self._claims.clear()
        if descriptor >= 0:
            self._kept.drop(descriptor)
            os.close(descriptor)

    def _names(self) -> tuple[bytes, bytes]:
        return self.lease.lockspace.encode(), self.lease.resource.encode()

    def _disks(self) -> list[tuple[str, int]]:
        return [(self.lease.path, self.lease.offset)]
