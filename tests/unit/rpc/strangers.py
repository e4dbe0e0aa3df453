"""Servers that are no agent: each does what a test says, over STOMP, HTTP or a WebSocket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable

from vdsm.client import Client

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CONNECTED = b"CONNECTED\nversion:1.2\n\n\0"
WAYS = ("stomp", "http", "ws")


@contextlib.asynccontextmanager
async def stranger(way: str, behave: Behaviour) -> AsyncIterator[Client]:
    """A client of a server that behaves so on each connection, and then lies still until the test ends."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await behave(reader, writer)
            await over.wait()
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        client = Client.stomp("127.0.0.1", port) if way == "stomp" else getattr(Client, way)(url)
        try:
            async with client:
                yield client
        finally:
            over.set()


def says(data: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(data)
        await writer.drain()

    return behave


def answers(way: str, body: bytes) -> Behaviour:
    """The first call gets that body as its answer."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if way == "stomp":
            writer.write(CONNECTED)
            await reader.readuntil(b"SEND")
            writer.write(b"MESSAGE\ncontent-length:%d\n\n%b\0" % (len(body), body))
        elif way == "http":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        else:
            await upgrade(reader, writer)
            await reader.read(1)
            writer.write(b"\x82\x7f%b%b" % (len(body).to_bytes(8, "big"), body))
        await writer.drain()

    return behave


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
    assert found is not None
    key = hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    writer.write(
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: "
        + base64.b64encode(key)
        + b"\r\n\r\n"
    )
