# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripted peers: the byte sequences of the field's two client libraries (wire.md 2), over real connections.

They decode by their own rules, not by the agent's parser: the Java one as strictly as that library, record by record.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import uuid
from typing import Any

JAVA_HEAD = 1024
REQUESTS, RESPONSES, EVENTS = "jms.topic.vdsm_requests", "jms.topic.vdsm_responses", "jms.queue.events"


class JavaPeer:
    """The engine's transport: takes one frame from one record, whole header block within its first 1024 bytes."""

    def __init__(self, port: int, context: ssl.SSLContext | None, connected: socket.socket | None = None) -> None:
        """``connected``: a socket to use instead of a new one to this machine's port."""
        self._port = port
        self._context = context
        self._connected = connected
        self.events: list[dict[str, Any]] = []
        self.beats = 0
        self.records: list[bytes] = []

    async def connect(self, heart_beat: str = "0,15000") -> dict[str, str]:
        """Returns CONNECTED's headers. Over TLS it connects first, in plain mode it subscribes first."""
        if self._connected is not None:
            self._reader, self._writer = await asyncio.open_connection(sock=self._connected)
        else:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._bio_in, self._bio_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if self._context is not None:
            self._tls = self._context.wrap_bio(self._bio_in, self._bio_out, server_hostname="127.0.0.1")
            await self._shake()
        connect = f"CONNECT\naccept-version:1.2\nhost:null\nheart-beat:{heart_beat}\n\n\0"
        subscribe = [
            f"SUBSCRIBE\ndestination:{queue}\nack:auto\nid:{uuid.uuid4()}\n\n\0" for queue in (EVENTS, RESPONSES)
        ]
        for frame in [connect, *subscribe] if self._tls else [*subscribe, connect]:
            self.write(frame.encode())
        command, headers, _ = await self.frame()
        assert command == "CONNECTED"
        return headers

    async def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        identifier = str(uuid.uuid4())
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params or {}, "id": identifier}).encode()
        head = f"SEND\ndestination:{REQUESTS}\nreply-to:{RESPONSES}\ncontent-length:{len(body)}\n\n"
        self.write(head.encode() + body + b"\0")
        while True:
            _, _, body = await self.frame()
            message = json.loads(body)
            if "id" not in message:
                self.events.append(message)
            elif message["id"] == identifier:
                assert "error" not in message or message["error"] is not None
                return message

    async def frame(self) -> tuple[str, dict[str, str], bytes]:
        """One frame from one record; a line feed by itself is a heart-beat."""
        while True:
            record = await self.record()
            if record == b"\n":
                self.beats += 1
                continue
            head, _, body = record[:JAVA_HEAD].partition(b"\n\n")
            assert b"\r" not in head
            assert record.count(b"\0") <= 1 or b"content-length" in head
            command, *lines = head.decode().split("\n")
            headers = dict(line.split(":", 1) for line in lines)
            body = record[len(head) + 2 :]
            length = int(headers.get("content-length", len(body) - 1))
            while len(body) <= length:  # a body may go on in the next records
                body += await self.record()
            assert body[length:] == b"\0", "a second frame in the same record"
            return command, headers, body[:length]

    async def record(self) -> bytes:
        """What one TLS record carries; in plain mode what one read gives."""
        if self._tls is None:
            data = await self._reader.read(65536)
            if not data:
                raise ConnectionError("closed")
            return data
        while True:
            head = await self._reader.readexactly(5)
            self._bio_in.write(head + await self._reader.readexactly(int.from_bytes(head[3:], "big")))
            try:
                plain = self._tls.read(65536)
            except ssl.SSLWantReadError:
                continue  # a record of the protocol's own
            if not plain:
                raise ConnectionError("closed")
            self.records.append(plain)
            return plain

    def write(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
            data = self._bio_out.read()
        self._writer.write(data)

    async def close(self) -> None:
        """As the engine does: UNSUBSCRIBE and DISCONNECT never leave it."""
        self._writer.close()

    async def _shake(self) -> None:
        assert self._tls is not None
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._writer.write(self._bio_out.read())
                data = await self._reader.read(65536)
                if not data:
                    raise ConnectionError("closed in the handshake") from None
                self._bio_in.write(data)
        self._writer.write(self._bio_out.read())


class PythonPeer:
    """The field's Python client: CONNECT and SUBSCRIBE at once, each call a batch of one, queues of its own."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self._port = port
        self._context = context
        self._reply = str(uuid.uuid4())
        self._ids: list[str] = []
        self.events: list[dict[str, Any]] = []

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
        self._writer.write(b"CONNECT\naccept-version:1.2\nheart-beat:0,24000\n\n\0")
        self.subscribe(self._reply)
        command, _, _ = await self._frame()
        assert command == "CONNECTED"

    def subscribe(self, queue: str) -> None:
        self._ids.append(str(uuid.uuid4()))
        frame = f"SUBSCRIBE\ndestination:{queue}\nack:auto\nid:{self._ids[-1]}\n\n\0"
        self._writer.write(frame.encode())

    async def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        identifier = str(uuid.uuid4())
        request = {"jsonrpc": "2.0", "method": method, "params": params or {}, "id": identifier}
        self.send(json.dumps([request]).encode())
        while True:
            message = await self.message()
            if "id" in message:
                assert message["id"] == identifier
                return message
            self.events.append(message)

    def send(self, *bodies: bytes) -> None:
        """Each in a frame of its own, all in one write."""
        head = f"SEND\ncontent-type:application/json\nreply-to:{self._reply}\ndestination:{REQUESTS}\n"
        frames = [f"{head}content-length:{len(body)}\n\n".encode() + body + b"\0" for body in bodies]
        self._writer.write(b"".join(frames))

    async def message(self) -> dict[str, Any]:
        """The next MESSAGE that is one of its subscriptions; others it drops."""
        while True:
            command, headers, body = await self._frame()
            if command == "MESSAGE" and headers.get("subscription") in self._ids:
                message = json.loads(body)
                assert isinstance(message, dict)
                return message

    async def _frame(self) -> tuple[str, dict[str, str], bytes]:
        head = (await self._reader.readuntil(b"\n\n")).lstrip(b"\n")
        command, *lines = head.decode().strip("\n").split("\n")
        headers = dict(line.split(":", 1) for line in lines)
        body = (await self._reader.readuntil(b"\0"))[:-1]
        assert len(body) == int(headers.get("content-length", len(body)))
        return command, headers, body

    async def close(self) -> None:
        self._writer.close()
