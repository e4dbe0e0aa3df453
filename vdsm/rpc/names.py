# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a certificate's name belongs to the address that it came from (``verify_client_cert``, wire.md 1)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from vdsm.common.errors import AgentError

LOOK_UP_S = 5.0


class ForeignName(AgentError):
    name: str
    address: str
    msg = "The certificate of {self.name!r} came from {self.address}, which has another name"


async def belongs_to(name: str, address: str) -> bool:
    """The name is the address, or one of its names in DNS; the host itself may have any."""
    try:
        if ipaddress.ip_address(address).is_loopback or name == address:
            return True
    except ValueError:
        return False
    try:
        async with asyncio.timeout(LOOK_UP_S):
            host, others, _ = await asyncio.to_thread(socket.gethostbyaddr, address)
    except (OSError, TimeoutError):
        return False
    return name.lower() in (one.lower() for one in (host, *others))
