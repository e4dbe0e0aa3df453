# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that were given up, by what they hang on.

A process that waits in the kernel (dead storage, mostly) does not die when it is killed. Nobody waits for it; it is
counted until the kernel lets it go. While `MOST` of them hang on one place, nothing more is begun there: a dead mount
costs no more processes than these, whoever asks.

A place is a name: of a mount its path, so that all that runs on it is counted together. Who waits for a turn there can
be `told`, and need not wait for what is not going to begin.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from vdsm.common import metrics
from vdsm.common.errors import AgentError

MOST = 2
SETTLE_S = 0.2
"""So long those that were killed just now, and do not hang, are waited for."""

_HANGING = metrics.gauge("vdsm_processes_hanging", "Processes that were killed and have not ended yet")

_on: dict[str, dict[asyncio.Future[Any], int]] = {}
_listeners: dict[str, dict[object, Callable[[], None]]] = {}


class PlaceHangs(AgentError):
    place: str
    count: int
    msg = "Nothing more is begun on {self.place}: {self.count} processes hang there in the kernel"
    remedy = "Bring that storage back, or disconnect it"


def give_up(place: str, pid: int, end: asyncio.Future[Any]) -> None:
    """Count a killed process, which is one of ours, until ``end`` is done."""
    _on.setdefault(place, {})[end] = pid
    _HANGING.inc()
    end.add_done_callback(lambda _: _forget(place, end))
    if len(pids(place)) >= MOST:
        asyncio.get_running_loop().call_later(SETTLE_S, _tell, place)


@contextlib.contextmanager
def told(place: str, tell: Callable[[], None]) -> Iterator[None]:
    """Meanwhile ``tell`` is called when, and each time when, nothing more may be begun there from now on."""
    me = object()
    _listeners.setdefault(place, {})[me] = tell
    try:
        yield
    finally:
        left = _listeners[place]
        del left[me]
        if not left:
            del _listeners[place]


def pids(place: str) -> list[int]:
    """Of those that were given up there and still exist."""
    return list(_on.get(place, {}).values())


async def settle(place: str, timeout_s: float = SETTLE_S) -> None:
    """Wait until none is left there, but not longer."""
    if left := _on.get(place):
        await asyncio.wait(list(left), timeout=timeout_s)


async def check(place: str) -> None:
    """Raises `PlaceHangs` when nothing more may be begun there."""
    if place and len(pids(place)) >= MOST:
        await settle(place)
        if len(left := pids(place)) >= MOST:
            raise PlaceHangs(place, len(left))


def _tell(place: str) -> None:
    if len(pids(place)) >= MOST:
        for tell in list(_listeners.get(place, {}).values()):
            tell()


def _forget(place: str, end: asyncio.Future[Any]) -> None:
    _HANGING.dec()
    left = _on[place]
    del left[end]
    if not left:
        del _on[place]
