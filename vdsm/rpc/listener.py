# SPDX-License-Identifier: GPL-2.0-or-later
"""Listeners: where connections come in.

A `Transport` is anything that accepts connections and feeds their messages to a dispatcher; the others (STOMP over
TLS is one) stand beside these two and differ in framing, identity and their rule for unknown names.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import Protocol

from vdsm.api.roles import Identity
from vdsm.common.errors import AgentError
from vdsm.common.events import Events
from vdsm.rpc.access import tcp_peer, unix_peer
from vdsm.rpc.dispatcher import Dispatcher
from vdsm.rpc.http import Web
from vdsm.rpc.http_server import Client, HttpServer, Seating
from vdsm.rpc.seats import Seats

log = logging.getLogger("vdsm.rpc")

BACKLOG = 128
CLOSE_S = 2.0
PROBE_S = 1.0
MOST = 512
MOST_OF_CLIENT = 128


class AlreadyListening(AgentError):
    path: str
    msg = "Another agent answers at {self.path}"
    remedy = "Stop it first: systemctl stop vdsm"


class Transport(Protocol):
    name: str

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Accept nothing more and close what is open; running calls go on."""
        ...


class UnixListener:
    """HTTP and WebSocket on a unix socket. Anybody may connect; peer credentials decide what for."""

    name = "unix"

    def __init__(self, dispatcher: Dispatcher, events: Events, path: str) -> None:
        self._path = path
        self._web = Web(dispatcher, events, self.name, _identify_unix)
        self._port = _Port(self._web, _user)

    async def start(self) -> None:
        """Raises `AlreadyListening`. A socket that a killed agent left is replaced."""
        await self._port.start(await self._bind())
        log.info("listening at %s", self._path)

    async def stop(self) -> None:
        await self._port.stop()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    async def _bind(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await self._clear()
            listening.bind(self._path)
            os.chmod(self._path, 0o666)
        except BaseException:
            listening.close()
            raise
        return listening

    async def _clear(self) -> None:
        try:
            async with asyncio.timeout(PROBE_S):
                _, writer = await asyncio.open_unix_connection(self._path)
        except (OSError, TimeoutError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            return
        writer.close()
        raise AlreadyListening(self._path)


class TcpListener:
    """Plain HTTP and WebSocket on a TCP address, for reading only. Off unless configured."""

    name = "tcp"

    def __init__(self, dispatcher: Dispatcher, events: Events, address: str, port: int) -> None:
        self._address = (address, port)
        self._web = Web(dispatcher, events, self.name, _identify_tcp)
        self._port = _Port(self._web, _address)

    async def start(self) -> None:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        listening = socket.create_server(self._address, family=family, backlog=BACKLOG)
        self._address = listening.getsockname()[:2]
        await self._port.start(listening)
        log.info("listening at %s port %d, for reading only", *self._address)

    @property
    def port(self) -> int:
        return self._address[1]

    async def stop(self) -> None:
        await self._port.stop()


class _Port:
    """A listening socket with aiohttp's protocol behind it."""

    def __init__(self, site: Web, client: Client) -> None:
        self._site = site
        self._client = client
        self._protocols: HttpServer | None = None
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        seating = Seating(Seats(MOST, MOST_OF_CLIENT), self._client, self._site.told)
        self._protocols = HttpServer(self._site, self._site.told, self._site.defects, seating)
        loop = asyncio.get_running_loop()
        if listening.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(self._protocols, sock=listening, backlog=BACKLOG)
        else:
            self._server = await loop.create_server(self._protocols, sock=listening, backlog=BACKLOG)

    async def stop(self) -> None:
        if self._server is None or self._protocols is None:
            return
        self._server.close()
        await self._site.connections.close()
        await self._protocols.shutdown(CLOSE_S)
        self._server = self._protocols = None


def _identify_unix(transport: asyncio.Transport) -> Identity | None:
    connection = transport.get_extra_info("socket")
    try:
        return unix_peer(connection) if connection is not None else None
    except OSError:  # gone already
        return None


def _identify_tcp(transport: asyncio.Transport) -> Identity | None:
    peer = transport.get_extra_info("peername")
    return tcp_peer(str(peer[0])) if peer else None


def _user(transport: asyncio.Transport) -> str:
    """Whose connections have one share: a user's, whatever the number of processes."""
    identity = _identify_unix(transport)
    return identity.name if identity is not None else "users who may do nothing"


def _address(transport: asyncio.Transport) -> str:
    identity = _identify_tcp(transport)
    return identity.name if identity is not None else "nobody"
