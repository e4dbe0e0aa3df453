# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls between our own processes (root helper, SPM process) over a framed stream.

Both sides may call. Messages: ``{"id", "call", "params"}`` asks, ``{"id", "result"}`` or
``{"id", "error"}`` answers, ``{"notify", "params"}`` tells. An answer that comes after its
caller's deadline is dropped. A call that is being served runs to its end also when the link
closes: the caller's absence undoes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from vdsm.common import errors, framing, logs
from vdsm.common.deadlines import deadline
from vdsm.common.errors import AgentError
from vdsm.common.types import Json

log = logging.getLogger("vdsm.link")

Serve = Callable[[str, dict[str, Any]], Awaitable[Json]]
Notified = Callable[[str, dict[str, Any]], None]


class LinkClosed(AgentError):
    name: str
    msg = "The connection to {self.name} is closed"


class Link:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        serve: Serve | None = None,
        notified: Notified | None = None,
        name: str = "peer",
    ) -> None:
        self.name = name
        self._reader = reader
        self._writer = writer
        self._serve = serve
        self._notified = notified
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    async def call(self, verb: str, params: Mapping[str, Json], *, timeout_s: float) -> Any:
        """The peer's answer. Raises its error, `LinkClosed`, or `DeadlineExceeded`."""
        if self._closed:
            raise LinkClosed(self.name)
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with deadline(f"{verb} of {self.name}", timeout_s):
                await self._send({"id": number, "call": verb, "params": params, "flow": logs.flow_id.get()})
                return await answer
        finally:
            self._waiting.pop(number, None)

    async def notify(self, topic: str, params: Mapping[str, Json]) -> None:
        await self._send({"notify": topic, "params": params})

    async def run(self) -> None:
        """Serve until the other side closes; then every waiting call ends with `LinkClosed`."""
        try:
            while True:
                header = await self._reader.readexactly(framing.HEADER.size)
                body = await self._reader.readexactly(framing.body_length(header))
                self._receive(json.loads(body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (framing.FrameTooLong, ValueError) as e:
            log.error("%s sent what is no message: %s", self.name, e)
        finally:
            self._end()

    async def close(self) -> None:
        self._end()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def _end(self) -> None:
        self._closed = True
        self._writer.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LinkClosed(self.name))

    def _receive(self, message: dict[str, Any]) -> None:
        if "call" in message:
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        elif "notify" in message:
            if self._notified is not None:
                self._notified(message["notify"], message["params"])
        else:
            answer = self._waiting.get(message["id"])
            if answer is None or answer.done():
                return
            if "error" in message:
                answer.set_exception(errors.decode(message["error"]))
            else:
                answer.set_result(message.get("result"))

    async def _answer(self, message: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"id": message["id"]}
        with logs.flow(str(message.get("flow", ""))):
            try:
                if self._serve is None:
                    raise errors.RemoteError("link", f"{self.name} serves no calls")
                reply["result"] = await self._serve(message["call"], message["params"])
            except AgentError as e:
                reply["error"] = errors.encode(e)
            except Exception as e:  # the caller must get an answer; the defect goes to the log with its place
                log.exception("%s failed", message["call"])
                reply["error"] = errors.encode(e)
            with contextlib.suppress(LinkClosed):
                await self._send(reply)

    async def _send(self, message: Mapping[str, Any]) -> None:
        if self._closed:
            raise LinkClosed(self.name)
        self._writer.write(framing.encode_frame(message))
        try:
            await self._writer.drain()
        except ConnectionError:
            raise LinkClosed(self.name) from None
