# SPDX-License-Identifier: GPL-2.0-or-later
"""How much a peer has taken, as the kernel knows it.

Nothing nearer tells a slow peer from one that has stopped: a megabyte may lie in the kernel, and a large frame in the
transport, for minutes before room for another one is told.
"""

from __future__ import annotations

import asyncio
import socket
import struct

# struct tcp_info: tcpi_bytes_acked, since Linux 4.1
_BYTES_ACKED = struct.Struct("=120xQ")


def acknowledged(transport: asyncio.BaseTransport) -> int | None:
    """Bytes since the connection began; None when it is no TCP, or gone."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return None
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    except OSError:
        return None
    return int(_BYTES_ACKED.unpack(told)[0]) if len(told) == _BYTES_ACKED.size else None
