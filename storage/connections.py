# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage servers of this host: what a domain needs before it can be found.

- LOCALFS: a local folder; the root helper gives it a link under ``mnt``, which is root's.
- POSIXFS: any file system; the root helper mounts it under ``mnt`` and keeps the only record
  of what was mounted, so later calls name the mount by its folder.

The folder's name comes from what is mounted: ``_`` doubled, then ``/`` to ``_`` (storage.md 2.2). All
connections are made at the same time, those of one folder in order. Each has a result of its own: one that is dead
delays no other (a server that is away takes 95 s to say so), and one that fails keeps none from being made.

A mount that does not answer cannot be unmounted in order: it is cut off, open files and all, unless VMs or transfers
use images on it. They may go on when the server comes back; cut off, they never do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from storage.access import Identity, refused_at
from storage.domains import Domains
from storage.errors import IoFailed, StorageError, StorageNotResponding
from storage.file.io import FileIo
from storage.file.iopool import IoPools
from storage.ondisk.remote_path import mount_name, normalise
from storage.ondisk.values import DomainKind
from vdsm.common.errors import AgentError, DeadlineExceeded, RemoteError
from vdsm.common.owners import Lane
from vdsm.root.client import Root

log = logging.getLogger("vdsm.storage.connections")

MOUNT_S = 120.0
ANSWER_S = 5.0
AT_ONCE = 20

# how the root helper says that what was mounted is not usable
_MOUNT_REFUSED = "MountAccessRefused"


class ConnectionRefused(StorageError):
    connection: str
    reason: str
    msg = "Storage {self.connection!r} cannot be connected: {self.reason}"


class MountFailed(StorageError):
    connection: str
    reason: str
    msg = "Storage {self.connection!r} was not mounted: {self.reason}"


class MountUsed(StorageError):
    connection: str
    users: list[str]
    msg = "Storage {self.connection!r} does not answer and is not cut off: its images are in use by {self.users}"
    remedy = "Stop these VMs, or end what prepared the images with Image.teardown"


class KindUnsupported(StorageError):
    kind: str
    msg = "Storage of kind {self.kind} is not supported by this agent yet"


class AccessRefused(StorageError):
    path: str
    reason: str = "user vdsm (36) needs to read, write and enter it"
    msg = "Storage {self.path} is not usable: {self.reason}"
    remedy = "Give the folder on the storage to owner and group 36:36 with all rights for both"


@dataclass(frozen=True)
class Connection:
    connection_id: str
    spec: str
    """What engines call ``connection``: a folder, a device, ``server:/export``."""
    vfs_type: str = ""
    options: str = field(default="", repr=False)
    """They may hold a password."""


@dataclass(frozen=True)
class ConnectionResult:
    connection_id: str
    error: AgentError | None


