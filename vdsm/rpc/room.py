# SPDX-License-Identifier: GPL-2.0-or-later
"""How many calls of one connection are under way: with too many no more is read.

So a client that sends faster than it is served is slowed, not refused. But one connection carries all that an engine
wants of a host: calls that hang must not close it to the others. A call that is under way for `STUCK_S` counts no
more, up to `MAX_STUCK` in all; what it was sent as counts always (`MAX_BYTES`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

STUCK_S = 10.0
MAX_STUCK = 8000
MAX_BYTES = 64 << 20
LOOK_S = 1.0


class Room:
    """``again`` is called when there may be room again after there was none because calls are stuck."""

    def __init__(self, most: int, again: Callable[[], None]) -> None:
        self._most = most
        self._again = again
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[int, tuple[float, int]] = {}  # in the order in which they came
        self._numbers = itertools.count()
        self._bytes = 0
        self._unsent = 0
        self._looking: asyncio.TimerHandle | None = None

    def enter(self, size: int) -> int:
        """A call of so many bytes came; the number is for `answered`."""
        number = next(self._numbers)
        self._under_way[number] = self._loop.time(), size
        self._bytes += size
        return number

    def answered(self, number: int, *, unsent: bool = False) -> None:
        """``unsent``: its reply takes the room that it had, until it is `sent`."""
        _, size = self._under_way.pop(number)
        self._bytes -= size
        self._unsent += unsent

    def sent(self) -> None:
        self._unsent -= 1

    @property
    def is_open(self) -> bool:
        if len(self._under_way) + self._unsent < self._most and self._bytes <= MAX_BYTES:
            return True
        if self._is_open_beyond():
            return True
        if self._looking is None:
            self._looking = self._loop.call_later(LOOK_S, self._look)
        return False

    def _is_open_beyond(self) -> bool:
        waiting = len(self._under_way)
        beyond = waiting + self._unsent - self._most
        if not 0 <= beyond < waiting or waiting >= MAX_STUCK or self._bytes > MAX_BYTES:
            return False
        # those that came before this one are stuck if it is
        came, _ = next(itertools.islice(self._under_way.values(), beyond, None))
        return self._loop.time() - came >= STUCK_S

    def _look(self) -> None:
        self._looking = None
        self._again()

    def close(self) -> None:
        """Nobody asks any more, and nobody is told."""
        self._again = _nothing
        if self._looking is not None:
            self._looking.cancel()


def _nothing() -> None:
    pass
