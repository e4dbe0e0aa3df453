# SPDX-License-Identifier: GPL-2.0-or-later
"""An event loop whose time jumps: deadlines, retries and periods cost nothing, and every run is the same.

`Clock` is the time of a host: what happens there (`at`) happens whether or not an agent lives. `VirtualLoop` is the
life of one agent on it: when nothing is ready it moves the clock to what comes next. A loop that is dropped takes its
tasks with it at that instant, as SIGKILL does.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_BURIALS = 100
_SPINS = 5_000  # rounds of a loop in which no time passes: nobody waits for anything


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def at(self, seconds: float, work: Callable[[], None]) -> None:
        """So many seconds from now. Works of one moment come in the order in which they were asked for."""
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), work))

    def step(self, seconds: float) -> None:
        """To the next work, but no further than this; that work is done."""
        until = self.now + seconds
        if self._due and self._due[0][0] <= until:
            when, _, work = heapq.heappop(self._due)
            self.now = max(self.now, when)
            work()
        else:
            self.now = until


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self, clock: Clock, failed: Callable[[str], None], thread_s: Callable[[], float]) -> None:
        """``failed`` hears what nobody caught; ``thread_s``: how long the next work in a thread takes."""
        super().__init__()
        self._clock = clock
        self._thread_s = thread_s
        self._selector = self  # asked how long to sleep
        self._spins = 0
        self._buried = False
        self._moment = clock.now
        self.set_exception_handler(lambda _loop, context: failed(f"{context['message']}: {context.get('exception')!r}"))

    def time(self) -> float:
        return self._clock.now

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        self._spins = self._spins + 1 if self._moment == self._clock.now else 0
        self._moment = self._clock.now
        if self._spins > _SPINS:
            raise RuntimeError("the loop is busy for ever")
        if timeout > 0:
            self._clock.step(timeout)
        return []

    def run_in_executor(self, _executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """What a thread does is done at one moment, a little later."""
        future: asyncio.Future[T] = self.create_future()
        if self._buried:
            return future

        def run() -> None:
            try:
                result = func(*args)
            except Exception as e:
                if not future.done():
                    future.set_exception(e)
                return
            if not future.done():
                future.set_result(result)

        self.call_later(self._thread_s(), run)
        return future

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.run_until_complete(work)

    def advance(self, seconds: float) -> None:
        self.run_until_complete(asyncio.sleep(seconds))

    def bury(self) -> None:
        """Let go of what a dropped loop still holds, in a time of its own and without threads."""
        self._clock = Clock(self._clock.now)
        self._buried = True
        self.set_exception_handler(lambda _loop, _context: None)
        for _ in range(_BURIALS):
            if not (tasks := asyncio.all_tasks(self)):
                break
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.sleep(0))
        self.close()

    def _process_events(self, _events: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...
