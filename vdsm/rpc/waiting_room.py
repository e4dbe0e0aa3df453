# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that have not said who they are: few at a time, each for a short time.

A flood of half-open handshakes fills the room of its own address, where the newest pushes out the oldest: who really
wants in is through in a tenth of a second, long before it is the oldest. So no flood keeps others out, and none takes
memory.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

MAX_WAITING = 512
MAX_WAITING_OF_ADDRESS = 64


class WaitingRoom:
    def __init__(self, most: int = MAX_WAITING, most_of_address: int = MAX_WAITING_OF_ADDRESS) -> None:
        self._most = most
        self._most_of_address = most_of_address
        self._by_address: dict[str, OrderedDict[asyncio.BaseTransport, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, address: str, transport: asyncio.Transport) -> bool:
        """Let a connection in; returns whether another one was pushed out for it."""
        own = self._by_address.setdefault(address, OrderedDict())
        own[transport] = None
        self._count += 1
        crowded = own if len(own) > self._most_of_address else None
        if crowded is None and self._count > self._most:
            crowded = max(self._by_address.values(), key=len)
        if crowded is None:
            return False
        oldest = next(iter(crowded))
        assert isinstance(oldest, asyncio.Transport)
        for name, waiting in list(self._by_address.items()):
            if waiting is crowded:
                self.leave(name, oldest)
        oldest.abort()
        return True

    def leave(self, address: str, transport: asyncio.BaseTransport) -> None:
        """It has said who it is, or is gone. Leaving twice is nothing."""
        own = self._by_address.get(address)
        if own is not None and transport in own:
            del own[transport]
            self._count -= 1
            if not own:
                del self._by_address[address]
