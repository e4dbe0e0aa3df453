# SPDX-License-Identifier: GPL-2.0-or-later
"""Fair turns: one busy client delays itself, not the others; one thing that hangs delays its own calls, not the others.

A client's calls stand in lanes, one for each thing that they are about (a VM, a domain, a pool; a verb that is about
nothing is a thing of its own). Of a lane run at most as many as its calls say, of a client at most ``per_client``,
in all ``total``. Who must wait stands in its lane's line; clients are served in rotation, and so are a client's lanes.
A client gets one turn in each round of the loop: a burst of calls that only compute would otherwise run as one block
before anybody else's.

A call that overtakes (it ends or aborts something) counts in no bound but that of its kind about the same thing. What
came before it about that thing and waits only for a turn begins before it, in the same moment; what hangs it passes.

A lane hangs when it is full and nothing of it has ended or begun for `HUNG_S`. Then only `MAX_BEHIND` of its calls
wait, and more are refused: so a client's line, which is bounded too, is never full of calls that wait for one thing.
What is vital is never refused: whoever takes part keeps what it sends within bounds (connections stop reading).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from types import TracebackType

MAX_LINE = 1000
HUNG_S = 30.0
MAX_BEHIND = 16


class Kind(Enum):
    """How a call waits: ``VITAL`` is never refused, ``OVERTAKING`` neither, and never behind what hangs."""

    COMMON = 0
    VITAL = 1
    OVERTAKING = 2


class LineFull(Exception):
    """A client has as many calls waiting as it may; with ``about`` those about one thing, behind what hangs."""

    def __init__(self, waiting: int, about: str = "", verb: str = "", for_s: float = 0.0) -> None:
        """``verb`` began first of what hangs, ``for_s`` ago."""
        super().__init__(waiting, about, verb, for_s)
        self.waiting = waiting
        self.about = about
        self.verb = verb
        self.for_s = for_s


class Turn:
    """One call's: `async with` waits for it, and gives it back. Raises `LineFull`."""

    __slots__ = ("_lane", "_turns", "about", "began", "client", "kind", "number", "place", "verb", "width")

    _lane: _Lane
    began: float
    number: int  # in the order in which they had to wait
    place: asyncio.Future[None]

    def __init__(self, turns: Turns, client: str, about: str, verb: str, width: int, kind: Kind) -> None:
        self._turns = turns
        self.client = client
        self.about = about
        self.verb = verb
        self.width = width
        self.kind = kind

    async def __aenter__(self) -> None:
        turns = self._turns
        lane = self._lane = turns._lane_of(self)
        if not turns._begin_at_once(self, lane):
            await turns._wait(self, lane)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns._give_back(self, self._lane)


class _Lane:
    """One client's calls about one thing; those that overtake have a lane of their own beside it."""

    __slots__ = ("about", "client", "line", "overtakes", "running", "width")

    def __init__(self, client: _Client, about: str, width: int, overtakes: bool) -> None:
        self.client = client
        self.about = about
        self.width = width
        self.overtakes = overtakes
        self.running: dict[Turn, None] = {}  # in the order in which they began
        self.line: deque[Turn] = deque()

    @property
    def has_room(self) -> bool:
        return len(self.running) < self.width

    def hangs_since(self, before: float) -> Turn | None:
        """What began first, if all of a full lane began before."""
        if self.has_room or next(reversed(self.running)).began > before:
            return None
        return next(iter(self.running))


