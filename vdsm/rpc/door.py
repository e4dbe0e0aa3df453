# SPDX-License-Identifier: GPL-2.0-or-later
"""Accepts connections at a pace: who is served already does not feel how many are at the door.

A handshake costs about a millisecond. Without a pace, a thousand new connections would keep the loop from everybody
else for a second. Those that wait do so in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from vdsm.rpc.pace import Pace

log = logging.getLogger("vdsm.rpc.port")

AT_ONCE = 4
PER_SECOND = 200.0
# out of descriptors or memory: what runs must end first
AFTER_FAILURE_S = 1.0


class Door:
    """``admit`` gets each accepted socket, not blocking."""

    def __init__(self, listening: socket.socket, admit: Callable[[socket.socket], None]) -> None:
        self._listening = listening
        self._admit = admit
        self._pace = Pace(PER_SECOND, burst_s=0.1)
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def open(self) -> None:
        self._later = None
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _accept(self) -> None:
        accepted = 0
        pause_s = 0.0
        while accepted < AT_ONCE:
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                log.error("no connection can be accepted: %s", error)
                pause_s = AFTER_FAILURE_S
                break
            connection.setblocking(False)
            accepted += 1
            self._admit(connection)
        pause_s = pause_s or self._pace.delay_s(accepted, self._loop.time())
        if pause_s:
            self._loop.remove_reader(self._listening)
            self._later = self._loop.call_later(pause_s, self.open)
