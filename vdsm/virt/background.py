# SPDX-License-Identifier: GPL-2.0-or-later
"""Work about VMs that goes on when whoever asked for it leaves, and ends with the agent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.virt")


class Background:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    def spawn(self, work: Awaitable[None], name: str) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        if isinstance(task, asyncio.Task):
            task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        for task in [task for task in self._tasks if not task.done()]:
            task.cancel()
            await asyncio.wait([task])

    def _ended(self, task: asyncio.Future[Any]) -> None:
        """Whoever waits for it hears how; an error of ours was logged where it happened."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, AgentError):
            log.error("a task of VMs failed", exc_info=error)
