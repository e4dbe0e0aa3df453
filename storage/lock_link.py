# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks of the agent's table for a process that the agent started, over their link: the process's side.

``lock.take`` names the whole set and is answered when all of it is granted, or refused. ``lock.give_back`` ends it, and
takes one that waits still out of the queue: who was cancelled waits for nothing. What the agent's verb holds itself
while it asks us comes with its call (``grant``): it is not taken again, which would wait for itself, but
kept until the call has been served, whatever becomes of the verb.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from storage.locks import WAIT_S, Lock, in_order
from vdsm.common.errors import DeadlineExceeded
from vdsm.common.link import Link, LinkClosed, Serve
from vdsm.common.types import Json

log = logging.getLogger("vdsm.storage.locks")

TAKE = "lock.take"
GIVE_BACK = "lock.give_back"
LENT = "grant"
ANSWER_S = 30.0


class LocksByLink:
    """`storage.locks.LockTable` over the link to the agent."""

    link: Link
    """Set before the first flow asks."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def hold(self, wanted: Iterable[Lock], *, who: str, wait_s: float = WAIT_S) -> AsyncIterator[None]:
        locks: list[Json] = [[lock.namespace, lock.name, lock.mode.value] for lock in in_order(wanted)]
        if not locks:
            yield
            return
        number = next(self._numbers)
        asked: dict[str, Json] = {"number": number, "locks": locks, "who": who, "wait_s": wait_s}
        try:
            await self.link.call(TAKE, asked, timeout_s=wait_s + ANSWER_S)
            yield
        finally:
            await asyncio.shield(self._give_back(number))

    def under_grants(self, serve: Serve) -> Serve:
        """``serve``, with what the agent's verb holds kept until it has been served."""

        async def kept(verb: str, params: dict[str, Any]) -> Json:
            lent = params.pop(LENT, None)
            if lent is None:
                return await serve(verb, params)
            try:
                return await serve(verb, params)
            finally:
                await asyncio.shield(self._give_back(lent))

        return kept

    async def _give_back(self, number: int) -> None:
        try:
            await self.link.call(GIVE_BACK, {"number": number}, timeout_s=ANSWER_S)
        except LinkClosed:  # the agent gives it back when we have ended
            pass
        except DeadlineExceeded as e:  # it will, once it goes on
            log.warning("the agent does not tell that it took a lock back: %s", e)
