# SPDX-License-Identifier: GPL-2.0-or-later
"""Single flight: who asks for what is being found out already waits for that answer, not for one of its own.

So the n-th caller of a dead domain waits as long as the first, not n times as long. The work belongs to
nobody's call: a caller that goes away cancels nothing. It must have a deadline of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from vdsm.common import masking

T = TypeVar("T")


class Flights(Generic[T]):
    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[T]] = {}

    async def join(self, key: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result, or the error, of the flight that runs; ``begin`` starts one when none does."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.get_running_loop().create_task(
                begin(), name=f"flight {key}", context=masking.outside()
            )
            task.add_done_callback(lambda ended: self._landed(key, ended))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel what runs; who waits is cancelled with it."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _landed(self, key: str, task: asyncio.Task[T]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # told to whoever waits; nobody may
