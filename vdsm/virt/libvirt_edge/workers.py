# SPDX-License-Identifier: GPL-2.0-or-later
"""A bounded pool of threads for calls that may hang in libvirt.

Python can't interrupt a thread in C code. So a call whose deadline passes is given up: the caller
gets `DeadlineExceeded`, its thread counts as stuck and another takes its place, up to a limit; a
stuck thread that comes back ends. Threads are daemonic: a hung call can't keep the process alive.

Invariant: threads = size + stuck (while stuck <= limit). A call that waits in the queue until its
deadline is never started.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeVar

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import TooManyStuckCalls

T = TypeVar("T")


class _Phase(Enum):
    QUEUED = auto()
    RUNNING = auto()
    DONE = auto()
    GIVEN_UP = auto()


@dataclass
class _Call:
    run: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    context: contextvars.Context
    phase: _Phase = _Phase.QUEUED
    lock: threading.Lock = field(default_factory=threading.Lock)

    def move(self, before: _Phase, after: _Phase) -> bool:
        with self.lock:
            if self.phase is not before:
                return False
            self.phase = after
            return True


class Workers:
    """Used from one event loop; only the queue and the calls are shared with the threads."""

    def __init__(self, name: str, size: int, *, stuck_limit: int = 8) -> None:
        self.name = name
        self.stuck = 0
        self._stuck_limit = stuck_limit
        self._size = size
        self._threads = 0
        self._idle = 0
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()

    async def call(self, what: str, timeout_s: float, run: Callable[[], T]) -> T:
        """Run ``run`` in a thread. `DeadlineExceeded` after ``timeout_s``; the call itself may go on."""
        if self.stuck >= self._stuck_limit:
            raise TooManyStuckCalls(self.name, self.stuck)
        loop = asyncio.get_running_loop()
        call = _Call(run, loop, loop.create_future(), contextvars.copy_context())
        self._enqueue(call)
        done, _ = await asyncio.wait([call.future], timeout=timeout_s)
        if done:
            result: T = call.future.result()
            return result
        if not call.move(_Phase.QUEUED, _Phase.GIVEN_UP) and call.move(_Phase.RUNNING, _Phase.GIVEN_UP):
            self._replace_stuck()
        raise DeadlineExceeded(what, timeout_s)

    def stop(self) -> None:
        """Let the threads end; stuck ones stay until the process ends."""
        for _ in range(self._threads):
            self._queue.put(None)
        self._threads = 0

    def _enqueue(self, call: _Call) -> None:
        self._queue.put(call)
        if self._idle:
            self._idle -= 1
        elif self._threads < self._size:
            self._spawn()

    def _spawn(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=f"{self.name}/{self._threads}", daemon=True).start()

    def _replace_stuck(self) -> None:
        self.stuck += 1
        self._threads -= 1
        if self.stuck < self._stuck_limit:
            self._spawn()

    def _came_back(self) -> None:
        self.stuck -= 1

    def _finished(self, call: _Call, result: object, error: BaseException | None) -> None:
        self._idle += 1
        if call.future.done():
            return
        if error is None:
            call.future.set_result(result)
        else:
            call.future.set_exception(error)

    def _work(self) -> None:
        goes_on = True
        while goes_on:
            goes_on = self._work_once()

    def _work_once(self) -> bool:
        """Its own function, so that a thread which waits holds nothing of its last call. False: the thread ends."""
        call = self._queue.get()
        if call is None:
            return False
        if not call.move(_Phase.QUEUED, _Phase.RUNNING):
            return True
        result, error = None, None
        try:
            result = call.context.run(call.run)
        except BaseException as e:  # noqa: BLE001 - the caller's future carries it
            error = e
        if call.move(_Phase.RUNNING, _Phase.DONE):
            _tell(call.loop, self._finished, call, result, error)
            return True
        _tell(call.loop, self._came_back)
        return False


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return
