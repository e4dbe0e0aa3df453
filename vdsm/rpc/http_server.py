# SPDX-License-Identifier: GPL-2.0-or-later
"""aiohttp's protocol, with our own answers where it would give its own, and without its log.

What anybody can send (no HTTP at all, a broken body, an encoding that is none) is a 400 with one log line for a flood.
No answer names the programs and versions that made it. Bodies stay as they came: few bytes unpack to any number, and
nobody of the field packs its calls. A connection whose first head is not whole within `HEAD_S` ends; aiohttp bounds
lines and how many there are. `Seating` bounds connections.
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
from vdsm.rpc.seats import NoSeat, Seats

KEEP_ALIVE_S = 300.0
HEAD_S = 30.0
REFUSED_S = 1.0
SERVER = "vdsm"

Client = Callable[[asyncio.Transport], str]
Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Seating:
    """The connections of one listener, each client with its share. ``client`` names whose a connection is."""

    def __init__(self, seats: Seats, client: Client, told: Repeats) -> None:
        self._seats = seats
        self._client = client
        self._told = told
        self._of: dict[asyncio.Transport, str] = {}

    def enter(self, transport: asyncio.Transport) -> bool:
        """One that finds no seat is told why, and closed. One that loses its seat to a newcomer is closed."""
        client = self._client(transport)
        try:
            loser = self._seats.take(client, transport)
        except NoSeat as e:
            self._told.tell("seats", f"refused a connection of {client}: {e}")
            transport.set_protocol(_Refused(transport, str(e)))
            return False
        self._of[transport] = client
        if loser is not None:
            assert isinstance(loser, asyncio.Transport)
            self._told.tell(
                "seats", f"a connection of {self._of.pop(loser)} is closed: a newcomer came, and it has most"
            )
            loser.abort()
        return True

    def leave(self, transport: asyncio.Transport) -> None:
        """Leaving twice is nothing."""
        client = self._of.pop(transport, None)
        if client is not None:
            self._seats.leave(client, transport)


class _Refused(asyncio.Protocol):
    """Answers and hears nothing: a close with a request unread would take the answer away from its reader."""

    def __init__(self, transport: asyncio.Transport, why: str) -> None:
        body = protocol.failure(None, WireError(INVALID_REQUEST, why))
        head = (
            f"HTTP/1.1 503 Service Unavailable\r\nServer: {SERVER}\r\nContent-Length: {len(body)}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n\r\n"
        )
        transport.write(head.encode() + body)
        transport.write_eof()
        self._end = asyncio.get_running_loop().call_later(REFUSED_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()


class HttpServer(web.Server):
    def __init__(self, serve: Serve, told: Repeats, defects: Defects, seating: Seating | None = None) -> None:
        # aiohttp's own factory is a method of the server, which then refers to itself, and stays
        super().__init__(serve, request_factory=_request)
        self._told = told
        self._defects = defects
        self._seating = seating

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._told, self._defects, self._seating)


class _Connection(web.RequestHandler):
    __slots__ = ("_connected", "_defects", "_head", "_seating", "_told")

    def __init__(self, server: web.Server, told: Repeats, defects: Defects, seating: Seating | None) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEP_ALIVE_S,
            access_log=None,  # type: ignore[arg-type] # aiohttp takes it for "none"
            auto_decompress=False,
        )
        self._told = told
        self._defects = defects
        self._seating = seating
        self._connected: asyncio.Transport | None = None
        self._head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._seating is not None and not self._seating.enter(transport):
            return
        super().connection_made(transport)
        self._connected = transport
        self._head = asyncio.get_running_loop().call_later(HEAD_S, self._no_head)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.came()
        if self._seating is not None and self._connected is not None:
            self._seating.leave(self._connected)
        self._connected = None
        super().connection_lost(exc)

    def came(self) -> None:
        """The first head is whole, or never will be."""
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _no_head(self) -> None:
        self._told.tell("head", f"a connection is closed: no request came in {HEAD_S:g} s")
        if self._connected is not None:
            self._connected.abort()

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
    connection: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    assert isinstance(connection, _Connection)
    connection.came()
    return web.BaseRequest(message, payload, connection, writer, task, asyncio.get_running_loop())


def reply(body: bytes, status: int) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def refused(status: int, reason: str) -> web.Response:
    return reply(
        protocol.failure(None, WireError(INVALID_REQUEST, f"Invalid Request: {reason}", {"reason": reason})), status
    )
