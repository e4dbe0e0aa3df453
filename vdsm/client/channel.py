# SPDX-License-Identifier: GPL-2.0-or-later
"""One open WebSocket: answers go to who asked, notifications into a queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import aiohttp
import msgspec

from vdsm.client.errors import ConnectionLost

log = logging.getLogger("vdsm.client")

MAX_EVENTS = 10_000


class Channel:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, where: str) -> None:
        self._socket = socket
        self._where = where
        self._waiting: dict[Any, asyncio.Future[dict[str, Any]]] = {}
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(MAX_EVENTS + 1)
        self._wants_events = True
        self._reader = asyncio.get_running_loop().create_task(self._read(), name=f"answers of {where}")

    @property
    def closed(self) -> bool:
        return self._reader.done()

    def drop_events(self) -> None:
        """Nobody reads events of this channel."""
        self._wants_events = False

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.closed:
            raise ConnectionLost(self._where, "the connection is closed")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[request["id"]] = answer
        try:
            with contextlib.suppress(ConnectionError):  # the reader knows why it closed, and tells the answer
                await self._socket.send_str(msgspec.json.encode(request).decode())
            return await answer
        finally:
            self._waiting.pop(request["id"], None)

    async def next_event(self) -> dict[str, Any] | None:
        """The next notification; None once the connection is lost."""
        return await self._events.get()

    async def close(self) -> None:
        await self._socket.close()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        reason = "the agent closed the connection"
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.ERROR:
                    reason = f"the connection broke: {self._socket.exception()}"
                    break
                self._sort(message.data)
            if self._socket.close_code not in (None, 1000, 1001):
                reason = f"the agent closed the connection with code {self._socket.close_code}"
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionLost(self._where, reason))
            self._events.put_nowait(None)

    def _sort(self, data: str | bytes) -> None:
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
