# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be connected: one type for each kind of storage, with the fields that this kind has.

Two connections of the same content are the same connection, whatever ids engines gave them: see `content`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar

from storage.ondisk.remote_path import mount_name, server_and_path
from storage.ondisk.values import DomainKind


class NfsVersion(StrEnum):
    """As engines name them. ``4`` leaves the minor version to the two sides, ``auto`` all of it."""

    V3 = "3"
    V4 = "4"
    V4_0 = "4.0"
    V4_1 = "4.1"
    V4_2 = "4.2"
    AUTO = "auto"


@dataclass(frozen=True)
class LocalFolder:
    connection_id: str
    spec: str
    """What engines call ``connection``: here the folder's path."""

    kind: ClassVar = DomainKind.LOCALFS


@dataclass(frozen=True)
class PosixMount:
    connection_id: str
    spec: str
    """A device, an image, ``server:/path``: whatever the type of file system is mounted from."""
    vfs_type: str = ""
    options: str = field(default="", repr=False)
    """They may hold a password."""

    kind: ClassVar = DomainKind.POSIXFS


@dataclass(frozen=True)
class NfsExport:
    """``timeo_ds`` (tenths of a second) and ``retrans``: None takes the field's defaults."""

    connection_id: str
    spec: str
    version: NfsVersion = NfsVersion.V3
    timeo_ds: int | None = None
    retrans: int | None = None
    options: str = field(default="", repr=False)

    kind: ClassVar = DomainKind.NFS


Connection = LocalFolder | PosixMount | NfsExport


def content(connection: Connection) -> Connection:
    """The connection without its id."""
    return replace(connection, connection_id="")


def folder_name(connection: Connection) -> str:
    """Of its folder below ``mnt``."""
    return mount_name(connection.spec)


def refused(connection: Connection) -> str:
    """What is wrong with what the connection names; empty: nothing that can be seen without looking there."""
    is_export = isinstance(connection, PosixMount) and is_nfs(connection)
    return misnamed(DomainKind.NFS if is_export else connection.kind, connection.spec)


def misnamed(kind: DomainKind, spec: str) -> str:
    """Why ``spec`` can be the name of no storage of that kind; empty when it can."""
    if not spec or not spec.isprintable():
        return "it names no storage"
    match kind:
        case DomainKind.LOCALFS:
            is_local = spec.startswith("/") and ".." not in spec.split("/")
            return "" if is_local else "a local folder is named by its absolute path"
        case DomainKind.NFS:
            return _refused_blanks(spec) or _refused_export(spec)
        case _:
            return _refused_blanks(spec)


def _refused_blanks(spec: str) -> str:
    """sanlock takes such a lease, and then can't say who holds it: an SPM would end itself (seen with 3.8.5)."""
    return "the lock daemon works on no path with blanks" if " " in spec else ""


def is_nfs(mount: PosixMount) -> bool:
    return mount.vfs_type in ("nfs", "nfs4")


def _refused_export(spec: str) -> str:
    host, path = server_and_path(spec)
    if not host or not path.startswith("/"):
        return "an NFS export is named by server:/path, an IPv6 address stands in brackets"
    if "," in host:
        return "an NFS export is on one server"
    return ""
