# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing waits for ever: the one way to bound a wait.

A deadline ends the waiting, never the work of an owner: what must reach done or undone
runs in a task of its own, shielded from the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vdsm.common.errors import DeadlineExceeded


@asynccontextmanager
async def deadline(what: str, seconds: float) -> AsyncIterator[None]:
    """Raise `DeadlineExceeded` naming ``what`` when the body lasts longer than ``seconds``.

    A timeout that the body raises by itself passes unchanged.
    """
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            yield
    except TimeoutError:
        if timer.expired():
            raise DeadlineExceeded(what, seconds) from None
        raise
