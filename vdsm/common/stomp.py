# SPDX-License-Identifier: GPL-2.0-or-later
"""STOMP 1.2 frames, as pure functions: bytes to frames as they come, and back (wire.md 2).

Both sides of our wire use it: the agent's port and the client. It takes what the clients of the field send (line ends
with or without CR, values with raw colons, escapes that mean nothing) and writes only what the strictest of their
parsers takes: bare line feeds and an exact ``content-length``. Memory is bounded by `Limits`, time is linear.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vdsm.common.errors import AgentError

HEART_BEAT: Final = b"\n"
SENT_BY_CLIENTS: Final = (
    "CONNECT",
    "STOMP",
    "SEND",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "ACK",
    "NACK",
    "BEGIN",
    "COMMIT",
    "ABORT",
)
COMMANDS: Final = frozenset((*SENT_BY_CLIENTS, "DISCONNECT", "CONNECTED", "MESSAGE", "RECEIPT", "ERROR"))
_LONGEST_COMMAND = max(map(len, COMMANDS))
_LONGEST_LINE = _LONGEST_COMMAND + len("\r\n")
_FIRST_LINES = tuple(command.encode() + end for command in (*SENT_BY_CLIENTS, "MESSAGE") for end in (b"\n", b"\r\n"))
# a client's heads differ in the length of the body only, if at all: parsed once
_SHORT_HEAD = 512
_HEADS_KEPT = 256
# frames whose headers are never escaped, for the sake of 1.0 clients (STOMP 1.2, "Value Encoding")
_VERBATIM = frozenset({"CONNECT", "CONNECTED"})
_ESCAPES = {"\\r": "\r", "\\n": "\n", "\\c": ":", "\\\\": "\\"}
_UNESCAPE = re.compile(r"\\[rnc\\]")
_ESCAPE = re.compile(r"[\r\n:\\]")
_TO_ESCAPE = {plain: escape for escape, plain in _ESCAPES.items()}
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_BETWEEN_FRAMES = re.compile(rb"[\r\n]*")


class NotStomp(AgentError):
    """What came is no frame, or larger than allowed: the connection can't go on."""

    reason: str
    msg = "Not a STOMP frame: {self.reason}"


@dataclass(frozen=True)
class Limits:
    head_bytes: int = 16 << 10
    headers: int = 64
    body_bytes: int = 16 << 20


@dataclass(frozen=True)
class Frame:
    """Frames may share their headers: nobody changes them."""

    command: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def encode(frame: Frame) -> bytes:
    """The frame with its ``content-length`` where it has a body."""
    return with_body(head(frame), frame.body) if frame.body else head(frame) + b"\n\0"


def head(frame: Frame) -> bytes:
    """Command and headers, which do not end yet: for who sends many bodies below the same ones."""
    verbatim = frame.command in _VERBATIM
    lines = [frame.command]
    lines += [
        f"{name}:{value}" if verbatim else f"{_escape(name)}:{_escape(value)}"
        for name, value in frame.headers.items()
        if name != "content-length" or not frame.body
    ]
    return "\n".join(lines).encode() + b"\n"


def with_body(head: bytes, body: bytes) -> bytes:
    """A frame in one piece, copied once: a body may be large."""
    return b"".join((head, b"content-length:%d\n\n" % len(body), body, b"\0"))


