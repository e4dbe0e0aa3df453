# SPDX-License-Identifier: GPL-2.0-or-later
"""What waits to be sent on one connection: frames in order, bounded, each written by itself.

The engine's parser takes one frame from a TLS record and loses its way when there are two (wire.md 2.3). asyncio makes
a record of its own of every ``write``, so each frame is one. A peer that does not read fills its own box and is
dropped; nobody else waits for it. A slow peer that reads is not: it may take as long as it likes for what its box
holds. All boxes of a port together are bounded, too: then the fullest one goes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from vdsm.rpc.acknowledged import acknowledged

MAX_FRAMES = 2000
MAX_BYTES = 64 << 20
MAX_BYTES_OF_ALL = 256 << 20
UNREAD_S = 30.0


class Outboxes:
    """The open boxes of one port and what they hold together."""

    def __init__(self, most: int = MAX_BYTES_OF_ALL) -> None:
        self._most = most
        self._held: dict[Outbox, int] = {}
        self._sum = 0

    def hold(self, box: Outbox, size: int) -> None:
        """A box of that size is in the way of others when it is the fullest of too full ones."""
        self._sum += size - self._held.get(box, 0)
        self._held[box] = size
        while self._sum > self._most:
            fullest = max(self._held, key=lambda held: self._held[held])
            fullest.give_up(f"{self._sum} bytes wait on all connections, most of them, {self._held[fullest]}, for it")

    def leave(self, box: Outbox) -> None:
        self._sum -= self._held.pop(box, 0)

    def __len__(self) -> int:
        return self._sum


class Outbox:
    """``full`` is called, once, with the reason when the peer has not read for too long."""

    def __init__(self, transport: asyncio.WriteTransport, full: Callable[[str], None], all_boxes: Outboxes) -> None:
        # a frame is written when all before it has left; what is between the two lies here, not in the transport
        # (high=0 would not do: TLS's protocol then takes an empty buffer for a full one, and pauses for ever)
        transport.set_write_buffer_limits(high=1, low=0)
        self._transport = transport
        self._full = full
        self._all = all_boxes
        self._loop = asyncio.get_running_loop()
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._leaving = 0  # of the frame that the transport has not got rid of
        self._paused = False
        self._closed = False
        self._look: asyncio.TimerHandle | None = None
        self.last_write = self._loop.time()

    def send(self, frame: bytes) -> None:
        if self._closed:
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        if len(self._frames) > MAX_FRAMES or self._bytes > MAX_BYTES:
            self.give_up(f"{len(self._frames)} frames, {self._bytes} bytes wait")
            return
        self._write()

    def pause(self) -> None:
        self._paused = True
        if self._look is None:
            self._look_later()

    def resume(self) -> None:
        self._paused = False
        self._leaving = 0
        self._write()

    def give_up(self, why: str) -> None:
        """Nothing more is sent."""
        full = self._full
        self.close()
        full(why)

    def close(self) -> None:
        """The connection is gone; closing twice is nothing."""
        self._closed = True
        self._full = _tell_nobody
        self._frames.clear()
        self._all.leave(self)
        if self._look is not None:
            self._look.cancel()

    def _write(self) -> None:
        while self._frames and not self._paused and not self._transport.is_closing():
            frame = self._frames.popleft()
            self._bytes -= len(frame)
            self.last_write = self._loop.time()
            self._transport.write(frame)
            self._leaving = len(frame) if self._paused else 0
        if not self._closed:
            self._all.hold(self, self._bytes + self._leaving)

    def _look_later(self) -> None:
        self._look = self._loop.call_later(UNREAD_S, self._look_again, acknowledged(self._transport))

    def _look_again(self, before: int | None) -> None:
        self._look = None
        if not self._paused:
            return
        if before is not None and acknowledged(self._transport) == before:
            self.give_up(f"it has taken nothing for {UNREAD_S:g} s")
            return
        self._look_later()


def _tell_nobody(why: str) -> None:
    """Who owned a closed box is gone, and is not kept by it."""
