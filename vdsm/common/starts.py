# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts of child processes, and the end of a process of ours that may be in the midst of one.

- Whoever is cancelled while its child starts leaves at once; the child is ended as soon as it is there.
- `run` is `asyncio.run` for a process that starts children. asyncio's own cancels, when the main coroutine has ended,
  all tasks that are left: also the one of its own that connects a new child's pipes. The start then waits for ever for
  the end of these pipes, and so does the process. So, before that, starts under way are waited for, and from then on
  none begins: whoever asks for one is cancelled, as it is about to be anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger("vdsm.commands")

START_S = 5.0
"""A start takes some turns of the loop. One that takes longer does not keep us."""

_under_way: set[asyncio.Future[Any]] = set()
_none_begins = False


async def started_or_ended(start: Coroutine[Any, Any, T], end: Callable[[T], object]) -> T:
    """What ``start`` returns. When the caller is cancelled meanwhile, ``end`` is called with it.

    The loop's own way kills the child alone, and waits for whoever of its group has its pipes.
    """
    if _none_begins:
        start.close()
        raise asyncio.CancelledError
    starting = asyncio.ensure_future(start)
    _under_way.add(starting)
    starting.add_done_callback(_under_way.discard)
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(lambda done: _end(done, end))
        raise


def run(main: Coroutine[Any, Any, T]) -> T:
    """The result of ``main``, after which no child is about to start and the loop's tasks are cancelled."""
    global _none_begins  # noqa: PLW0603 - one loop a process, which this one ends
    try:
        return asyncio.run(_before_starts_end(main))
    finally:
        _none_begins = False


async def _before_starts_end(main: Coroutine[Any, Any, T]) -> T:
    global _none_begins  # noqa: PLW0603 - see `run`
    try:
        return await main
    finally:
        _none_begins = True
        if _under_way:
            _, left = await asyncio.wait(_under_way, timeout=START_S)
            if left:
                log.error("%d starts of child processes do not end", len(left))


def _end(starting: asyncio.Future[T], end: Callable[[T], object]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        end(starting.result())