class Parser:
    """Whole frames of the bytes that came so far. Empty lines between frames are heart-beats and give nothing.

    Whoever wants all of them uses ``feed``; whoever must not be kept long by one read uses ``add`` and then
    ``next_frame``, as often as there is time.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._buffer = bytearray()
        # how much of the buffer was searched already
        self._searched = 0
        self._head: Frame | None = None
        self._length: int | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """Raises `NotStomp`; the parser is of no use then."""
        self.add(data)
        frames = []
        while (frame := self.next_frame()) is not None:
            frames.append(frame)
        return frames

    def add(self, data: bytes) -> None:
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """The oldest frame that is whole, None when more bytes are needed. Raises `NotStomp` as ``feed`` does."""
        if self._head is None and not self._take_head():
            return None
        return self._take_body()

    def _take_head(self) -> bool:
        if self._searched == 0:
            # only the line ends are looked at: what follows them may be many frames, and this is done for each
            between = _BETWEEN_FRAMES.match(self._buffer)
            assert between is not None
            del self._buffer[: between.end()]
        if self._searched < _LONGEST_LINE:
            self._check_command()
        end = _END_OF_HEAD.search(self._buffer, max(0, self._searched - 2))
        if end is None or end.start() > self._limits.head_bytes:
            # the end of a head of just that size may still lack its last byte
            if len(self._buffer) > self._limits.head_bytes + len("\n\r"):
                raise NotStomp(f"headers of more than {self._limits.head_bytes} bytes")
            self._searched = len(self._buffer)
            return False
        head = bytes(self._buffer[: end.start()])
        del self._buffer[: end.end()]
        self._searched = 0
        parse = _parse_short_head if len(head) <= _SHORT_HEAD else _parse_head
        self._head = parse(head, self._limits.headers)
        self._length = self._content_length(self._head)
        return True

    def _check_command(self) -> None:
        """Refuse what can't become a frame before its headers are waited for."""
        if self._buffer.startswith(_FIRST_LINES):
            return
        start = bytes(self._buffer[:_LONGEST_LINE])
        word, ended, _ = start.partition(b"\n")
        text = word.decode("ascii", "replace")
        known = (
            text.removesuffix("\r") in COMMANDS
            if ended
            else any(f"{command}\r".startswith(text) for command in COMMANDS)
        )
        if not known:
            raise NotStomp(f"it begins with {text[:_LONGEST_COMMAND]!r}")

    def _content_length(self, head: Frame) -> int | None:
        text = head.headers.get("content-length")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise NotStomp(f"content-length {text[:20]!r}")
        if int(text) > self._limits.body_bytes:
            raise NotStomp(f"a body of {text} bytes, {self._limits.body_bytes} are allowed")
        return int(text)

    def _take_body(self) -> Frame | None:
        assert self._head is not None
        if self._length is not None:
            if len(self._buffer) <= self._length:
                return None
            if self._buffer[self._length] != 0:
                raise NotStomp("no NUL after the body: content-length is wrong")
            size = self._length
        else:
            size = self._buffer.find(0, self._searched, self._limits.body_bytes + 1)
            if size < 0:
                if len(self._buffer) > self._limits.body_bytes:
                    raise NotStomp(f"a body of more than {self._limits.body_bytes} bytes")
                self._searched = len(self._buffer)
                return None
        frame = Frame(self._head.command, self._head.headers, bytes(self._buffer[:size]))
        del self._buffer[: size + 1]
        self._head, self._length, self._searched = None, None, 0
        return frame


def _parse_head(head: bytes, most: int) -> Frame:
    try:
        lines = head.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise NotStomp("headers that are not UTF-8") from None
    command, *fields = (line.removesuffix("\r") for line in lines)
    if len(fields) > most:
        raise NotStomp(f"{len(fields)} headers, {most} are allowed")
    headers: dict[str, str] = {}
    for line in fields:
        name, colon, value = line.partition(":")
        if not colon or not name:
            raise NotStomp(f"header {line[:40]!r}")
        if command not in _VERBATIM:
            name, value = _unescape(name), _unescape(value)
        # the first of several wins
        headers.setdefault(name, value)
    return Frame(command, headers)


_parse_short_head = functools.lru_cache(_HEADS_KEPT)(_parse_head)


def _unescape(text: str) -> str:
    return _UNESCAPE.sub(lambda found: _ESCAPES[found[0]], text) if "\\" in text else text


def _escape(text: str) -> str:
    return _ESCAPE.sub(lambda found: _TO_ESCAPE[found[0]], text)
