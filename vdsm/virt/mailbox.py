# SPDX-License-Identifier: GPL-2.0-or-later
"""Two lanes of one VM: what happens to it, and what scripts want to hear of it.

    event lane   milliseconds each, in order: what libvirt told, answered from memory and the record. It waits for no
                 hook, guest, storage or host-wide limit, so a full disk or a hung script never delays an I/O error.
    hook lane    after_* hooks, in order, each with its own deadline and under the host's limit of hooks at once.

Nothing of either runs on libvirt's thread. The event lane is bounded: a guest can make events as fast as it likes (its
clock, its power button), and what does not fit is dropped with a look in its place, which finds what is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.virt")

EVENTS_LIMIT = 200
HOOKS_LIMIT = 100

Work = Callable[[], Awaitable[None]]


class Lane:
    """Works off what is posted, one after the other. A failure is told and costs nothing but itself."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._queue: deque[tuple[str, Work]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def post(self, what: str, work: Work) -> bool:
        """False when the lane is full: it is dropped. A closed one takes all, and does nothing."""
        if self._closed:
            return True
        if len(self._queue) >= self._limit:
            return False
        self._queue.append((what, work))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=self._name)
        return True

    def close(self) -> None:
        self._closed = True
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._queue:
            what, work = self._queue.popleft()
            try:
                await work()
            except AgentError as e:
                log.error("%s: %s: %s", self._name, what, e)
            except Exception:  # a defect in one reaction must not end the others'
                log.exception("%s: %s", self._name, what)


class Mailbox:
    def __init__(self, vm_id: str, hook_slots: asyncio.Semaphore) -> None:
        """``hook_slots``: the host's limit of hooks that run at once behind events."""
        self._events = Lane(f"events of VM {vm_id}", EVENTS_LIMIT)
        self._hooks = Lane(f"hooks of VM {vm_id}", HOOKS_LIMIT)
        self._hook_slots = hook_slots

    def event(self, what: str, work: Work) -> bool:
        """False when it was dropped."""
        return self._events.post(what, work)

    def hook(self, point: str, work: Work) -> None:
        async def in_slot() -> None:
            async with self._hook_slots:
                await work()

        if not self._hooks.post(point, in_slot):
            log.error("the hook %s is left out: too many wait before it", point)

    def close(self) -> None:
        self._events.close()
        self._hooks.close()
