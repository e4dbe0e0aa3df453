# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage servers of this host: what a domain needs before it can be found.

- LOCALFS: a local folder; the root helper gives it a link under ``mnt``, which is root's.
- POSIXFS: any file system; the root helper mounts it under ``mnt`` and keeps the only record
  of what was mounted, so later calls name the mount by its folder.

The folder's name comes from what is mounted: ``_`` doubled, then ``/`` to ``_`` (storage.md 2.2). Each
connection has a result of its own; one that fails does not keep the others from being made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from storage.domains import Domains
from storage.errors import StorageError
from storage.ondisk.remote_path import mount_name, normalise
from storage.ondisk.values import DomainKind
from vdsm.common.errors import AgentError
from vdsm.common.owners import Lane
from vdsm.root.client import Root

log = logging.getLogger("vdsm.storage.connections")

MOUNT_S = 120.0


class ConnectionRefused(StorageError):
    connection: str
    reason: str
    msg = "Storage {self.connection!r} cannot be connected: {self.reason}"


class MountFailed(StorageError):
    connection: str
    reason: str
    msg = "Storage {self.connection!r} was not mounted: {self.reason}"


class KindUnsupported(StorageError):
    kind: str
    msg = "Storage of kind {self.kind} is not supported by this agent yet"


class AccessRefused(StorageError):
    path: str
    msg = "Folder {self.path} is not usable: user vdsm (36) needs to read, write and enter it"
    remedy = "chown 36:36 the folder on the storage server, and give its owner all rights"


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
    def __init__(self, mounts: str, root: Root, domains: Domains) -> None:
        self._mounts = mounts
        self._root = root
        self._domains = domains
        self._lane = Lane("storage connections")

    def mount_path(self, spec: str) -> str:
        return os.path.join(self._mounts, mount_name(spec))

    async def connect(self, kind: DomainKind, connections: Sequence[Connection]) -> list[ConnectionResult]:
        async with self._lane("connect storage"):
            return [await self._result(c, self._connect(kind, c)) for c in connections]

    async def disconnect(self, kind: DomainKind, connections: Sequence[Connection]) -> list[ConnectionResult]:
        async with self._lane("disconnect storage"):
            return [await self._result(c, self._disconnect(kind, c)) for c in connections]

    async def _result(self, connection: Connection, action: Awaitable[None]) -> ConnectionResult:
        try:
            await action
        except AgentError as e:
            log.warning("connection %s: %s", connection.connection_id, e)
            return ConnectionResult(connection.connection_id, e)
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
        folder = _usable_folder(connection.spec)
        await self._root.call("LocalFolder.link", {"folder": folder}, timeout_s=MOUNT_S)

    async def _mount(self, connection: Connection) -> None:
        params = {"spec": connection.spec, "vfs_type": connection.vfs_type, "options": connection.options}
        try:
            await self._root.call("Mount.define", params, timeout_s=MOUNT_S)
            await self._root.call("Mount.mount", {"mount_id": mount_name(connection.spec)}, timeout_s=MOUNT_S)
        except AgentError as e:
            raise MountFailed(connection.spec, str(e)) from e

    async def _unmount(self, connection: Connection) -> None:
        await self._root.call("Mount.unmount", {"mount_id": mount_name(connection.spec)}, timeout_s=MOUNT_S)


def _check_spec(connection: Connection) -> None:
    if not connection.spec or "\n" in connection.spec or "\0" in connection.spec:
        raise ConnectionRefused(connection.spec, "parameter 'connection' names no storage")


def _usable_folder(spec: str) -> str:
    folder = normalise(spec)
    if not folder.startswith("/") or ".." in folder.split("/"):
        raise ConnectionRefused(spec, "a local folder is named by its absolute path")
    if not os.path.isdir(folder):
        raise ConnectionRefused(spec, "there is no such folder")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise AccessRefused(folder)
    return folder
