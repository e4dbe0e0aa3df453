# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocking lease calls, each in a daemon thread of its own, with a deadline.

A lock daemon answers when its storage does. A call that misses its deadline goes on in its thread
(nothing can stop it); when it succeeds after all, ``undo`` takes its effect back in that thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from storage.errors import SanlockUnavailable
from vdsm.common.errors import DeadlineExceeded

log = logging.getLogger("vdsm.storage.leases")

T = TypeVar("T")

MAX_THREADS = 50

_running: set[threading.Thread] = set()


async def in_thread(
    what: str,
    timeout_s: float,
    call: Callable[[], T],
    undo: Callable[[], None] | None = None,
) -> T:
    """The call's result or its error. Raises `DeadlineExceeded`; `SanlockUnavailable` when too many calls hang."""
    if len(_running) >= MAX_THREADS:
        raise SanlockUnavailable(f"{len(_running)} calls are waiting for it")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    guard = threading.Lock()  # either the result is taken, or the caller has left: never both, never neither
    errors: list[BaseException | None] = []
    left = False

    def settle(result: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, error = call(), None
        except BaseException as e:  # noqa: BLE001 - handed to the waiting task, or logged when it has left
            result, error = None, e
        finally:
            _running.discard(threading.current_thread())
        with guard:
            late = left
            errors.append(error)
        if late:
            _late(what, error, undo)
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                loop.call_soon_threadsafe(settle, result, error)

    thread = threading.Thread(target=run, name=what[:60], daemon=True)
    _running.add(thread)
    thread.start()
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(answer)
    except (TimeoutError, asyncio.CancelledError) as e:
        if answer.done() and answer.exception() is e:
            raise  # the call's own
        with guard:
            left = True
            ended = bool(errors)
        if ended:  # in the same moment: its result is on the way to nobody
            threading.Thread(target=_late, args=(what, errors[0], undo), daemon=True).start()
        if isinstance(e, TimeoutError):
            raise DeadlineExceeded(what, timeout_s) from None
        raise


def _late(what: str, error: BaseException | None, undo: Callable[[], None] | None) -> None:
    if error is not None:
        log.warning("%s failed after nobody waited for it any more: %s", what, error)
        return
    log.warning("%s succeeded after nobody waited for it any more%s", what, ": undone" if undo else "")
    if undo is not None:
        try:
            undo()
        except Exception:  # a late clean-up has no caller; the log is all there is
            log.exception("undoing %s failed", what)
