# SPDX-License-Identifier: GPL-2.0-or-later
"""The lanes of a mount: what waits behind what.

| lane | for | at once |
|---|---|---|
| health | probe and free space: behind nothing but another look at the same mount's health | 1 |
| metadata | small requests; those of one domain in the order in which they were asked for | 2 |
| mail | the mailbox: reads and writes past the page cache, never behind metadata or bulk | 1 |
| bulk | allocating and removing: as long as it goes forward | 3 |

Turns are given first come, first served; a domain waits for one turn in the metadata lane at a time, so many requests
of one domain keep no other from its turn.

A request's patience covers its wait. In the bulk lane it is for silence: it begins anew whenever one that has its turn
there tells that it goes forward. When the mount hangs (`vdsm.common.hanging`), nobody waits any longer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import StrEnum

from vdsm.common import hanging


class Lane(StrEnum):
    HEALTH = "health"
    METADATA = "metadata"
    MAIL = "mail"
    BULK = "bulk"


WIDTHS = {Lane.HEALTH: 1, Lane.METADATA: 2, Lane.MAIL: 1, Lane.BULK: 3}

MOST_HELPERS = sum(WIDTHS.values()) + hanging.MOST - 1
"""Helpers of one mount in one process, those that hang included: none is started while `hanging.MOST` hang."""


class Turns:
    """Of one lane."""

    def __init__(self, mount: str, width: int) -> None:
        self._mount = mount
        self._free = asyncio.Semaphore(width)
        self._waiting: dict[asyncio.Timeout, float] = {}

    @property
    def turn(self) -> asyncio.Semaphore:
        """To be entered within `patience`."""
        return self._free

    @contextlib.asynccontextmanager
    async def patience(self, limit_s: float) -> AsyncIterator[None]:
        """Raises `TimeoutError` when what is within takes longer, or is waited for in vain since the mount hangs."""
        async with asyncio.timeout(limit_s) as limit:
            self._waiting[limit] = limit_s
            try:
                with hanging.told(self._mount, lambda: self._lose(limit)):
                    yield
            finally:
                self._waiting.pop(limit, None)

    def goes_forward(self) -> None:
        """Who waits is patient from now on."""
        now = asyncio.get_running_loop().time()
        for limit, limit_s in self._waiting.items():
            if not limit.expired():
                limit.reschedule(now + limit_s)

    def _lose(self, limit: asyncio.Timeout) -> None:
        self._waiting.pop(limit, None)
        if not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time())
