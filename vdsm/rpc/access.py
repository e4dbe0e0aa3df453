# SPDX-License-Identifier: GPL-2.0-or-later
"""Identity from the channel, before a byte of the request is looked at.

On the unix socket the kernel says who connected: uid 0 and vdsm (36) are admin, members of the group
``vdsm-operator`` operator, anybody else is refused. Groups are those of the connecting process.
On plain TCP nothing is proved: nobody there is ever more than a reader.
"""

from __future__ import annotations

import array
import grp
import socket
import struct
from typing import Protocol

from vdsm.api.roles import Identity, Role

ADMIN_UIDS = frozenset({0, 36})
OPERATOR_GROUP = "vdsm-operator"

_SO_PEERGROUPS = 59  # Linux; not in Python's socket module
_MAX_GROUPS = 256  # Python asks the kernel for 1024 bytes at most
_UCRED = struct.Struct("iII")


class PeerSocket(Protocol):
    """The part of a socket that asyncio hands out."""

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes: ...


def unix_peer(connection: PeerSocket) -> Identity | None:
    """Who is at the other end; None for whom nothing is allowed."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    name, client = f"uid {uid}", f"unix:{uid}:{pid}"
    if uid in ADMIN_UIDS:
        return Identity(name, Role.ADMIN, client)
    operators = _operators()
    if operators is not None and operators in {gid, *_groups(connection)}:
        return Identity(name, Role.OPERATOR, client)
    return None


def tcp_peer(address: str) -> Identity:
    return Identity(f"tcp {address}", Role.READER, f"tcp:{address}")


def _operators() -> int | None:
    try:
        return grp.getgrnam(OPERATOR_GROUP).gr_gid
    except KeyError:
        return None


def _groups(connection: PeerSocket) -> list[int]:
    numbers = array.array("I")
    try:
        numbers.frombytes(connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS * numbers.itemsize))
    except OSError:  # a kernel without it, or more groups than fit: the primary group alone counts
        return []
    return list(numbers)
