# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls and events over the unix socket, HTTP, WebSocket or the engine's port.

``Client.unix`` and ``Client.http`` send each call as an HTTP POST on a kept connection; ``Client.ws``,
``Client.unix_ws`` and ``Client.stomp`` send all calls over one connection. `events` opens a
connection of its own, and opens it again when it is lost: events sent meanwhile are lost, so a reader
looks at the state once after each ``reconnected`` notice.

A connection is made when first needed. A call is never sent twice by itself: only the caller knows
whether that is safe.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from vdsm.client import messages
from vdsm.client.channel import Channel
from vdsm.client.errors import ConnectionLost, NoAnswer
from vdsm.client.stomp import PORT, Stomp
from vdsm.common import logs

if TYPE_CHECKING:
    from vdsm.client.web import Web

CALL_TIMEOUT_S = 60.0
RECONNECT_S = 1.0
RECONNECT_MAX_S = 15.0
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


class Way(Protocol):
    """How an agent is reached."""

    where: str

    async def connect(self, timeout_s: float, *, events: bool) -> Channel:
        """Raises `ConnectionLost`."""
        ...

    async def close(self) -> None: ...


class Client:
    """One agent as its caller sees it. Use as ``async with Client.unix(path) as client:``."""

    def __init__(self, way: Way, *, web: Web | None = None) -> None:
        """``web``: calls are single HTTP requests; without it they go over one kept channel."""
        self.where = way.where
        self._way = way
        self._web = web
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._ids = itertools.count(1)

    @classmethod
    def unix(cls, path: str) -> Client:
        """Calls by HTTP over the agent's unix socket."""
        web = _web("http://agent", unix=path)
        return cls(web, web=web)

    @classmethod
    def unix_ws(cls, path: str) -> Client:
        """Calls over one WebSocket on the agent's unix socket."""
        return cls(_web("http://agent", unix=path))

    @classmethod
    def http(cls, url: str, tls: ssl.SSLContext | None = None) -> Client:
        web = _web(url, tls=tls)
        return cls(web, web=web)

    @classmethod
    def ws(cls, url: str, tls: ssl.SSLContext | None = None) -> Client:
        return cls(_web(url, tls=tls))

    @classmethod
    def stomp(cls, host: str, port: int = PORT, tls: ssl.SSLContext | None = None) -> Client:
        """Calls over one STOMP connection to an engine's port; ``tls`` as `vdsm.client.tls.context` makes it."""
        return cls(Stomp(host, port, tls))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        self._channel = None
        await self._way.close()

    async def call(
        self, method: str, params: Mapping[str, Any] | Sequence[Any] | None = None, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> Any:
        """The verb's result. Raises `RpcError`, `NoAnswer`, `ConnectionLost`, `Unsendable`.

        The flow id of the caller's context travels with the call.
        """
        number = next(self._ids)
        flow_id = logs.flow_id.get()
        request = messages.request(method, number, params, flow_id)
        channel = None
        try:
            async with asyncio.timeout(timeout_s):
                if self._web is not None:
                    answer = await self._web.ask(number, request, flow_id)
                else:
                    channel = await self._kept_channel()
                    answer = await channel.ask(number, request, flow_id)
        except TimeoutError:
            if self._web is None and channel is None:
                raise ConnectionLost(self.where, f"there was none within {timeout_s:g} s") from None
            raise NoAnswer(method, timeout_s) from None
        return messages.result(answer, method, self.where)

    async def metrics(self, *, timeout_s: float = CALL_TIMEOUT_S) -> str:
        """The agent's figures in Prometheus' text format; for clients over HTTP."""
        assert self._web is not None
        try:
            async with asyncio.timeout(timeout_s):
                return await self._web.get("/metrics")
        except TimeoutError:
            raise NoAnswer("GET /metrics", timeout_s) from None

    async def events(self, *, timeout_s: float = CALL_TIMEOUT_S) -> AsyncGenerator[Notice, None]:
        """Every event from now on, without end; raises `ConnectionLost` when the first connection fails.

        After a lost connection the iterator connects again and yields a notice ``|client|reconnected|``.
        """
        async for notice in await self.listen(timeout_s=timeout_s):
            yield notice

    async def listen(self, *, timeout_s: float = CALL_TIMEOUT_S) -> AsyncGenerator[Notice, None]:
        """As `events`, but connected when it returns: what is published from then on is not missed."""
        return self._notices(await self._way.connect(timeout_s, events=True), timeout_s)

    async def _notices(self, channel: Channel, timeout_s: float) -> AsyncGenerator[Notice, None]:
        pause_s = RECONNECT_S
        while True:
            try:
                while (event := await channel.next_event()) is not None:
                    pause_s = RECONNECT_S
                    parts = str(event.get("method", "")).split("|")
                    params = event.get("params")
                    if len(parts) == 4:
                        yield Notice(parts[1], parts[2], parts[3], params if isinstance(params, dict) else {})
            finally:
                await channel.close()
            while True:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RECONNECT_MAX_S)
                try:
                    channel = await self._way.connect(timeout_s, events=True)
                    break
                except ConnectionLost:
                    continue
            yield Notice("client", RECONNECTED, "", {})

    async def _kept_channel(self) -> Channel:
        async with self._opening:
            if self._channel is None or self._channel.closed:
                self._channel = await self._way.connect(CALL_TIMEOUT_S, events=False)
            return self._channel


def _web(url: str, *, unix: str | None = None, tls: ssl.SSLContext | None = None) -> Web:
    # an HTTP library is more than a STOMP client needs: imported when first asked for
    from vdsm.client.web import Web

    return Web(url, unix=unix, tls=tls)
