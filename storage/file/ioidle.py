# SPDX-License-Identifier: GPL-2.0-or-later
"""Helpers of a mount that have nothing to do: whoever needs one takes it from here.

There are two kinds where a lease is held: those that hold a copy of it, for writes, and those that do not, for reads.
One of those that serve writes waits for the next request as long as somebody has the mount open and asks now and then:
the monitor does, every 10 s (no lease is held there, so all are of one kind). All others, and the last one when nobody
has it open, end soon: each costs memory.
"""

from __future__ import annotations

import asyncio
import math

from storage.file.ioprocess import Helper

KEPT_S = 30.0
SPARE_S = 1.0


class Idle:
    def __init__(self) -> None:
        self.kept_s = SPARE_S
        self.kept: tuple[int, ...] = ()
        """What those hold that serve writes."""
        self._waiting: list[tuple[float, Helper]] = []  # who has waited longest comes first
        self._ending: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def helpers(self) -> list[Helper]:
        return [helper for _, helper in self._waiting]

    def take(self, kept: tuple[int, ...]) -> Helper | None:
        """One that holds these, and nothing else."""
        for waiting in reversed(self._waiting):
            helper = waiting[1]
            if helper.kept == kept:
                self._waiting.remove(waiting)
                if helper.alive:
                    return helper
        return None

    def put(self, helper: Helper) -> None:
        self._waiting.append((asyncio.get_running_loop().time(), helper))
        self.see()

    def end(self, helper: Helper) -> None:
        """Of one that owes no answer: it does nothing, so it can be killed at any time."""
        helper.kill()
        if helper.alive:
            self._ending.add(helper.end)
            helper.end.add_done_callback(self._ending.discard)

    def end_first(self) -> None:
        """Whoever has waited longest makes room for one of the other kind."""
        if self._waiting:
            self.end(self._waiting.pop(0)[1])

    def end_all(self) -> None:
        while self._waiting:
            self.end(self._waiting.pop()[1])
        self.see()

    async def ended(self, timeout_s: float) -> None:
        """Wait for the end of those that were ended, but not longer."""
        if self._ending:
            await asyncio.wait(list(self._ending), timeout=timeout_s)

    def see(self) -> None:
        """End those whose time is over, come back for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        next_s = math.inf
        for waiting in list(self._waiting):
            since, helper = waiting
            over = since + (self.kept_s if self._is_to_wait(helper) else SPARE_S)
            if loop.time() < over:
                next_s = min(next_s, over)
            else:
                self._waiting.remove(waiting)
                self.end(helper)
        if next_s < math.inf:
            self._timer = loop.call_at(next_s, self.see)

    def _is_to_wait(self, helper: Helper) -> bool:
        """The last of those that serve writes."""
        return helper.kept == self.kept and sum(other.kept == self.kept for other in self.helpers) == 1
