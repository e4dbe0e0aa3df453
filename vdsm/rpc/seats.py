# SPDX-License-Identifier: GPL-2.0-or-later
"""The port's connections in use: a share for each client, and no client that keeps another one out.

One client has at most its share; its newest connection is refused. When all seats are taken, a newcomer gets the one
of the oldest connection of the client that has most, if that one has more than the newcomer's. So whoever fills the
port, alone or together with others, an engine always gets in.
"""

from __future__ import annotations

import asyncio

from vdsm.common.errors import AgentError

MAX_CONNECTIONS = 512
MAX_CONNECTIONS_OF_CLIENT = 128


class NoSeat(AgentError):
    """``whose``: the client, or the port itself."""

    whose: str
    count: int
    msg = "{self.whose} has {self.count} connections already"


class Seats:
    def __init__(self, most: int = MAX_CONNECTIONS, most_of_client: int = MAX_CONNECTIONS_OF_CLIENT) -> None:
        self._most = most
        self._most_of_client = most_of_client
        # in each, the oldest is the first
        self._by_client: dict[str, dict[asyncio.BaseTransport, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def take(self, client: str, transport: asyncio.BaseTransport) -> asyncio.BaseTransport | None:
        """Raises `NoSeat`, or returns the connection that has lost its seat for this one; the caller ends it."""
        own = self._by_client.get(client, {})
        if len(own) >= self._most_of_client:
            raise NoSeat("its client", len(own))
        loser = None
        if self._count >= self._most:
            crowded, most = max(self._by_client.items(), key=lambda item: len(item[1]))
            if len(most) <= len(own):
                raise NoSeat("the port", self._count)
            loser = next(iter(most))
            self.leave(crowded, loser)
        self._by_client.setdefault(client, {})[transport] = None
        self._count += 1
        return loser

    def leave(self, client: str, transport: asyncio.BaseTransport) -> None:
        """Leaving twice is nothing."""
        own = self._by_client.get(client)
        if own is not None and transport in own:
            del own[transport]
            self._count -= 1
            if not own:
                del self._by_client[client]
