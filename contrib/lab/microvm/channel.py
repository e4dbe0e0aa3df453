# SPDX-License-Identifier: GPL-2.0-or-later
"""Many unix socket connections over one serial line: how a micro-VM is reached without any of its networks.

The keeper outside accepts connections and opens them by name; the door inside connects to the socket of that name.
A frame is kind (1 byte), stream (4 bytes), length (4 bytes), payload:

    OPEN   payload is the path to connect to      EOF     no more data in this direction
    DATA   payload is data                        RESET   the stream is gone
    TAKEN  payload is how many bytes of its data were delivered (4 bytes)

A stream has at most `WINDOW` bytes on their way, so memory is bounded, and one that nobody reads holds up itself only.
Standard library only: the door runs it under ``python3 -I -S``.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

OPEN, DATA, EOF, RESET, TAKEN = 1, 2, 3, 4, 5
HEAD = struct.Struct(">BII")
COUNT = struct.Struct(">I")
CHUNK = 64 << 10
WINDOW = 1 << 20
# what waits for the line itself
FULL = 1 << 20


@dataclass
class Stream:
    number: int
    connection: socket.socket
    # what the line brought and the connection has not taken
    outgoing: bytearray = field(default_factory=bytearray)
    # how much the other side takes before it tells that it has delivered some
    credit: int = WINDOW
    line_ended: bool = False
    local_ended: bool = False


class Channel:
    """One end of the line. ``listeners``: where connections are accepted, and the path each means on the other side."""

    def __init__(self, line: int, listeners: Mapping[socket.socket, str]) -> None:
        os.set_blocking(line, False)
        self._line = line
        self._listeners = dict(listeners)
        self._streams: dict[int, Stream] = {}
        self._incoming = bytearray()
        self._outgoing = bytearray()
        # the accepting side numbers upwards; only one side accepts
        self._next = 1
        self._selector = selectors.DefaultSelector()
        self._registered: dict[int | socket.socket, int] = {}

    def serve(self, also: Mapping[int, Callable[[], bool]] | None = None) -> None:
        """Until the line ends, or a callback of ``also`` (readable descriptors of the caller) returns False."""
        also = also or {}
        for descriptor in also:
            self._selector.register(descriptor, selectors.EVENT_READ)
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ)
        while True:
            self._watch()
            for key, events in self._selector.select():
                source = key.fileobj
                if source in also:
                    if not also[key.fd]():
                        return
                elif source == self._line:
                    if not self._serve_line(events):
                        return
                elif source in self._listeners:
                    assert isinstance(source, socket.socket)
                    self._accept(source)
                elif isinstance(key.data, Stream) and key.data.number in self._streams:
                    self._serve_stream(key.data, events)

    # -- what to wait for

    def _watch(self) -> None:
        wanted: dict[int | socket.socket, tuple[int, Stream | None]] = {}
        wanted[self._line] = (selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0), None)
        for stream in self._streams.values():
            events = selectors.EVENT_WRITE if stream.outgoing else 0
            if not stream.local_ended and stream.credit and len(self._outgoing) < FULL:
                events |= selectors.EVENT_READ
            if events:
                wanted[stream.connection] = (events, stream)
        for source in [source for source in self._registered if source not in wanted]:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(source)
            del self._registered[source]
        for source, (events, data) in wanted.items():
            if source not in self._registered:
                self._selector.register(source, events, data)
            elif self._registered[source] != events:
                self._selector.modify(source, events, data)
            self._registered[source] = events

    # -- the line

    def _serve_line(self, events: int) -> bool:
        if events & selectors.EVENT_WRITE and self._outgoing:
            with contextlib.suppress(BlockingIOError):
                del self._outgoing[: os.write(self._line, self._outgoing[:CHUNK])]
        if events & selectors.EVENT_READ:
            try:
                data = os.read(self._line, CHUNK)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._incoming += data
            self._take_frames()
        return True

    def _take_frames(self) -> None:
        while len(self._incoming) >= HEAD.size:
            kind, number, length = HEAD.unpack_from(self._incoming)
            if len(self._incoming) < HEAD.size + length:
                return
            payload = bytes(self._incoming[HEAD.size : HEAD.size + length])
            del self._incoming[: HEAD.size + length]
            self._take(kind, number, payload)

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind == OPEN:
            self._connect(number, payload.decode())
            return
        stream = self._streams.get(number)
        if stream is None:
            return
        if kind == DATA:
            stream.outgoing += payload
        elif kind == TAKEN:
            stream.credit += COUNT.unpack(payload)[0]
        elif kind == EOF:
            stream.line_ended = True
            self._settle(stream)
        else:
            self._drop(stream)

    def _send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self._outgoing += HEAD.pack(kind, number, len(payload)) + payload

    # -- the connections

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        number, self._next = self._next, self._next + 1
        self._streams[number] = Stream(number, connection)
        self._send(OPEN, number, self._listeners[listener].encode())

    def _connect(self, number: int, path: str) -> None:
        connection = socket.socket(socket.AF_UNIX)
        # a listener that accepts nothing must not hold up the others: it is as good as none
        connection.setblocking(False)
        try:
            connection.connect(path)
        except OSError:
            connection.close()
            self._send(RESET, number)
            return
        self._streams[number] = Stream(number, connection)

    def _serve_stream(self, stream: Stream, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE and stream.outgoing:
                delivered = stream.connection.send(stream.outgoing[:CHUNK])
                del stream.outgoing[:delivered]
                self._send(TAKEN, stream.number, COUNT.pack(delivered))
                self._settle(stream)
            if events & selectors.EVENT_READ and not stream.local_ended and stream.credit:
                data = stream.connection.recv(min(CHUNK, stream.credit))
                if data:
                    stream.credit -= len(data)
                    self._send(DATA, stream.number, data)
                else:
                    stream.local_ended = True
                    self._send(EOF, stream.number)
                    self._settle(stream)
        except BlockingIOError:
            pass
        except OSError:
            self._send(RESET, stream.number)
            self._drop(stream)

    def _settle(self, stream: Stream) -> None:
        """Pass the other side's end on, once all before it is delivered; close when both directions have ended."""
        if stream.line_ended and not stream.outgoing:
            with contextlib.suppress(OSError):
                stream.connection.shutdown(socket.SHUT_WR)
            if stream.local_ended:
                self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)
        if self._registered.pop(stream.connection, None) is not None:
            self._selector.unregister(stream.connection)
        stream.connection.close()
