# SPDX-License-Identifier: GPL-2.0-or-later
"""How many connections are worked on at the same time, when any of them may hang.

`AT_ONCE` keeps a host from starting a hundred programs in one moment. Who has not ended after `SLOW_S` waits for a
server and no longer counts: of dead ones, each `AT_ONCE` delay the others by that much. `MOST` is the wall: the root
helper serves a bounded number of calls, and others than these need it, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

AT_ONCE = 20
SLOW_S = 3.0
MOST = 48


class Room:
    def __init__(self) -> None:
        self._quick = asyncio.Semaphore(AT_ONCE)
        self._all = asyncio.Semaphore(MOST)

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        async with self._all:
            await self._quick.acquire()
            seat = _Seat(self._quick)
            timer = asyncio.get_running_loop().call_later(SLOW_S, seat.leave)
            try:
                yield
            finally:
                timer.cancel()
                seat.leave()


class _Seat:
    def __init__(self, quick: asyncio.Semaphore) -> None:
        self._quick: asyncio.Semaphore | None = quick

    def leave(self) -> None:
        if self._quick is not None:
            self._quick.release()
            self._quick = None
