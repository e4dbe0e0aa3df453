# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at places that may hang, each for what it holds: shared by all who ask, none of them waiting for a dead one.

Of one place at most one look runs and one more waits for it to end. `Looks.fresh` shows all that was there before it
was asked for; `Looks.search` takes what a running look finds and asks for a fresh one only when that finds nothing.

Timeline of a place that died: the first search waits for the deadline of its look; the next ones `SILENT_S`, in
which a place that came back has answered; meanwhile it is looked at again, once for all.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable

from storage.errors import StorageNotResponding
from vdsm.common import masking
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.storage.domains")

SILENT_S = 1.0

Found = Collection[str]
Look = Callable[[str], Awaitable[Found]]
"""What a place holds. It has a deadline of its own. Raises `AgentError`."""


class Looks:
    def __init__(self, look: Look) -> None:
        self._look = look
        self._running: dict[str, asyncio.Task[Found]] = {}
        self._waiting: dict[str, asyncio.Task[Found]] = {}
        self._begun: Counter[str] = Counter()
        self._silent: set[str] = set()

    async def search(self, places: Iterable[str], wanted: str) -> tuple[str | None, list[str]]:
        """The place that holds it, as soon as that one answers; else the places that did not answer."""
        asked = {asyncio.ensure_future(self._answer(place, wanted)): place for place in places}
        waiting, silent = set(asked), []
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    if one.result():
                        return asked[one], []
                    if one.result() is None:
                        silent.append(asked[one])
        finally:
            for one in waiting:  # the looks themselves go on, for whoever asks next
                one.cancel()
        return None, sorted(silent)

    async def fresh(self, place: str) -> Found:
        """All that was there before this call. Raises what the look does."""
        return await self._within_patience(place, self._begin_fresh(place))

    def forget(self, place: str) -> None:
        """It is another one when it comes again."""
        self._silent.discard(place)

    async def close(self) -> None:
        """Cancel what runs; who waits is cancelled with it."""
        looks = [*self._waiting.values(), *self._running.values()]
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    async def _answer(self, place: str, wanted: str) -> bool | None:
        """None when the place does not answer."""
        asked = self._begun[place]
        try:
            running = self._running.get(place)
            if running is not None and wanted in await self._within_patience(place, running):
                return True
            # of those who waited with us the first begins it
            later = self._running.get(place) if self._begun[place] > asked else None
            return wanted in await self._within_patience(place, later or self._begin_fresh(place))
        except AgentError:  # told by the look itself
            return None

    async def _within_patience(self, place: str, look: asyncio.Task[Found]) -> Found:
        patience_s = SILENT_S if place in self._silent else None
        done, _ = await asyncio.wait([look], timeout=patience_s)
        if not done:
            raise StorageNotResponding(place, "looking for domains", SILENT_S)
        return look.result()

    def _begin_fresh(self, place: str) -> asyncio.Task[Found]:
        running = self._running.get(place)
        if running is None:
            return self._begin(place)
        if place not in self._waiting:
            self._waiting[place] = self._spawn(place, self._after(running, place))
        return self._waiting[place]

    async def _after(self, running: asyncio.Task[Found], place: str) -> Found:
        await asyncio.wait([running])
        del self._waiting[place]
        return await asyncio.shield(self._running.get(place) or self._begin(place))

    def _begin(self, place: str) -> asyncio.Task[Found]:
        self._begun[place] += 1
        look = self._running[place] = self._spawn(place, self._looked(place))
        return look

    async def _looked(self, place: str) -> Found:
        try:
            found = await self._look(place)
        except AgentError as e:
            if place not in self._silent:
                log.warning("%s was not searched for domains: %s", place, e)
            self._silent.add(place)
            raise
        else:
            self._silent.discard(place)
            return found
        finally:
            del self._running[place]

    @staticmethod
    def _spawn(place: str, work: Awaitable[Found]) -> asyncio.Task[Found]:
        async def run() -> Found:
            return await work

        task = asyncio.get_running_loop().create_task(run(), name=f"look at {place}", context=masking.outside())
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # told to whoever waits
        return task
