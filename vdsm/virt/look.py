# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at one VM's domain: events only say that something happened, the state is what a look finds.

    event -> look begins -> (more events: one more look follows) -> libvirt answers -> state taken over
                                                                  -> no answer: again after 0.25, 0.5, 1 ... 30 s
    stop  -> the look that is under way is dropped, a new one begins at once

One look of a VM at a time, so an older answer never overwrites a newer one; and a look that got no answer is
made again until there is one, because the end of a VM may be what it would have seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

RETRY_FIRST_S, RETRY_LAST_S = 0.25, 30.0


class Look:
    def __init__(self, vm_id: str, look: Callable[[], Awaitable[bool]], *, retry_s: float = RETRY_FIRST_S) -> None:
        """``look`` is True when it was answered."""
        self._vm_id = vm_id
        self._look = look
        self._retry_s = retry_s
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> asyncio.Task[None]:
        """Something happened. The task ends when a look that began after this call was answered, or was dropped."""
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"look at {self._vm_id}")
        return self._task

    def at_once(self) -> asyncio.Task[None]:
        """As `soon`, but whoever waits for an answer now would wait for an old one."""
        self.cancel()
        self._task = None
        return self.soon()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        pause_s = self._retry_s
        while self._wanted:
            self._wanted = False
            if await self._look():
                pause_s = self._retry_s
                continue
            self._wanted = True
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_LAST_S)
