# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the host is going down: its guests are then shut down by the host, whatever their own last word is.

libvirt-guests asks each guest to end as its user would, so libvirt tells "shut down by the guest", and engines take a
VM that its user ended for one that need not run elsewhere. systemd knows: while it stops the host there is a job that
starts shutdown.target (virt.md §5.5, reason 11). A host without systemd is never going down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable

from vdsm.common import commands
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.virt")

_ASK_S = 3.0
_KNOWN_S = 2.0  # many guests end at once
FAREWELL_S = 15.0  # an engine asks every 15 s (virt.md §31)
_SYSTEMD = "/run/systemd/system"


async def ask() -> bool:
    """systemd's own word; False when it does not answer."""
    if not await asyncio.to_thread(os.path.isdir, _SYSTEMD):
        return False
    try:
        told = await commands.run(["systemctl", "list-jobs", "--no-legend", "--plain"], timeout_s=_ASK_S)
    except AgentError as e:
        log.warning("whether the host is going down is not known: %s", e)
        return False
    return is_going_down(told.out.decode(errors="replace"))


def is_going_down(jobs: str) -> bool:
    """``jobs``: lines of number, unit, type, state."""
    return any(line.split()[1:3] == ["shutdown.target", "start"] for line in jobs.splitlines())


class HostShutdown:
    """Asked once for all guests that end within `_KNOWN_S`; once it is going down, it is."""

    def __init__(self, ask: Callable[[], Awaitable[bool]] = ask, now: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._now = now
        self._down = False
        self._asked_s = float("-inf")
        self._asking: asyncio.Future[bool] | None = None

    async def goes_down(self) -> bool:
        """Whoever comes while systemd is being asked waits for that answer."""
        if self._down:
            return True
        if self._asking is None or (self._asking.done() and self._now() - self._asked_s > _KNOWN_S):
            self._asked_s = self._now()
            self._asking = asyncio.ensure_future(self._ask())
        self._down = await asyncio.shield(self._asking)
        return self._down

    async def farewell(self, listed: Callable[[], int], let_go: asyncio.Event) -> None:
        """When the host goes down, wait until no VM is ``listed`` any more, at most `FAREWELL_S`.

        ``let_go`` is set when the engine has let go of one.
        """
        if not listed() or not await self.goes_down():
            return
        log.info("the host goes down: the engine has %.0f s to see how %d VMs ended", FAREWELL_S, listed())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                while listed():
                    let_go.clear()
                    await let_go.wait()
