# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a connection is not made or not ended. Each says what somebody has to change, and where."""

from __future__ import annotations

from storage import holders
from storage.errors import StorageError


class KindUnsupported(StorageError):
    kind: str
    msg = "Storage of kind {self.kind} is not supported by this agent yet"


class ConnectionRefused(StorageError):
    connection: str
    reason: str
    msg = "Storage {self.connection!r} cannot be connected: {self.reason}"


class RemotePathInvalid(StorageError):
    spec: str
    kind: str
    reason: str
    msg = "{self.spec!r} names no storage of kind {self.kind}: {self.reason}"
    remedy = "Name it as it was connected"


class OptionRefused(StorageError):
    option: str
    reason: str
    msg = "Mount option {self.option!r} is not taken: {self.reason}"
    remedy = "docs/storage.md lists the options of NFS, each with its reason"


class MountFailed(StorageError):
    connection: str
    reason: str
    msg = "Storage {self.connection!r} was not mounted: {self.reason}"


class AccessRefused(StorageError):
    path: str
    reason: str = "user vdsm (36) needs to read, write and enter it"
    msg = "Storage {self.path} is not usable: {self.reason}"
    remedy = "Give the folder on the storage to owner and group 36:36 with all rights for both"


class DirectIoRefused(StorageError):
    connection: str
    reason: str
    msg = "Storage {self.connection!r} is not usable: {self.reason}"


class ConnectionUsed(StorageError):
    connection: str
    users: list[str]
    msg = "Storage {self.connection!r} is not disconnected: it is in use by {self.named}"
    remedy = "Deactivate these domains or leave the pool, stop these VMs, end what prepared images with Image.teardown"

    @property
    def named(self) -> str:
        return ", ".join(map(holders.shown, self.users))
