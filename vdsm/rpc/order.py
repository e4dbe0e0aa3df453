# SPDX-License-Identifier: GPL-2.0-or-later
"""The order of one connection's calls: who sends two changes of one thing one after the other gets them in that order.

Verbs that must not pass each other stand in one line (`vdsm.api.lines`), each thing (a VM, an image) with lines of its
own. The later call begins when every earlier one of its line has ended, or has given up its place: a verb does so
whose work keeps the order itself from then on (`vdsm.api.call.Call.in_order`). A call that
overtakes waits for none; those behind it wait for it. A call may stand in several lines at once (a list of servers);
places are taken in one step, so no two calls wait for each other.

    pause(a)   |=========|                     line run of VM a
    cont(a)    ..........|=====|               the same
    freeze(a)  |=================...           line guest of VM a: of its own
    destroy(a) |===|                           in no line

Connections know nothing of each other: a hook script that calls back while a verb of its VM runs never waits for it.

What came in a message so large that it is decoded elsewhere is not known yet: calls of lines that came after it wait
until it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from vdsm.rpc.turns import HUNG_S, MAX_BEHIND, LineFull

MAX_IN_LINE = 100  # as many as a batch has members


class Place:
    """One call's, the last in each of its lines: `async with` waits until it may begin. Raises `LineFull`."""

    __slots__ = ("_order", "ahead", "began", "behind", "has_place", "lines", "may_begin", "overtakes", "verb")

    began: float

    def __init__(self, order: Order, lines: Sequence[str], verb: str, overtakes: bool) -> None:
        self._order = order
        self.lines = lines
        self.verb = verb
        self.overtakes = overtakes
        self.ahead = 0
        self.behind: list[Place] = []
        self.has_place = False
        self.may_begin: asyncio.Future[None] | None = None

    async def __aenter__(self) -> None:
        self._order._join(self)
        if not self.ahead:
            return
        self.may_begin = asyncio.get_running_loop().create_future()
        try:
            await self.may_begin
        except asyncio.CancelledError:
            self.give_up()
            raise
        self.began = self._order._clock()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_up()

    def give_up(self) -> None:
        """Nobody waits behind it any more."""
        if self.has_place:
            self._order._leave(self)


class Order:
    """Of one connection."""

    __slots__ = ("_clock", "_lines", "unread")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: dict[str, dict[Place, None]] = {}
        # done when every large message that came so far is decoded, and its calls are in their lines
        self.unread: asyncio.Future[None] | None = None

    def place(self, lines: Sequence[str], verb: str, *, overtakes: bool = False) -> Place:
        return Place(self, lines, verb, overtakes)

    def _join(self, place: Place) -> None:
        if not place.overtakes:
            for name in place.lines:
                self._check_room(name)
        place.began = self._clock()
        place.has_place = True
        for name in place.lines:
            line = self._lines.setdefault(name, {})
            if not place.overtakes:
                place.ahead += len(line)
                for earlier in line:
                    earlier.behind.append(place)
            line[place] = None

    def _check_room(self, name: str) -> None:
        line = self._lines.get(name, {})
        if len(line) <= MAX_BEHIND:
            return
        first = next(iter(line))
        for_s = self._clock() - first.began
        if for_s >= HUNG_S or len(line) > MAX_IN_LINE:
            raise LineFull(len(line) - 1, name, first.verb, for_s)

    def _leave(self, place: Place) -> None:
        place.has_place = False
        for name in place.lines:
            line = self._lines[name]
            del line[place]
            if not line:
                del self._lines[name]
        for later in place.behind:
            later.ahead -= 1
            if not later.ahead and later.may_begin is not None and not later.may_begin.done():
                later.may_begin.set_result(None)
