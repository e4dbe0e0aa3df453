# SPDX-License-Identifier: GPL-2.0-or-later
"""One open connection that carries messages both ways: answers go to who asked, notifications into a queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from vdsm.client import messages
from vdsm.client.errors import ConnectionLost

log = logging.getLogger("vdsm.client")

MAX_EVENTS = 10_000
CLOSE_S = 1.0  # nobody waits for an answer any more: a peer gets no longer than this to part in order


class Line(Protocol):
    """A connection below: whole messages, whatever frames they travel in."""

    async def send(self, message: bytes, flow_id: str) -> None:
        """Raises `ConnectionError` or `OSError` when it is broken."""
        ...

    def messages(self) -> AsyncGenerator[bytes, None]:
        """Until the peer closes in order; raises `ConnectionLost` when it does not. Who ends it ends the line."""
        ...

    async def close(self) -> None:
        """Within `CLOSE_S`, whatever the peer does; `messages` ends with it."""
        ...


class Channel:
    def __init__(self, line: Line, where: str, *, events: bool) -> None:
        """``events``: somebody reads them; else they are dropped."""
        self._line = line
        self._where = where
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(MAX_EVENTS + 1)
        self._wants_events = events
        self.closed = False
        self._reader = asyncio.get_running_loop().create_task(self._read(), name=f"answers of {where}")

    async def ask(self, number: int, request: bytes, flow_id: str) -> dict[str, Any]:
        if self.closed:
            raise ConnectionLost(self._where, "the connection is closed")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            with contextlib.suppress(OSError):  # the reader knows why it closed, and tells the answer
                await self._line.send(request, flow_id)
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def next_event(self) -> dict[str, Any] | None:
        """The next notification; None once the connection is lost."""
        return await self._events.get()

    async def close(self) -> None:
        await self._line.close()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        lost = ConnectionLost(self._where, "the agent closed the connection")
        async with contextlib.aclosing(self._line.messages()) as received:
            try:
                async for data in received:
                    self._sort(messages.decode(data, self._where))
            except ConnectionLost as e:
                lost = e
            finally:  # told before the line is closed: that may take its time
                self.closed = True
                for answer in self._waiting.values():
                    if not answer.done():
                        answer.set_exception(lost)
                self._events.put_nowait(None)

    def _sort(self, message: dict[str, Any]) -> None:
        """Raises `ConnectionLost` for an answer that is nobody's: whose it was would be waited for in vain."""
        if "method" in message:
            if self._wants_events and self._events.qsize() < MAX_EVENTS:
                self._events.put_nowait(message)
            return
        number = messages.answered(message, self._where)
        if number is None:
            log.warning("%s could not read a call: %s", self._where, str(message.get("error"))[:200])
            return
        answer = self._waiting.get(number)
        if answer is not None and not answer.done():
            answer.set_result(message)
