# SPDX-License-Identifier: GPL-2.0-or-later
"""One owner for each piece of state: actions on it run one after the other.

A `Lane` is held by the owner (a VM, a domain, the network). Entering is fair (first in, first
out) and has a deadline; a message names what holds the lane, so a stuck owner is found in one look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vdsm.common.errors import AgentError


class LaneBusy(AgentError):
    owner: str
    what: str
    holder: str
    held_s: float
    msg = "{self.owner} is busy with {self.holder} for {self.held_s:.1f} s: {self.what} did not get its turn"


class Lane:
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._lock = asyncio.Lock()
        self._holder = ""
        self._since = 0.0

    @property
    def holder(self) -> str:
        """What runs now; empty when nothing does."""
        return self._holder

    @asynccontextmanager
    async def __call__(self, what: str, *, wait_s: float = 600.0) -> AsyncIterator[None]:
        """Run ``what`` alone. Raises `LaneBusy` when its turn does not come within ``wait_s``."""
        try:
            async with asyncio.timeout(wait_s):
                await self._lock.acquire()
        except TimeoutError:
            raise LaneBusy(self.owner, what, self._holder, time.monotonic() - self._since) from None
        self._holder, self._since = what, time.monotonic()
        try:
            yield
        finally:
            self._holder = ""
            self._lock.release()
