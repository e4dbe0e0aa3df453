# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that is not left half done when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

log = logging.getLogger("vdsm.storage.tasks")


async def to_its_end(work: Awaitable[None]) -> None:
    """Not left half done when the waiting task is cancelled: the cancel counts after it."""
    inner = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not inner.done():
        try:
            await asyncio.shield(inner)
        except asyncio.CancelledError as e:
            if inner.cancelled():
                raise
            cancelled = e
        except BaseException:  # noqa: BLE001 - of the work itself: raised below
            break
    if cancelled is not None:
        if not inner.cancelled() and inner.exception() is not None:
            log.error("what nobody waits for any more failed: %s", inner.exception())
        raise cancelled
    inner.result()
