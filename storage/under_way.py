# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes that may outlast their callers' patience: the caller is told how far it is, the change goes on.

A change that takes a lease may wait for minutes: its last owner died, and is known to be dead after 8 I/O timeouts and
60 s. An engine gives a call up after 180 s and then knows nothing. So a caller hears after `ANSWER_S` at most: the
result, the error, or that it is under way and what it is at. A change is never cut off by that. How it ended
is told by the log and an event then, since nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from storage.spm.errors import ChangeUnderWay
from vdsm.common import masking

log = logging.getLogger("vdsm.storage")

T = TypeVar("T")

ANSWER_S = 150.0
"""Over the 140 s that a dead owner of a lease takes, below the 180 s of an engine."""

Tell = Callable[[str, str], None]
"""Called with the domain or pool, and a sentence."""


class Step:
    """What a change is at, as the end of a sentence."""

    def __init__(self, at: str) -> None:
        self.at = at

    def take(self, at: str) -> None:
        self.at = at


@dataclass(frozen=True)
class Change:
    """One that is under way, for people."""

    what: str
    about: str
    at: str
    seconds: float


class UnderWay:
    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._changes: dict[asyncio.Task[Any], tuple[str, str, Step, float]] = {}

    def changes(self) -> list[Change]:
        now = time.monotonic()
        return [Change(what, about, step.at, now - since) for what, about, step, since in self._changes.values()]

    async def wait(self, what: str, about: str, step: Step, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives. ``what`` begins a sentence. Raises what it raises, and `ChangeUnderWay`."""
        change = asyncio.get_running_loop().create_task(work, name=what, context=masking.outside())
        self._changes[change] = (what, about, step, time.monotonic())
        change.add_done_callback(self._changes.pop)
        try:
            done, _ = await asyncio.wait([change], timeout=ANSWER_S)
        except asyncio.CancelledError:
            self._tell_later(change, what, about)
            raise
        if done:
            return change.result()
        self._tell_later(change, what, about)
        raise ChangeUnderWay(what, ANSWER_S, step.at)

    async def stop(self) -> None:
        """With the agent."""
        changes = list(self._changes)
        for change in changes:
            change.cancel()
        await asyncio.gather(*changes, return_exceptions=True)

    def _tell_later(self, change: asyncio.Task[Any], what: str, about: str) -> None:
        def ended(_: object) -> None:
            if change.cancelled():
                return
            error = change.exception()
            if error is None:
                sentence = f"{what} has ended well"
                log.warning("%s after nobody waited for it any more", sentence)
            else:
                sentence = f"{what} has failed: {error}"
                log.error("%s", sentence)
            self._tell(about, sentence)

        change.add_done_callback(ended)
