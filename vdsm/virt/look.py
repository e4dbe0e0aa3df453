# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at one VM's domain: events only say that something happened, the state is what a look finds.

    wish 1 -> look begins -> wishes 2, 3 -> libvirt answers: taken, wish 1 is done -> one look for 2 and 3
                                         -> no answer: tried again after 0.25, 0.5, 1 ... 30 s, at once at a new wish
    at_once -> whoever waits for an answer now would wait for an old one: that look is dropped, a new one begins

Wishes are numbered: a look that began with wish n knows everything that happened before it. At most one look is awaited
at a time and what a dropped one finds is never taken, so an older answer never overwrites a newer one; and a look that
got no answer is made again until there is one, because the end of a VM may be what it would have seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import DomainMissing, VirtError
from vdsm.virt.hypervisor import Domain

log = logging.getLogger("vdsm.virt")

RETRY_FIRST_S, RETRY_LAST_S = 0.25, 30.0


class Look:
    def __init__(
        self,
        vm_id: str,
        read: Callable[[str], Awaitable[Domain]],
        take: Callable[[Domain | None, int], None],
        *,
        retry_s: float = RETRY_FIRST_S,
    ) -> None:
        """``take`` gets what libvirt has of the VM, None for nothing, and the number of the wish that it answers."""
        self._vm_id = vm_id
        self._read = read
        self._take = take
        self._retry_s = retry_s
        self.wished = 0  # the number of the newest wish
        self._done = 0
        self._wake = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[bool]]] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def soon(self) -> None:
        """Something happened: a look that begins after this call will be taken."""
        if self._closed:
            return
        self.wished += 1
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"look at {self._vm_id}")

    def at_once(self) -> None:
        """As `soon`, and what libvirt has not answered yet is not waited for."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.soon()

    async def fresh(self) -> bool:
        """Wait until a look that began after this call was taken; False when its first try got no answer."""
        self.soon()
        if self._closed:
            return False
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((self.wished, answered))
        return await answered

    def close(self) -> None:
        """No more looks; who waits for one hears that there is no answer."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        self._tell(self.wished, answer=False)

    async def _run(self) -> None:
        pause_s = self._retry_s
        while self._done < self.wished:
            self._wake.clear()
            number = self.wished
            try:
                seen = await self._ask()
            except (VirtError, DeadlineExceeded) as e:
                log.warning("VM %s: %s", self._vm_id, e)
                self._tell(number, answer=False)
                await self._pause(pause_s)
                pause_s = min(2 * pause_s, RETRY_LAST_S)
                continue
            pause_s = self._retry_s
            self._done = number
            try:
                self._take(seen, number)
            except Exception:  # a defect: told, and the next event looks again
                log.exception("VM %s: what libvirt says of it could not be taken over", self._vm_id)
            self._tell(number, answer=True)

    async def _ask(self) -> Domain | None:
        try:
            return await self._read(self._vm_id)
        except DomainMissing:
            return None

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _tell(self, number: int, *, answer: bool) -> None:
        left = []
        for wanted, future in self._waiting:
            if wanted > number:
                left.append((wanted, future))
            elif not future.done():
                future.set_result(answer)
        self._waiting = left
