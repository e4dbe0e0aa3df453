# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames between our own processes: 4 bytes big-endian length, then JSON in UTF-8.

Standard library only: I/O helpers, which run as ``python3 -I -S``, load it, too.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

MAX_FRAME = 16 << 20
HEADER = struct.Struct(">I")


class FrameTooLong(Exception):
    pass


def encode_frame(message: Any) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME:
        raise FrameTooLong(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return HEADER.pack(len(body)) + body


def body_length(header: bytes) -> int:
    (length,) = HEADER.unpack(header)
    if length > MAX_FRAME:
        raise FrameTooLong(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
    return int(length)


def read_frame(stream: BinaryIO) -> Any:
    """The next message of a blocking stream; EOFError at its end."""
    header = _read_exactly(stream, HEADER.size)
    return json.loads(_read_exactly(stream, body_length(header)))


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.read(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
