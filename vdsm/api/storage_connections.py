# SPDX-License-Identifier: GPL-2.0-or-later
"""A storage connection as engines send it: one flat structure for every kind, all values texts.

What a kind of storage does not use is ignored: engines send all of it. A field in the wrong form, or a kind that is not
built, fails the whole call (storage.md 3.4); what is wrong with one connection's storage is its own result.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import field

from storage.ondisk.values import DomainKind
from storage.servers.errors import KindUnsupported
from storage.servers.kinds import Connection, LocalFolder, NfsExport, NfsVersion, PosixMount
from vdsm.api.types import Part, Secret, Text, WireText
from vdsm.common.errors import InvalidParameter
from vdsm.common.ids import shown

MOST_DIGITS = 6


class ConnectionPart(Part):
    """One storage connection. What a kind of storage does not use is ignored."""

    id: WireText
    connection: Text = ""
    vfs_type: Text = ""
    mnt_options: Text = ""
    port: WireText = ""
    iqn: Text = ""
    user: Text = ""
    password: Secret = ""
    tpgt: WireText = ""
    iface_name: Text = field(name="ifaceName", default="")
    net_iface_name: Text = field(name="netIfaceName", default="")
    initiator_name: Text = field(name="initiatorName", default="")
    ipv6_enabled: WireText | bool = ""
    protocol_version: WireText = ""
    retrans: WireText = ""
    timeout: WireText = ""


def connections_of(kind: DomainKind, parts: Sequence[ConnectionPart]) -> list[Connection]:
    """Raises `InvalidParameter`, `KindUnsupported`."""
    return [_typed(kind, part, f"connectionParams[{number}]") for number, part in enumerate(parts)]


def _typed(kind: DomainKind, part: ConnectionPart, place: str) -> Connection:
    match kind:
        case DomainKind.LOCALFS:
            return LocalFolder(part.id, part.connection)
        case DomainKind.POSIXFS:
            return PosixMount(part.id, part.connection, part.vfs_type, part.mnt_options)
        case DomainKind.NFS:
            return NfsExport(
                part.id,
                part.connection,
                _version(f"{place}.protocol_version", part.protocol_version),
                _number(f"{place}.timeout", part.timeout),
                _number(f"{place}.retrans", part.retrans),
                part.mnt_options,
            )
    raise KindUnsupported(kind)


def _version(name: str, text: str) -> NfsVersion:
    try:
        return NfsVersion(text) if text else NfsVersion.V3
    except ValueError:
        raise InvalidParameter(name, shown(text), f"expected one of {', '.join(NfsVersion)}") from None


def _number(name: str, text: str) -> int | None:
    """None: the default counts."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS and int(text) > 0):
        raise InvalidParameter(name, shown(text), "expected a number of at least 1")
    return int(text)
