# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions to storage that a person waits for: each has `PATIENCE_S`, and storage known to be bad is not asked.

One question of a kind is under way for a domain: who asks the same meanwhile waits for that one's answer, so whoever
asks again and again, as a screen that is drawn anew does, begins nothing more on storage that hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from storage.domain import Domain
from storage.domains import Domains
from storage.errors import StorageNotResponding
from storage.flights import Flights
from storage.monitor import Monitors

T = TypeVar("T")

PATIENCE_S = 3.0


class Asking:
    def __init__(self, domains: Domains, monitors: Monitors) -> None:
        self._domains = domains
        self._monitors = monitors
        self._flights: Flights[Any] = Flights()

    async def ask(self, domain_id: str, what: str, question: Callable[[Domain], Awaitable[T]]) -> T:
        """The answer. Raises `StorageNotResponding`, what the domain's monitor has found, what the question meets."""
        if (bad := self._bad(domain_id)) is not None:
            raise bad

        async def begin() -> T:
            async with self._domains.look(domain_id) as domain:
                return await question(domain)

        return await self.wait(domain_id, what, begin)

    async def wait(self, domain_id: str, what: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The same for what needs no storage, but may hang as well. It must have a deadline of its own."""
        answer = asyncio.ensure_future(self._flights.join(f"{what} of {domain_id}", begin))
        done, _ = await asyncio.wait([answer], timeout=PATIENCE_S)
        if not done:
            answer.cancel()  # who waits goes; the flight does not
            raise StorageNotResponding(domain_id, what, PATIENCE_S)
        found: T = answer.result()
        return found

    async def close(self) -> None:
        await self._flights.close()

    def _bad(self, domain_id: str) -> BaseException | None:
        health = self._monitors.health().get(domain_id)
        return health.error if health is not None else None
