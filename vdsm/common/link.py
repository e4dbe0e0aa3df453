# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls between our own processes (root helper, SPM process) over a framed stream.

Both sides may call. Messages: ``{"id", "call", "params"}`` asks, ``{"id", "result"}`` or
``{"id", "error"}`` answers, ``{"notify", "params"}`` tells. An answer that comes after its
caller's deadline is dropped. A call that is being served runs to its end also when the link
closes: the caller's absence undoes nothing.

Who serves callers that it does not trust gives `Bounds`: what a caller sends faster than it is served stays with the
caller. ``{"closing": reason}`` is the last word to one that broke them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
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
    reason: str = ""
    msg = "The connection to {self.name} is closed"

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.reason}" if self.reason else super().__str__()


class NoMessage(ValueError):
    """What came is not what links send."""


LARGE = 64 << 10
MAX_FLOW = 100
MAX_ITEMS = 100_000
"""Separators in a message: a short one may unpack to any number of objects."""


@dataclass(frozen=True)
class Bounds:
    """``frame_s``: for the rest of a message once it has begun; ``calls``: of one link that are served at once;
    ``large``: turns of messages over `LARGE`, of all links together, kept until they are answered.
    """

    frame_s: float
    calls: int
    large: asyncio.Semaphore


class Link:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        serve: Serve | None = None,
        notified: Notified | None = None,
        name: str = "peer",
        bounds: Bounds | None = None,
    ) -> None:
        self.name = name
        self._bounds = bounds
        self._room = asyncio.Semaphore(bounds.calls) if bounds else None
        self._reason = ""
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
            raise LinkClosed(self.name, self._reason)
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
                await self._next()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (framing.FrameTooLong, ValueError, RecursionError, TimeoutError) as e:
            what = "a message that does not end" if isinstance(e, TimeoutError) else f"what is no message: {e}"
            log.error("%s sent %s", self.name, what)
            self._last_word(f"it got {what}")
        finally:
            self._end()

    async def _next(self) -> None:
        first = await self._reader.readexactly(1)
        bounds = self._bounds
        async with asyncio.timeout(bounds.frame_s if bounds else None):
            header = first + await self._reader.readexactly(framing.HEADER.size - 1)
        length = framing.body_length(header)
        turns = [turn for turn in (self._room, bounds.large if bounds and length > LARGE else None) if turn]
        with contextlib.ExitStack() as taken:
            for turn in turns:
                await turn.acquire()
                taken.callback(turn.release)
            async with asyncio.timeout(bounds.frame_s if bounds else None):
                body = await self._reader.readexactly(length)
            if bounds and body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_ITEMS:
                raise NoMessage(f"it has more than {MAX_ITEMS} values")
            call = self._receive(json.loads(body))
            if call is not None:
                kept = taken.pop_all()
                call.add_done_callback(lambda _: kept.close())

    def _last_word(self, reason: str) -> None:
        if not self._closed:
            self._writer.write(framing.encode_frame({"closing": reason}))

    async def refuse(self, reason: str) -> None:
        """Tell why nobody is served, and close."""
        self._last_word(reason)
        await self.close()

    async def close(self) -> None:
        self._end()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def _end(self) -> None:
        self._closed = True
        self._writer.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LinkClosed(self.name, self._reason))

    def _receive(self, message: Any) -> asyncio.Task[None] | None:
        """The task of a call that is served now."""
        if not isinstance(message, dict) or not isinstance(message.get("params", {}), dict):
            raise NoMessage("it is no object, or its parameters are none")
        if "call" in message:
            if not _has_number(message):
                raise NoMessage("it is a call without a number")
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            return task
        if "closing" in message:
            self._reason = str(message["closing"])
        elif "notify" in message:
            if self._notified is not None:
                self._notified(message["notify"], message.get("params", {}))
        else:
            if not _has_number(message):
                raise NoMessage("it is neither a call nor an answer to one")
            answer = self._waiting.get(message["id"])
            if answer is None or answer.done():
                return None
            if "error" in message:
                answer.set_exception(errors.decode(message["error"]))
            else:
                answer.set_result(message.get("result"))
        return None

    async def _answer(self, message: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"id": message["id"]}
        with logs.flow(str(message.get("flow", ""))[:MAX_FLOW]):
            try:
                if self._serve is None:
                    raise errors.RemoteError("link", f"{self.name} serves no calls")
                reply["result"] = await self._serve(str(message["call"]), message.get("params", {}))
            except AgentError as e:
                reply["error"] = errors.encode(e)
            except Exception as e:  # the caller must get an answer; the defect goes to the log with its place
                log.exception("%s failed", message["call"])
                reply["error"] = errors.encode(e)
            with contextlib.suppress(LinkClosed):
                await self._send(reply)

    async def _send(self, message: Mapping[str, Any]) -> None:
        if self._closed:
            raise LinkClosed(self.name, self._reason)
        self._writer.write(framing.encode_frame(message))
        try:
            await self._writer.drain()
        except ConnectionError:
            raise LinkClosed(self.name, self._reason) from None


def _has_number(message: Mapping[str, Any]) -> bool:
    return isinstance(message.get("id"), int)
