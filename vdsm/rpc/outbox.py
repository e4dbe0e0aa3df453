# SPDX-License-Identifier: GPL-2.0-or-later
"""What waits to be sent on one connection: frames in order, bounded, each written by itself.

The engine's parser takes one frame from a TLS record and loses its way when there are two (wire.md 2.3). asyncio makes
a record of its own of every ``write``, so each frame is one. A peer that does not read fills its own box and is
dropped; nobody else waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

MAX_FRAMES = 2000
MAX_BYTES = 64 << 20


class Outbox:
    """``full`` is called, once, with the reason when the peer has not read for too long."""

    def __init__(self, transport: asyncio.WriteTransport, full: Callable[[str], None]) -> None:
        # a frame is written when all before it has left; what is between the two lies here, not in the transport
        # (high=0 would not do: TLS's protocol then takes an empty buffer for a full one, and pauses for ever)
        transport.set_write_buffer_limits(high=1, low=0)
        self._transport = transport
        self._full = full
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._paused = False
        self.last_write = asyncio.get_running_loop().time()

    def send(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._bytes += len(frame)
        if len(self._frames) > MAX_FRAMES or self._bytes > MAX_BYTES:
            waiting = f"{len(self._frames)} frames, {self._bytes} bytes wait"
            self._frames.clear()
            self._bytes = 0
            self._full(waiting)
            return
        self._write()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._write()

    def _write(self) -> None:
        while self._frames and not self._paused and not self._transport.is_closing():
            frame = self._frames.popleft()
            self._bytes -= len(frame)
            self.last_write = asyncio.get_running_loop().time()
            self._transport.write(frame)
