# SPDX-License-Identifier: GPL-2.0-or-later
"""Fair turns: one busy client delays itself, not the others.

At most ``total`` calls run, at most ``per_client`` of one client, and a client gets one turn in each round of the
loop: a burst of calls that only compute would otherwise run as one block before anybody else's. Who must wait stands
in its client's line; lines are served in rotation. A call is refused only when its own client's line is full; a
vital call never is: whoever takes part keeps what it sends within bounds (connections stop reading).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MAX_LINE = 1000


class LineFull(Exception):
    """A client has as many calls waiting as it may."""

    def __init__(self, waiting: int) -> None:
        super().__init__(waiting)
        self.waiting = waiting


class Turns:
    def __init__(self, total: int, per_client: int, max_line: int = MAX_LINE) -> None:
        self._total = total
        self._per_client = per_client
        self._max_line = max_line
        self._running: Counter[str] = Counter()
        self._count = 0
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}  # in order of rotation
        self._had_a_turn: set[str] = set()  # in this round of the loop

    @property
    def waiting(self) -> int:
        return sum(len(line) for line in self._lines.values())

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn of ``client``, and have it while the body runs. Raises `LineFull`."""
        line = self._lines.get(client, ())
        if len(line) >= self._max_line:
            raise LineFull(len(line))
        async with self.vital_turn(client):
            yield

    @asynccontextmanager
    async def vital_turn(self, client: str) -> AsyncIterator[None]:
        """As `turn`, however long the line is."""
        if client in self._lines or not self._free(client):
            await self._wait(client)
        else:
            self._take(client)
        try:
            yield
        finally:
            self._give_back(client)

    def _free(self, client: str) -> bool:
        fresh = client not in self._had_a_turn
        return fresh and self._count < self._total and self._running.get(client, 0) < self._per_client

    def _take(self, client: str) -> None:
        self._count += 1
        self._running[client] += 1
        if not self._had_a_turn:
            asyncio.get_running_loop().call_soon(self._next_round)
        self._had_a_turn.add(client)

    def _next_round(self) -> None:
        self._had_a_turn.clear()
        self._serve()

    def _give_back(self, client: str) -> None:
        self._count -= 1
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        self._serve()

    async def _wait(self, client: str) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # the turn came together with the cancellation
                self._give_back(client)
            else:
                self._leave(client, place)
            raise

    def _leave(self, client: str, place: asyncio.Future[None]) -> None:
        line = self._lines[client]
        line.remove(place)
        if not line:
            del self._lines[client]

    def _serve(self) -> None:
        """Hand out what is free: the first line that may go gives one, then goes to the end."""
        while self._count < self._total:
            client = next((name for name in self._lines if self._free(name)), None)
            if client is None:
                return
            line = self._lines.pop(client)
            self._take(client)
            line.popleft().set_result(None)
            if line:
                self._lines[client] = line
