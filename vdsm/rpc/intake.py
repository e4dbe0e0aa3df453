# SPDX-License-Identifier: GPL-2.0-or-later
"""What one connection sent and nobody has looked at yet: a few frames in each turn of the loop.

One read may bring more than ten thousand frames, and a hundred connections may be read in one turn. So a turn takes
at most `FRAMES_OF_A_TURN` of them, in order; the rest waits for the next one, for its pace and for room. Nothing more
is read while something waits, so what waits is one read and a frame that is not whole.

Of a connection that closes or is dropped, what still waits is never looked at, just as what the kernel still holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from vdsm.common.stomp import Frame, Limits, NotStomp, Parser
from vdsm.rpc.pace import Pace

FRAMES_OF_A_TURN = 200


@dataclass(frozen=True)
class Taker:
    """``has_room``: whether another frame may come; who answers no calls `Intake.go_on` later."""

    take: Callable[[Frame], None]
    malformed: Callable[[NotStomp], None]
    has_room: Callable[[], bool]


_NOBODY = Taker(lambda _: None, lambda _: None, lambda: False)


class Intake:
    def __init__(self, transport: asyncio.Transport, taker: Taker, limits: Limits, pace: Pace | None) -> None:
        self._transport = transport
        self._taker = taker
        self._parser = Parser(limits)
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None
        self._is_reading = True
        self._began = self._loop.time()

    @property
    def quiet_s(self) -> float:
        """For how long nothing came; 0 while we do not read: then the peer's beats lie in the kernel."""
        return self._loop.time() - self._began if self._is_reading else 0.0

    def add(self, data: bytes) -> None:
        self._began = self._loop.time()
        self._parser.add(data)
        if self._next is None:
            self._turn()

    def go_on(self) -> None:
        """There may be room again."""
        if not self._is_reading and self._next is None:
            self._next = self._loop.call_later(0, self._turn)

    def close(self) -> None:
        """Nothing more is taken; what is left knows nobody any more, so that it is gone at once."""
        self._taker = _NOBODY
        if self._next is not None:
            self._next.cancel()

    def _turn(self) -> None:
        self._next = None
        try:
            taken, is_empty = self._take()
        except NotStomp as error:
            self._taker.malformed(error)
            return
        if self._transport.is_closing():
            return
        delay_s = self._pace.delay_s(taken, self._loop.time()) if self._pace is not None else 0.0
        has_room = self._taker.has_room()
        if is_empty and has_room and not delay_s:
            self._read_on()
            return
        self._is_reading = False
        self._transport.pause_reading()
        if has_room or delay_s:
            self._next = self._loop.call_later(delay_s, self._turn)

    def _take(self) -> tuple[int, bool]:
        """How many frames were taken, and whether none is left that is whole."""
        taken = 0
        while taken < FRAMES_OF_A_TURN and self._taker.has_room() and not self._transport.is_closing():
            frame = self._parser.next_frame()
            if frame is None:
                return taken, True
            taken += 1
            self._taker.take(frame)
        return taken, False

    def _read_on(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._began = self._loop.time()
            self._transport.resume_reading()