class Connections:
    def __init__(
        self,
        mounts: str,
        root: Root,
        domains: Domains,
        *,
        qemu_users: Sequence[Identity],
        users_below: Callable[[str], list[str]],
    ) -> None:
        self._mounts = mounts
        self._root = root
        self._domains = domains
        self._qemu_users = qemu_users
        self._users_below = users_below
        self._lanes: weakref.WeakValueDictionary[str, Lane] = weakref.WeakValueDictionary()
        self._at_once = asyncio.Semaphore(AT_ONCE)

    def mount_path(self, spec: str) -> str:
        return os.path.join(self._mounts, mount_name(spec))

    async def connect(self, kind: DomainKind, connections: Sequence[Connection]) -> list[ConnectionResult]:
        return await self._each("connect", connections, lambda c: self._connect(kind, c))

    async def disconnect(self, kind: DomainKind, connections: Sequence[Connection]) -> list[ConnectionResult]:
        return await self._each("disconnect", connections, lambda c: self._disconnect(kind, c))

    async def _each(
        self, what: str, connections: Sequence[Connection], action: Callable[[Connection], Awaitable[None]]
    ) -> list[ConnectionResult]:
        return await asyncio.gather(*(self._result(what, c, action) for c in connections))

    async def _result(
        self, what: str, connection: Connection, action: Callable[[Connection], Awaitable[None]]
    ) -> ConnectionResult:
        name = mount_name(connection.spec)
        lane = self._lanes.setdefault(name, Lane(f"connection {name}"))
        try:
            async with lane(what), self._at_once:
                await action(connection)
        except AgentError as e:
            log.warning("%s of storage %s (%s) failed: %s", what, connection.connection_id, name, e)
            return ConnectionResult(connection.connection_id, e)
        except Exception as e:  # a surprise of one connection must not take the others' answers away
            log.exception("%s of storage %s (%s)", what, connection.connection_id, name)
            error = RemoteError(type(e).__name__, f"{type(e).__name__}: {e}")
            return ConnectionResult(connection.connection_id, error)
        return ConnectionResult(connection.connection_id, None)

    async def _connect(self, kind: DomainKind, connection: Connection) -> None:
        _check_spec(connection)
        if kind is DomainKind.LOCALFS:
            await self._link_folder(connection)
        elif kind is DomainKind.POSIXFS:
            await self._mount(connection)
        else:
            raise KindUnsupported(kind)

    async def _disconnect(self, kind: DomainKind, connection: Connection) -> None:
        path = self.mount_path(connection.spec)
        await self._domains.forget_mount(path)
        if kind is DomainKind.LOCALFS:
            await self._root.call("LocalFolder.unlink", {"folder": connection.spec}, timeout_s=MOUNT_S)
        elif kind is DomainKind.POSIXFS:
            await self._unmount(connection)
        else:
            raise KindUnsupported(kind)

    async def _link_folder(self, connection: Connection) -> None:
        folder = await self._usable_folder(connection.spec)
        await self._root.call("LocalFolder.link", {"folder": folder}, timeout_s=MOUNT_S)

    async def _usable_folder(self, spec: str) -> str:
        """The folder, which agent and QEMU can use. It may lie on a mount that hangs, so a helper looks first."""
        folder = normalise(spec)
        if not folder.startswith("/") or ".." in spec.split("/"):
            raise ConnectionRefused(spec, "a local folder is named by its absolute path")
        io = FileIo(folder, timeout_s=ANSWER_S, pools=self._domains.pools)
        try:
            is_folder = (await io.status(folder)).is_folder
        except IoFailed as e:
            if e.error == "EACCES":
                raise AccessRefused(folder) from None
            raise ConnectionRefused(spec, f"there is no such folder ({e.text})") from None
        finally:
            await io.close()
        if not is_folder:
            raise ConnectionRefused(spec, "it is no folder")
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise AccessRefused(folder)
        for user in self._qemu_users:
            refused = refused_at(folder, user)
            if refused is not None:
                raise AccessRefused(refused[0], f"user {user.name}, as which VMs run, needs to {refused[1]} it")
        return folder

    async def _mount(self, connection: Connection) -> None:
        params = {
            "spec": normalise(connection.spec),
            "vfs_type": connection.vfs_type,
            "options": connection.options,
        }
        try:
            await self._root.call("Mount.define", params, timeout_s=MOUNT_S)
            await self._root.call("Mount.mount", {"mount_id": mount_name(connection.spec)}, timeout_s=MOUNT_S)
        except AgentError as e:
            if _MOUNT_REFUSED in (type(e).__name__, getattr(e, "kind", "").rpartition(":")[2]):
                raise AccessRefused(connection.spec, str(e)) from e
            raise MountFailed(connection.spec, str(e)) from e

    async def _unmount(self, connection: Connection) -> None:
        path, mount_id = self.mount_path(connection.spec), {"mount_id": mount_name(connection.spec)}
        if await _answers(path, self._domains.pools):
            try:
                await self._root.call("Mount.unmount", mount_id, timeout_s=MOUNT_S)
                return
            except DeadlineExceeded:
                if await _answers(path, self._domains.pools):
                    raise
        if users := self._users_below(path):
            raise MountUsed(connection.spec, users)
        log.warning("the storage at %s does not answer: it is cut off", path)
        await self._root.call("Mount.unmount_forced", mount_id, timeout_s=MOUNT_S)


async def _answers(path: str, pools: IoPools) -> bool:
    """Whether the storage mounted there answers, be it with an error; what is not mounted needs not."""
    if not is_connected(path):
        return True
    io = FileIo(path, timeout_s=ANSWER_S, pools=pools)
    try:
        await io.space(path)
    except StorageNotResponding:
        return False
    except StorageError as e:  # only silence is a reason to cut off who uses it
        log.warning("the storage at %s: %s", path, e)
    finally:
        await io.close()
    return True


def is_connected(mount: str) -> bool:
    """True for a mount point, or the link of a local folder. What is mounted is not touched: it may hang."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        points = {line.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape") for line in f}
    return mount in points or os.path.islink(mount)


def _check_spec(connection: Connection) -> None:
    if not connection.spec or "\n" in connection.spec or "\0" in connection.spec:
        raise ConnectionRefused(connection.spec, "parameter 'connection' names no storage")
