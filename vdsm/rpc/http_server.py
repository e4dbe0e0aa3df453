# SPDX-License-Identifier: GPL-2.0-or-later
"""aiohttp's protocol, with our own answers where it would give its own, and without its log.

What anybody can send (no HTTP at all, a broken body, an encoding that is none) is a 400 with one log line for a flood.
No answer names the programs and versions that made it. Bodies stay as they came: few bytes unpack to any number, and
nobody of the field packs its calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from vdsm.api.defects import Defects
from vdsm.api.errors import INVALID_REQUEST, WireError, to_wire
from vdsm.common.repeats import Repeats
from vdsm.rpc import protocol

KEEP_ALIVE_S = 300.0
SERVER = "vdsm"

Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class HttpServer(web.Server):
    def __init__(self, serve: Serve, told: Repeats, defects: Defects) -> None:
        # aiohttp's own factory is a method of the server, which then refers to itself, and stays
        super().__init__(serve, request_factory=_request)
        self._told = told
        self._defects = defects

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._told, self._defects)


class _Connection(web.RequestHandler):
    __slots__ = ("_defects", "_told")

    def __init__(self, server: web.Server, told: Repeats, defects: Defects) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEP_ALIVE_S,
            access_log=None,  # type: ignore[arg-type] # aiohttp takes it for "none"
            auto_decompress=False,
        )
        self._told = told
        self._defects = defects

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if not resp.prepared:
            resp.headers["Server"] = SERVER
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what can't be served; the connection ends with it."""
        if status == 500 and exc is not None and not isinstance(exc, web.RequestPayloadError):
            answer = reply(protocol.failure(None, to_wire(exc, "HTTP", self._defects)), 500)
        else:
            self._told.tell("http", f"a request was refused: {type(exc).__name__} in what it sent")
            answer = refused(400, "the request is no HTTP that can be read here")
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What aiohttp could not do with a connection: its defects and ours, not what a peer sent."""
        error = kw.get("exc_info")
        if isinstance(error, Exception):
            to_wire(error, "HTTP", self._defects)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop())


def reply(body: bytes, status: int) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def refused(status: int, reason: str) -> web.Response:
    return reply(
        protocol.failure(None, WireError(INVALID_REQUEST, f"Invalid Request: {reason}", {"reason": reason})), status
    )
