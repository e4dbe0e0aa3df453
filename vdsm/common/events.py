# SPDX-License-Identifier: GPL-2.0-or-later
"""Events: what the agent tells its clients without being asked.

An event is a JSON-RPC notification named ``|component|operation|unique id`` (wire.md 4.2).
Every event carries ``notify_time``, milliseconds of the field's clock (`vdsm.common.clocks.event_ms`).

An event may say in a sentence what a call was given as a secret: that is hidden, in sentences (`SENTENCES`) only. Ids,
states and numbers are words of ours that other clients read; a caller whose password is such a word damages none.

A subscriber has a bounded queue. One that does not read loses its subscription, not others'
events: publishing never waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vdsm.common import masking
from vdsm.common.clocks import event_ms

log = logging.getLogger("vdsm.events")

# the engine refuses an event whose last part is empty (wire.md 4.2)
NO_ID = "no_id"

SENTENCES = frozenset({"message", "exitMessage", "description", "stderr"})


@dataclass(frozen=True)
class Event:
    component: str
    operation: str
    unique_id: str
    params: Mapping[str, Any]

    @property
    def method(self) -> str:
        return f"|{self.component}|{self.operation}|{self.unique_id}"


class Subscription:
    """An asynchronous iterator of events; it ends when closed or when its queue overflowed."""

    def __init__(self, events: Events, max_queue: int, name: str) -> None:
        self.name = name
        self.overflowed = False
        self._events = events
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(max_queue + 1)
        self._max = max_queue

    def _put(self, event: Event) -> None:
        if self._queue.qsize() >= self._max:
            self.overflowed = True
            log.warning("subscriber %s does not read its events: dropped after %d", self.name, self._max)
            self.close()
        else:
            self._queue.put_nowait(event)

    def close(self) -> None:
        if self in self._events.subscriptions:
            self._events.subscriptions.remove(self)
            self._queue.put_nowait(None)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        event = await self._queue.get()
        if event is None:
            raise StopAsyncIteration
        return event


class Events:
    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []

    def publish(self, component: str, operation: str, unique_id: str, params: Mapping[str, Any]) -> None:
        told = masking.hide_in_members(params, SENTENCES)
        event = Event(component, operation, unique_id or NO_ID, {**told, "notify_time": event_ms()})
        for subscription in list(self.subscriptions):
            subscription._put(event)

    def subscribe(self, name: str, *, max_queue: int = 1000) -> Subscription:
        subscription = Subscription(self, max_queue, name)
        self.subscriptions.append(subscription)
        return subscription
