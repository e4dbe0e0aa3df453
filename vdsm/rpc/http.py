# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP on every listener: ``POST /jsonrpc``, ``GET /jsonrpc`` (WebSocket), ``GET /metrics``.

A caller without identity gets 403 before its body is read. A body over the limit gets 413 with a JSON-RPC error, one
that is packed 415.
A request that a browser made for another site (header Origin) is refused: being on the same host as an
administrator's browser must not be a way in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from vdsm.api.errors import WireError
from vdsm.api.roles import Identity
from vdsm.common import metrics
from vdsm.common.events import Events
from vdsm.common.repeats import Repeats
from vdsm.rpc import protocol
from vdsm.rpc.dispatcher import Caller, Dispatcher
from vdsm.rpc.http_server import refused, reply
from vdsm.rpc.websocket import Connections

log = logging.getLogger("vdsm.rpc")

BODY_S = 60.0  # the whole body must have come by then
FORBIDDEN = WireError(-32001, "Access denied", {"remedy": "Call as root or vdsm, or join the group vdsm-operator"})
FLOW_HEADERS = ("X-Flow-Id", "ovirtCorrelationId")

Identify = Callable[[asyncio.Transport], Identity | None]


class Web:
    """Answers the requests of one listener."""

    def __init__(self, dispatcher: Dispatcher, events: Events, transport: str, identify: Identify) -> None:
        self._dispatcher = dispatcher
        self._transport = transport
        self._identify = identify
        self.told = Repeats(log)
        self.defects = dispatcher.defects
        self.connections = Connections(dispatcher, events, self.told)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        caller = self._caller(request)
        if caller is None or "Origin" in request.headers:
            self.told.tell("peer", f"refused a request over {self._transport}: unknown peer or foreign origin")
            return reply(protocol.failure(None, FORBIDDEN), 403)
        if request.path == "/jsonrpc":
            if request.method == "POST":
                return await self.post(request, caller)
            if request.method == "GET" and "upgrade" in request.headers.get("Connection", "").lower():
                return await self.connections.serve(request, caller)
            return web.Response(status=405, headers={"Allow": "POST, GET"})
        if request.path == "/metrics" and request.method == "GET":
            return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})
        return web.Response(status=404)

    def _caller(self, request: web.BaseRequest) -> Caller | None:
        identity = self._identify(request.transport) if request.transport is not None else None
        if identity is None:
            return None
        return Caller(identity, self._transport, flow_id=flow_id(request))

    async def post(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            response = refused(415, "a message is sent as it is, without Content-Encoding")
            response.force_close()
            return response
        try:
            async with asyncio.timeout(BODY_S):
                body = await _read(request)
        except TimeoutError:
            return web.Response(status=408)
        if body is None:
            too_long = protocol.too_much(f"the message is longer than {protocol.MAX_MESSAGE} bytes")
            response = reply(protocol.failure(None, too_long.error), 413)
            response.force_close()
            return response
        answer = await self._dispatcher.answer(body, caller)
        return web.Response(status=204) if answer is None else reply(answer, 200)


def flow_id(request: web.BaseRequest) -> str:
    """What the caller names its flow in the headers; empty when it does not."""
    return next((request.headers[name] for name in FLOW_HEADERS if name in request.headers), "")


async def _read(request: web.BaseRequest) -> bytes | None:
    """The body; None when it is too long."""
    if (request.content_length or 0) > protocol.MAX_MESSAGE:
        return None
    parts: list[bytes] = []
    size = 0
    while part := await request.content.readany():
        size += len(part)
        if size > protocol.MAX_MESSAGE:
            return None
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
