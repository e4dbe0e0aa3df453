# SPDX-License-Identifier: GPL-2.0-or-later
"""One open connection that carries messages both ways: answers go to who asked, notifications into a queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

from vdsm.client.errors import ConnectionLost

log = logging.getLogger("vdsm.client")

MAX_EVENTS = 10_000


class Line(Protocol):
    """A connection below: whole messages, whatever frames they travel in."""

    async def send(self, message: bytes, flow_id: str) -> None:
        """Raises `ConnectionError` or `OSError` when it is broken."""
        ...

    def messages(self) -> AsyncIterator[bytes]:
        """Until the peer closes in order; raises `ConnectionLost` when it does not."""
        ...

    async def close(self) -> None: ...


class Channel:
    def __init__(self, line: Line, where: str, *, events: bool) -> None:
        """``events``: somebody reads them; else they are dropped."""
        self._line = line
        self._where = where
        self._waiting: dict[Any, asyncio.Future[dict[str, Any]]] = {}
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(MAX_EVENTS + 1)
        self._wants_events = events
        self._reader = asyncio.get_running_loop().create_task(self._read(), name=f"answers of {where}")

    @property
    def closed(self) -> bool:
        return self._reader.done()

    async def ask(self, request: dict[str, Any], flow_id: str) -> dict[str, Any]:
        if self.closed:
            raise ConnectionLost(self._where, "the connection is closed")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[request["id"]] = answer
        try:
            with contextlib.suppress(ConnectionError):  # the reader knows why it closed, and tells the answer
                await self._line.send(msgspec.json.encode(request), flow_id)
            return await answer
        finally:
            self._waiting.pop(request["id"], None)

    async def next_event(self) -> dict[str, Any] | None:
        """The next notification; None once the connection is lost."""
        return await self._events.get()

    async def close(self) -> None:
        await self._line.close()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        lost = ConnectionLost(self._where, "the agent closed the connection")
        try:
            async for message in self._line.messages():
                self._sort(message)
        except ConnectionLost as e:
            lost = e
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(lost)
            self._events.put_nowait(None)

    def _sort(self, data: bytes) -> None:
        try:
            message = msgspec.json.decode(data)
        except msgspec.DecodeError:
            log.warning("%s sent what is no JSON", self._where)
            return
        if not isinstance(message, dict):
            return
        if "method" in message:
            if self._wants_events and self._events.qsize() < MAX_EVENTS:
                self._events.put_nowait(message)
            return
        answer = self._waiting.get(message.get("id"))
        if answer is not None and not answer.done():
            answer.set_result(message)
