# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a certificate's name belongs to the address that it came from (``verify_client_cert``, wire.md 1)."""

from __future__ import annotations

import asyncio
import ipaddress

from vdsm.common.errors import AgentError

LOOK_UP_S = 5.0


class ForeignName(AgentError):
    name: str
    address: str
    msg = "The certificate of {self.name!r} came from {self.address}, which has another name"


async def belongs_to(name: str, address: str) -> bool:
    """The name is the address, or its name in DNS; the host itself may have any."""
    try:
        if ipaddress.ip_address(address).is_loopback or name == address:
            return True
    except ValueError:
        return False
    try:
        async with asyncio.timeout(LOOK_UP_S):
            host, _ = await asyncio.get_running_loop().getnameinfo((address, 0))
    except (OSError, TimeoutError):
        return False
    return host.lower() == name.lower()
