# SPDX-License-Identifier: GPL-2.0-or-later
"""The storage mailbox: how hosts ask the SPM over the disk to extend volumes.

A mailbox has 4096 bytes: 64 slots of 64 bytes, of which the last holds only the checksum. Host N's
mailbox lies at N * 4096 of ``inbox`` (its requests) and ``outbox`` (the SPM's answers). Mailbox 0 of the
inbox holds the event block: whoever sent mail puts a new random id there.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

from storage.errors import ContentTooLong, InvalidContent
from vdsm.common.units import MiB

MAILBOX_SIZE = 4096
SLOT_SIZE = 64
SLOTS = 63
CHECKSUM_OFFSET = MAILBOX_SIZE - 4

VERSION = b"1"
EXTEND = b"xtnd"
PADDING = b"0" * 11
CLEAN = b"\x01" * SLOT_SIZE
EMPTY = b"\0" * SLOT_SIZE
KEY_SIZE = 37
"""Bytes by which an answer is matched to its request: all but the size."""

MAX_SIZE_MIB = (1 << 64) - 1

EVENT_MAGIC = b"\0evt"
EVENT_SIZE = 20

_CHECKSUM = struct.Struct("<i")


@dataclass(frozen=True)
class ExtendMessage:
    """``size_mib`` is the absolute size wanted; 0 in an answer tells a failure."""

    domain_id: str
    volume_id: str
    size_mib: int

    @property
    def size(self) -> int:
        return self.size_mib * MiB


def pack_uuid(text: str) -> bytes:
    """The 128-bit number, little endian."""
    return uuid.UUID(text).bytes[::-1]


def unpack_uuid(data: bytes) -> str:
    return str(uuid.UUID(bytes=data[::-1]))


def encode_message(message: ExtendMessage) -> bytes:
    if not 0 <= message.size_mib <= MAX_SIZE_MIB:
        raise ContentTooLong("mailbox message", message.size_mib, MAX_SIZE_MIB)
    ids = pack_uuid(message.domain_id) + pack_uuid(message.volume_id)
    return VERSION + EXTEND + ids + b"%016x" % message.size_mib + PADDING


def decode_message(data: bytes, where: str) -> ExtendMessage | None:
    """None for an empty or a CLEAN slot. Raises `InvalidContent`."""
    if len(data) != SLOT_SIZE:
        raise InvalidContent(where, f"{len(data)} bytes are no message")
    if data[:1] == b"\0" or data == CLEAN:
        return None
    if data[:1] != VERSION or data[1:5] != EXTEND:
        raise InvalidContent(where, f"a message begins with {data[:5]!r}")
    size = data[37:53]
    if not all(c in b"0123456789abcdef" for c in size):
        raise InvalidContent(where, f"a message's size is {size!r}")
    return ExtendMessage(unpack_uuid(data[5:21]), unpack_uuid(data[21:37]), int(size, 16))


def checksum(mailbox: bytes) -> bytes:
    """The four bytes that end a mailbox: the sum of all before them."""
    return _CHECKSUM.pack(sum(mailbox[:CHECKSUM_OFFSET]))


def encode_mailbox(slots: dict[int, bytes]) -> bytes:
    """A mailbox with these slots (messages or `CLEAN`), the others empty. A wholly empty one is all NUL."""
    data = bytearray(MAILBOX_SIZE)
    for number, content in slots.items():
        if not 0 <= number < SLOTS or len(content) != SLOT_SIZE:
            raise InvalidContent("mailbox", f"slot {number} of {len(content)} bytes")
        data[number * SLOT_SIZE : (number + 1) * SLOT_SIZE] = content
    data[CHECKSUM_OFFSET:] = checksum(bytes(data))
    return bytes(data)


def decode_mailbox(data: bytes, where: str) -> list[bytes]:
    """The 63 slots. Raises `InvalidContent` for a torn one: it is read again by the next pass."""
    if len(data) != MAILBOX_SIZE:
        raise InvalidContent(where, f"{len(data)} bytes are no mailbox")
    stored, found = data[CHECKSUM_OFFSET:], checksum(data)
    if stored != found:
        raise InvalidContent(where, f"its checksum is {stored.hex()}, its content has {found.hex()}")
    return [data[i * SLOT_SIZE : (i + 1) * SLOT_SIZE] for i in range(SLOTS)]


def encode_event(event_id: str) -> bytes:
    return EVENT_MAGIC + uuid.UUID(event_id).bytes


def decode_event(data: bytes) -> str | None:
    """The id in the event block; None when nobody ever sent one."""
    if data[:4] != EVENT_MAGIC or len(data) < EVENT_SIZE:
        return None
    return str(uuid.UUID(bytes=data[4:EVENT_SIZE]))
