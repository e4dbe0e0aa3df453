# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP and WebSocket, on the unix socket or on TCP. aiohttp is loaded here only."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from typing import Any

import aiohttp

from vdsm.client import messages
from vdsm.client.channel import CLOSE_S, Channel
from vdsm.client.errors import ConnectionLost, RpcError
from vdsm.client.messages import MAX_ANSWER

PATH = "/jsonrpc"
# each takes a connection, of which the agent gives a user (an address) 128; more calls wait here
MOST_CALLS = 64
# what the agent's port says to one without identity, where there is no body to say it in
FORBIDDEN = -32001
ADMITTED = "Call as root or vdsm, or join the group vdsm-operator"


class Web:
    """The way to one agent over HTTP; a WebSocket where a connection has to carry events."""

    def __init__(self, url: str, *, unix: str | None, tls: ssl.SSLContext | None = None) -> None:
        self.where = unix or url
        self._url = url.rstrip("/").removesuffix(PATH)
        self._unix = unix
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, number: int, request: bytes, flow_id: str) -> dict[str, Any]:
        """One POST on a kept connection."""
        headers = {"content-type": "application/json"}
        if flow_id:
            headers["x-flow-id"] = flow_id
        status, body = await self._exchange("POST", PATH, request, headers)
        try:
            answer = messages.decode(body, self.where)
            answered = messages.answered(answer, self.where)
            # an agent that could not read the call does not know its number
            if answered != number and (answered is not None or answer.get("error") is None):
                raise ConnectionLost(self.where, "it answered another call")
        except ConnectionLost as e:
            raise ConnectionLost(self.where, f"HTTP status {status}, and {e.reason}") from None
        return answer

    async def get(self, path: str) -> str:
        status, body = await self._exchange("GET", path)
        if status != 200:
            raise ConnectionLost(self.where, f"HTTP status {status}")
        return body.decode(errors="replace")

    async def connect(self, timeout_s: float, *, events: bool) -> Channel:
        try:
            async with asyncio.timeout(timeout_s):
                socket = await self._http().ws_connect(self._url + PATH, max_msg_size=MAX_ANSWER, heartbeat=30.0)
        except TimeoutError:
            raise ConnectionLost(self.where, f"no WebSocket within {timeout_s:g} s") from None
        except aiohttp.WSServerHandshakeError as e:
            if e.status == HTTPStatus.FORBIDDEN:
                raise RpcError("The connection", FORBIDDEN, "Access denied", {"remedy": ADMITTED}) from None
            raise ConnectionLost(self.where, f"no WebSocket: HTTP status {e.status}") from None
        except (aiohttp.ClientError, OSError, UnicodeError) as e:
            raise ConnectionLost(self.where, _reason(e)) from None
        return Channel(_WebSocketLine(socket, self.where), self.where, events=events)

    async def _exchange(
        self, verb: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """The status and the body of the answer, which is read in parts: nobody says how long it is going to be."""
        parts: list[bytes] = []
        size = 0
        try:
            async with self._http().request(verb, self._url + path, data=body, headers=headers) as reply:
                async for part in reply.content.iter_any():
                    size += len(part)
                    if size > MAX_ANSWER:
                        raise ConnectionLost(self.where, f"an answer of more than {MAX_ANSWER} bytes")
                    parts.append(part)
                return reply.status, b"".join(parts)
        except (aiohttp.ClientError, OSError, UnicodeError) as e:
            raise ConnectionLost(self.where, _reason(e)) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector = (
                aiohttp.UnixConnector(self._unix, limit=MOST_CALLS)
                if self._unix
                else aiohttp.TCPConnector(limit=MOST_CALLS, ssl=self._tls if self._tls is not None else True)
            )
            follow_nobody = aiohttp.TraceConfig()
            follow_nobody.on_request_redirect.append(_refuse)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
                # few bytes may unpack to any number
                auto_decompress=False,
                headers={"accept-encoding": "identity"},
                trace_configs=[follow_nobody],
            )
        return self._session


class _WebSocketLine:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, where: str) -> None:
        self._socket = socket
        self._where = where

    async def send(self, message: bytes, flow_id: str) -> None:
        if flow_id:
            message = messages.with_flow_id(message, flow_id)
        await self._socket.send_str(message.decode())

    async def messages(self) -> AsyncGenerator[bytes, None]:
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.ERROR:
                    raise ConnectionLost(self._where, f"the connection broke: {self._socket.exception()}")
                yield message.data if isinstance(message.data, bytes) else str(message.data).encode()
        finally:
            await self.close()
        if self._socket.close_code not in (None, 1000, 1001):
            raise ConnectionLost(self._where, f"the agent closed the connection with code {self._socket.close_code}")

    async def close(self) -> None:
        # waits by itself for the peer's frame, and without limit to write its own
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close()


async def _refuse(session: aiohttp.ClientSession, context: object, seen: aiohttp.TraceRequestRedirectParams) -> None:
    """Agents send nobody elsewhere, and who poses as one must not choose where our calls go."""
    raise aiohttp.ClientError(f"HTTP status {seen.response.status}: it redirects")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):  # of the host's name, from the resolver
        return f"that is no address: {error}"
    return str(error) or type(error).__name__
