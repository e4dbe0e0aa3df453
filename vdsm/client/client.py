# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls and events over HTTP, WebSocket or the unix socket.

``Client.unix`` and ``Client.http`` send each call as an HTTP POST on a kept connection; ``Client.ws``
and ``Client.unix_ws`` send all calls over one WebSocket, which also carries events. `events` opens a
WebSocket of its own, and opens it again when it is lost: events sent meanwhile are lost, so a reader
looks at the state once after each ``reconnected`` notice.

A connection is made when first needed. A call is never sent twice by itself: only the caller knows
whether that is safe.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

from vdsm.client.channel import Channel
from vdsm.client.errors import ConnectionLost, NoAnswer, RpcError
from vdsm.common import logs

CALL_TIMEOUT_S = 60.0
RECONNECT_S = 1.0
RECONNECT_MAX_S = 15.0
MAX_MESSAGE = 64 * 1024 * 1024
PATH = "/jsonrpc"
RECONNECTED = "reconnected"


@dataclass(frozen=True)
class Notice:
    """An event: its method ``|component|operation|id`` in parts, and its parameters."""

    component: str
    operation: str
    unique_id: str
    params: Mapping[str, Any]

    @property
    def method(self) -> str:
        return f"|{self.component}|{self.operation}|{self.unique_id}"


class Client:
    """One agent as its caller sees it. Use as ``async with Client.unix(path) as client:``."""

    def __init__(self, url: str, *, unix: str | None, persistent: bool) -> None:
        self.where = unix or url
        self._url = url.rstrip("/")
        if not self._url.endswith(PATH):
            self._url += PATH
        self._unix = unix
        self._persistent = persistent  # calls go over the WebSocket
        self._session: aiohttp.ClientSession | None = None
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._ids = itertools.count(1)

    @classmethod
    def unix(cls, path: str) -> Client:
        """Calls by HTTP over the agent's unix socket."""
        return cls("http://agent", unix=path, persistent=False)

    @classmethod
    def unix_ws(cls, path: str) -> Client:
        """Calls over one WebSocket on the agent's unix socket."""
        return cls("http://agent", unix=path, persistent=True)

    @classmethod
    def http(cls, url: str) -> Client:
        return cls(url, unix=None, persistent=False)

    @classmethod
    def ws(cls, url: str) -> Client:
        return cls(url, unix=None, persistent=True)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        if self._session is not None:
            await self._session.close()
        self._channel = self._session = None

    async def call(
        self, method: str, params: Mapping[str, Any] | Sequence[Any] | None = None, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> Any:
        """The verb's result. Raises `RpcError`, `NoAnswer`, `ConnectionLost`.

        The flow id of the caller's context travels with the call.
        """
        number = next(self._ids)
        request: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": number}
        if params is not None:
            request["params"] = params
        try:
            async with asyncio.timeout(timeout_s):
                answer = await (self._over_channel(request) if self._persistent else self._post(request))
        except TimeoutError:
            raise NoAnswer(method, timeout_s) from None
        except (aiohttp.ClientError, OSError) as e:
            raise ConnectionLost(self.where, str(e) or type(e).__name__) from None
        error = answer.get("error")
        if error is not None:
            raise RpcError(method, int(error["code"]), str(error["message"]), error.get("data"))
        return answer.get("result")

    async def metrics(self, *, timeout_s: float = CALL_TIMEOUT_S) -> str:
        """The agent's figures in Prometheus' text format."""
        try:
            async with asyncio.timeout(timeout_s):
                async with self._http().get(self._url.removesuffix(PATH) + "/metrics") as reply:
                    text = await reply.text()
        except TimeoutError:
            raise NoAnswer("GET /metrics", timeout_s) from None
        except (aiohttp.ClientError, OSError) as e:
            raise ConnectionLost(self.where, str(e) or type(e).__name__) from None
        if reply.status != 200:
            raise ConnectionLost(self.where, f"HTTP status {reply.status}")
        return text

    async def events(self, *, timeout_s: float = CALL_TIMEOUT_S) -> AsyncGenerator[Notice, None]:
        """Every event from now on, without end; raises `ConnectionLost` when the first connection fails.

        After a lost connection the iterator connects again and yields a notice ``|client|reconnected|``.
        """
        async for notice in await self.listen(timeout_s=timeout_s):
            yield notice

    async def listen(self, *, timeout_s: float = CALL_TIMEOUT_S) -> AsyncGenerator[Notice, None]:
        """As `events`, but connected when it returns: what is published from then on is not missed."""
        return self._notices(await self._connect(timeout_s), timeout_s)

    async def _notices(self, channel: Channel, timeout_s: float) -> AsyncGenerator[Notice, None]:
        pause_s = RECONNECT_S
        while True:
            try:
                while (event := await channel.next_event()) is not None:
                    pause_s = RECONNECT_S
                    parts = str(event.get("method", "")).split("|")
                    if len(parts) == 4:
                        yield Notice(parts[1], parts[2], parts[3], event.get("params") or {})
            finally:
                await channel.close()
            while True:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RECONNECT_MAX_S)
                try:
                    channel = await self._connect(timeout_s)
                    break
                except ConnectionLost:
                    continue
            yield Notice("client", RECONNECTED, "", {})

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector = (
                aiohttp.UnixConnector(self._unix, limit=0) if self._unix else aiohttp.TCPConnector(limit=0)
            )
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=None), trust_env=False
            )
        return self._session

    async def _post(self, request: dict[str, Any]) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        if flow := logs.flow_id.get():
            headers["x-flow-id"] = flow
        async with self._http().post(self._url, data=msgspec.json.encode(request), headers=headers) as reply:
            body = await reply.read()
        return self._answer(body, f"HTTP status {reply.status}")

    def _answer(self, body: bytes, context: str) -> dict[str, Any]:
        try:
            answer = msgspec.json.decode(body)
        except msgspec.DecodeError:
            raise ConnectionLost(self.where, f"{context}, and no JSON-RPC answer") from None
        if not isinstance(answer, dict):
            raise ConnectionLost(self.where, f"{context}, and an answer that is no object")
        return answer

    async def _over_channel(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._opening:
            if self._channel is None or self._channel.closed:
                self._channel = await self._connect(CALL_TIMEOUT_S)
                self._channel.drop_events()
            channel = self._channel
        if flow := logs.flow_id.get():
            request["flow_id"] = flow
        return await channel.ask(request)

    async def _connect(self, timeout_s: float) -> Channel:
        try:
            async with asyncio.timeout(timeout_s):
                socket = await self._http().ws_connect(self._url, max_msg_size=MAX_MESSAGE, heartbeat=30.0)
        except TimeoutError:
            raise ConnectionLost(self.where, f"no WebSocket within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as e:
            raise ConnectionLost(self.where, str(e) or type(e).__name__) from None
        return Channel(socket, self.where)