class _Client:
    __slots__ = ("lanes", "name", "overtaking", "ready", "running", "urgent", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = 0
        self.waiting = 0
        self.lanes: dict[str, _Lane] = {}
        self.overtaking: dict[str, _Lane] = {}
        # lanes with a line and with room, in order of rotation
        self.ready: dict[_Lane, None] = {}
        self.urgent: dict[_Lane, None] = {}


class Turns:
    def __init__(
        self,
        total: int,
        per_client: int,
        max_line: int = MAX_LINE,
        *,
        hung_s: float = HUNG_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._per_client = per_client
        self._max_line = max_line
        self._hung_s = hung_s
        self._clock = clock
        self._count = 0
        self._number = 0
        self._clients: dict[str, _Client] = {}
        self._ready: dict[_Client, None] = {}  # who has a lane that is ready, in order of rotation
        self._had_a_turn: set[str] = set()  # in this round of the loop

    @property
    def waiting(self) -> int:
        return sum(client.waiting for client in self._clients.values())

    def turn(self, client: str, about: str = "", verb: str = "", width: int = 0, kind: Kind = Kind.COMMON) -> Turn:
        """A turn for one call. ``width``: how many calls about the same may run at once; 0: as many as the client's."""
        return Turn(self, client, about, verb, width or self._per_client, kind)

    # -- taking

    def _lane_of(self, turn: Turn) -> _Lane:
        client = self._clients.get(turn.client)
        if client is None:
            client = self._clients[turn.client] = _Client(turn.client)
        overtakes = turn.kind is Kind.OVERTAKING
        lanes = client.overtaking if overtakes else client.lanes
        lane = lanes.get(turn.about)
        if lane is None:
            lane = lanes[turn.about] = _Lane(client, turn.about, turn.width, overtakes)
        return lane

    def _begin_at_once(self, turn: Turn, lane: _Lane) -> bool:
        client = lane.client
        if lane.line or client.name in self._had_a_turn or not lane.has_room or client in self._ready:
            return False
        if not lane.overtakes and not self._has_width(client):
            return False
        self._take(turn, lane)
        return True

    def _has_width(self, client: _Client) -> bool:
        return self._count < self._total and client.running < self._per_client

    def _take(self, turn: Turn, lane: _Lane) -> None:
        if not lane.overtakes:
            self._count += 1
            lane.client.running += 1
        turn.began = self._clock()
        lane.running[turn] = None
        if not self._had_a_turn:
            asyncio.get_running_loop().call_soon(self._next_round)
        self._had_a_turn.add(lane.client.name)

    def _next_round(self) -> None:
        self._had_a_turn.clear()
        self._serve()

    def _give_back(self, turn: Turn, lane: _Lane) -> None:
        del lane.running[turn]
        if not lane.overtakes:
            self._count -= 1
            lane.client.running -= 1
        self._tidy(lane)
        self._serve()

    # -- waiting

    async def _wait(self, turn: Turn, lane: _Lane) -> None:
        if turn.kind is Kind.COMMON:
            self._check_room(lane)
        turn.place = place = asyncio.get_running_loop().create_future()
        self._number += 1
        turn.number = self._number
        lane.line.append(turn)
        lane.client.waiting += 1
        self._tidy(lane)
        self._serve()
        try:
            await place
        except (asyncio.CancelledError, LineFull):
            if turn in lane.running:  # the turn came together with the cancellation
                self._give_back(turn, lane)
            elif turn in lane.line:
                self._leave(turn, lane)
            raise

    def _check_room(self, lane: _Lane) -> None:
        """Raises `LineFull`; or somebody else leaves who waits behind what hangs, beyond what may."""
        before = self._clock() - self._hung_s
        try:
            if len(lane.line) >= MAX_BEHIND and (first := lane.hangs_since(before)) is not None:
                raise self._hangs(lane, first)
            if lane.client.waiting < self._max_line:
                return
            for other in lane.client.lanes.values():
                if len(other.line) > MAX_BEHIND and (first := other.hangs_since(before)) is not None:
                    last = next((turn for turn in reversed(other.line) if turn.kind is Kind.COMMON), None)
                    if last is not None:
                        self._leave(last, other)
                        if not last.place.done():
                            last.place.set_exception(self._hangs(other, first))
                        return
            raise LineFull(lane.client.waiting)
        except LineFull:
            self._tidy(lane)
            raise

    def _hangs(self, lane: _Lane, first: Turn) -> LineFull:
        return LineFull(len(lane.line), lane.about, first.verb, self._clock() - first.began)

    def _leave(self, turn: Turn, lane: _Lane) -> None:
        lane.line.remove(turn)
        lane.client.waiting -= 1
        self._tidy(lane)

    # -- serving

    def _tidy(self, lane: _Lane) -> None:
        """After every change of a lane: it is ready or not, and what is empty is forgotten."""
        client = lane.client
        ready = client.urgent if lane.overtakes else client.ready
        if lane.line and lane.has_room:
            ready[lane] = None
            self._ready[client] = None
            return
        ready.pop(lane, None)
        if not client.ready and not client.urgent:
            self._ready.pop(client, None)
        if not lane.line and not lane.running:
            (client.overtaking if lane.overtakes else client.lanes).pop(lane.about, None)
            if not client.lanes and not client.overtaking:
                self._clients.pop(client.name, None)

    def _serve(self) -> None:
        """Hand out what is free: the first client that may go gives one turn to a lane, then both go to the end."""
        while (client := self._who_may_go()) is not None:
            del self._ready[client]
            queue = client.urgent or client.ready
            lane = next(iter(queue))
            if lane.overtakes:
                self._pull(lane)
            del queue[lane]
            self._hand_out(lane)
            if client.ready or client.urgent:
                self._ready[client] = None

    def _who_may_go(self) -> _Client | None:
        for client in self._ready:
            if client.name not in self._had_a_turn and (client.urgent or self._has_width(client)):
                return client
        return None

    def _pull(self, overtaking: _Lane) -> None:
        """What came before and only waits for its turn begins first: else an abort would come before its aim."""
        common = overtaking.client.lanes.get(overtaking.about)
        if common is None:
            return
        number = overtaking.line[0].number
        while common.line and common.line[0].number < number and common.has_room and self._has_width(overtaking.client):
            self._hand_out(common)

    def _hand_out(self, lane: _Lane) -> None:
        turn = lane.line.popleft()
        lane.client.waiting -= 1
        if not turn.place.done():  # else it is being cancelled, and has not said so yet
            self._take(turn, lane)
            turn.place.set_result(None)
        self._tidy(lane)
