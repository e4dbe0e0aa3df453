# SPDX-License-Identifier: GPL-2.0-or-later
"""WebSocket: calls both ways round in time, and every event of the agent.

Each connection subscribes to all events. What is sent waits for the peer at most `SEND_S`; events queue up to
`MAX_EVENTS`. A peer that does not read is dropped with a line in the log, and its calls go on. At most
`MAX_CALLS` calls of a connection are under way or wait to be sent: then its next message is read when one has left
(`vdsm.rpc.room`: what is stuck counts no more).
What all connections have not sent is at most `MAX_UNSENT`: then the one with most is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from dataclasses import replace

from aiohttp import WSCloseCode, WSMsgType, web

from vdsm.common import metrics
from vdsm.common.events import Events, Subscription
from vdsm.common.repeats import Repeats
from vdsm.rpc import protocol, shown
from vdsm.rpc.dispatcher import Caller, Dispatcher
from vdsm.rpc.http_server import SERVER, refused
from vdsm.rpc.order import Order
from vdsm.rpc.room import Room

log = logging.getLogger("vdsm.rpc")

MAX_EVENTS = 1000
MAX_CALLS = 256
SEND_S = 30.0
MAX_UNSENT = 256 << 20
HEARTBEAT_S = 30.0
CLOSE_S = 1.0  # for the peer to answer that the connection closes

_OPEN = metrics.gauge("vdsm_rpc_websockets", "Open WebSocket connections")
_DROPPED = metrics.counter("vdsm_rpc_websockets_dropped", "WebSocket connections dropped because the peer did not read")


class Connections:
    """The open WebSockets of one listener."""

    def __init__(self, dispatcher: Dispatcher, events: Events, told: Repeats) -> None:
        self._dispatcher = dispatcher
        self._events = events
        self._told = told
        self._open: set[_Connection] = set()

    async def serve(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            timeout=CLOSE_S, max_msg_size=protocol.MAX_MESSAGE, heartbeat=HEARTBEAT_S, compress=False
        )
        socket.headers["Server"] = SERVER
        try:
            await socket.prepare(request)
        except web.HTTPException:  # its text quotes what came
            return refused(400, "the upgrade is none to a WebSocket of version 13")
        assert request.transport is not None
        connection = _Connection(socket, request.transport, caller, self._dispatcher, self._bound, self._told)
        self._open.add(connection)
        _OPEN.inc()
        try:
            await connection.run(self._events.subscribe(caller.identity.name, max_queue=MAX_EVENTS))
        finally:
            self._open.discard(connection)
            _OPEN.dec()
        return socket

    def _bound(self) -> None:
        """Drop who keeps most from being sent while all keep too much."""
        while sum(connection.unsent for connection in self._open) > MAX_UNSENT:
            max(self._open, key=lambda connection: connection.unsent).drop("reads least of all, and too much waits")

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in list(self._open)))


class _Connection:
    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        caller: Caller,
        dispatcher: Dispatcher,
        bound: Callable[[], None],
        told: Repeats,
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._caller = replace(caller, order=Order())
        self._dispatcher = dispatcher
        self._bound = bound
        self._told = told
        self._may_read = asyncio.Event()
        self._room = Room(MAX_CALLS, self._may_read.set)
        self._answering: set[asyncio.Task[None]] = set()

    async def run(self, subscription: Subscription) -> None:
        telling = asyncio.get_running_loop().create_task(self._tell(subscription))
        try:
            async for message in self._socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    data = message.data.encode() if isinstance(message.data, str) else message.data
                    while not self._room.is_open:
                        self._may_read.clear()
                        await self._may_read.wait()
                    self._call(data)
        finally:
            self._room.close()
            subscription.close()
            for task in (telling, *self._answering):  # they only wait and send: the calls are the dispatcher's
                task.cancel()

    def _call(self, data: bytes) -> None:
        number = self._room.enter(len(data))
        # a call may outlive its connection, and keeps nothing of it
        connection = weakref.ref(self)

        def answered(reply: bytes | None) -> None:
            if (still := connection()) is not None:
                still._answered(number, reply)

        self._dispatcher.begin(data, self._caller, answered)

    def _answered(self, number: int, reply: bytes | None) -> None:
        self._room.answered(number, unsent=reply is not None)
        self._may_read.set()
        if reply is not None and not self._transport.is_closing():
            task = asyncio.get_running_loop().create_task(self._reply(reply))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    @property
    def unsent(self) -> int:
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    async def close(self) -> None:
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the agent stops")

    async def _reply(self, reply: bytes) -> None:
        try:
            await self._send(reply)
        finally:
            self._room.sent()
            self._may_read.set()

    async def _tell(self, subscription: Subscription) -> None:
        async for event in subscription:
            message = shown.event(event, self._caller.identity.role)
            if message is not None and not self._dispatcher.hides_from(self._caller):
                await self._send(message)
        if subscription.overflowed:
            self.drop("does not read its events")

    async def _send(self, message: bytes) -> None:
        if self.unsent:
            self._bound()
        try:
            async with asyncio.timeout(SEND_S):
                await self._socket.send_frame(message, WSMsgType.TEXT)
        except TimeoutError:
            self.drop(f"did not read for {SEND_S:g} s")
        except ConnectionError:
            pass  # it closed; the reader sees that too and ends the connection

    def drop(self, reason: str) -> None:
        name = self._caller.identity.name
        self._told.tell((name, reason), f"connection of {name} dropped: it {reason}")
        _DROPPED.inc()
        self._transport.abort()
