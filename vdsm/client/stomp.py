# SPDX-License-Identifier: GPL-2.0-or-later
"""STOMP on the engine's port of this or another host: as the field's own clients speak it (wire.md 2, 3).

    connect, TLS -> CONNECT, SUBSCRIBE replies (, SUBSCRIBE events) -> CONNECTED -> SEND, MESSAGE ...

The peer's silence is an end: heart-beats are asked for, and nothing for twice their time closes the line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import uuid
from collections.abc import AsyncGenerator

from vdsm.client.channel import CLOSE_S, Channel
from vdsm.client.errors import ConnectionLost
from vdsm.client.messages import MAX_ANSWER
from vdsm.common import stomp

PORT = 54321
REQUESTS = "jms.topic.vdsm_requests"
EVENTS = "jms.queue.events"
HEART_BEAT_MS = 15_000
READ_BYTES = 64 << 10
LIMITS = stomp.Limits(body_bytes=MAX_ANSWER)


class Stomp:
    """The way to one agent over its port. ``tls`` None is plain, which an agent takes for reading only."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._host = host
        self._port = port
        self._tls = tls

    async def connect(self, timeout_s: float, *, events: bool) -> Channel:
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
                line = _StompLine(reader, writer, self.where)
                try:
                    await line.open(events=events)
                except BaseException:
                    writer.transport.abort()
                    raise
        except TimeoutError:
            raise ConnectionLost(self.where, f"no STOMP connection within {timeout_s:g} s") from None
        except (OSError, stomp.NotStomp) as e:
            raise ConnectionLost(self.where, _reason(e)) from None
        except (ValueError, OverflowError) as e:
            raise ConnectionLost(self.where, f"that is no address: {e}") from None
        return Channel(line, self.where, events=events)

    async def close(self) -> None:
        """Nothing is kept between channels."""


class _StompLine:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> None:
        self._reader = reader
        self._writer = writer
        self._where = where
        self._parser = stomp.Parser(LIMITS)
        self._replies = str(uuid.uuid4())
        self._silence_s = 2 * HEART_BEAT_MS / 1000
        self._early: list[stomp.Frame] = []

    async def open(self, *, events: bool) -> None:
        self._write("CONNECT", {"accept-version": "1.2", "heart-beat": f"0,{HEART_BEAT_MS}"})
        self._write("SUBSCRIBE", {"destination": self._replies, "ack": "auto", "id": str(uuid.uuid4())})
        if events:
            self._write("SUBSCRIBE", {"destination": EVENTS, "ack": "auto", "id": str(uuid.uuid4())})
        await self._writer.drain()
        while True:
            frames = await self._frames()
            if frames is None:
                raise ConnectionResetError("the agent closed the connection")
            if frames and frames[0].command != "CONNECTED":
                raise ConnectionResetError(f"it answered {frames[0].command}: {_text(frames[0])}")
            if frames:
                self._early = frames[1:]
                return

    async def send(self, message: bytes, flow_id: str) -> None:
        headers = {"destination": REQUESTS, "content-type": "application/json", "reply-to": self._replies}
        if flow_id:
            headers["ovirtCorrelationId"] = flow_id
        self._write("SEND", headers, message)
        await self._writer.drain()

    async def messages(self) -> AsyncGenerator[bytes, None]:
        frames: list[stomp.Frame] | None = self._early
        try:
            while frames is not None:
                for frame in frames:
                    if frame.command == "ERROR":
                        raise ConnectionLost(self._where, f"it answered ERROR: {_text(frame)}")
                    if frame.command == "MESSAGE":
                        yield frame.body
                async with asyncio.timeout(self._silence_s):
                    frames = await self._frames()
        except TimeoutError:
            raise ConnectionLost(self._where, f"it was silent for {self._silence_s:g} s") from None
        except (OSError, stomp.NotStomp) as e:
            raise ConnectionLost(self._where, _reason(e)) from None
        finally:
            # what still wants to send learns of the end at once
            self._writer.transport.abort()

    async def close(self) -> None:
        """A peer that does not read what waits for it, or does not end TLS, is left without more words."""
        self._writer.close()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()

    async def _frames(self) -> list[stomp.Frame] | None:
        """What came next, maybe nothing but a heart-beat; None at the end."""
        data = await self._reader.read(READ_BYTES)
        return self._parser.feed(data) if data else None

    def _write(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        self._writer.write(stomp.encode(stomp.Frame(command, headers, body)))


def _text(frame: stomp.Frame) -> str:
    return frame.body[:200].decode(errors="replace").strip() or str(frame.headers.get("message", ""))


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, OSError) and error.errno:
        # asyncio writes addresses where the error's name belongs; negative numbers are the resolver's
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error) or type(error).__name__
