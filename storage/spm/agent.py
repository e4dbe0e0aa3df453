# SPDX-License-Identifier: GPL-2.0-or-later
"""What the SPM process asks of the agent that started it: who uses a volume on this host, and to tell people.

Only the agent knows which images are prepared here and for whom. So a removal is announced to it first: it refuses
one of volumes in use, naming the users, and while the removal lasts it prepares none of them. What was announced
ends with the SPM process, if not before.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

from vdsm.common.link import Link, LinkClosed

ASK_S = 30.0

ODD_TASK = "odd_task"
STEP = "step"


class Agent(Protocol):
    def removing(self, domain_id: str, image_id: str, volume_ids: Sequence[str]) -> AbstractAsyncContextManager[None]:
        """While these volumes are removed. Raises `VolumesInUse`."""

    async def tell_odd_task(self, what: str) -> None:
        """Something in the tasks' folder that is no task: an event for people and programs that watch."""

    async def master_moved(self, domain_id: str, version: int) -> None:
        """The pool's master is this domain, by this version of the pool: as good as the metadata that says so."""


class AgentByLink:
    """`Agent` over the link to the agent."""

    link: Link
    """Set before the first verb is served, which is the first to ask."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def removing(self, domain_id: str, image_id: str, volume_ids: Sequence[str]) -> AsyncIterator[None]:
        number = next(self._numbers)
        ids = {"domain_id": domain_id, "image_id": image_id, "volume_ids": list(volume_ids)}
        try:
            await self.link.call("removal.begin", {"number": number, **ids}, timeout_s=ASK_S)
            yield
        finally:
            await asyncio.shield(self._end(number))

    async def tell_odd_task(self, what: str) -> None:
        with suppress(LinkClosed):
            await self.link.notify(ODD_TASK, {"what": what})

    async def tell_step(self, what: str) -> None:
        """What this process is at, for who waits for it."""
        with suppress(LinkClosed):
            await self.link.notify(STEP, {"what": what})

    async def master_moved(self, domain_id: str, version: int) -> None:
        with suppress(LinkClosed):  # an agent that went is told by its engine
            await self.link.call("master.moved", {"domain_id": domain_id, "version": version}, timeout_s=ASK_S)

    async def _end(self, number: int) -> None:
        with suppress(LinkClosed):  # then the agent has ended it
            await self.link.call("removal.end", {"number": number}, timeout_s=ASK_S)
