# SPDX-License-Identifier: GPL-2.0-or-later
"""The index of external leases: which lease id has which slot of the volume ``xleases``.

One metadata block of 512 bytes, then 3960 records of 64 bytes. The slot of a record follows from
its number; the offset that the record states is only for readers' eyes. A record marked as being
updated stands for no lease.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from storage.errors import InvalidContent
from storage.ondisk.layout import xlease_offset
from vdsm.common.ids import is_uuid

INDEX_SIZE = 62 * 4096
METADATA_SIZE = 512
RECORD_SIZE = 64
MAX_RECORDS = (INDEX_SIZE - METADATA_SIZE) // RECORD_SIZE

MAGIC = 0x12152016
_METADATA = struct.Struct(">I x 4s x 48s x 10s x 1s 440x 1s")
_RECORD = struct.Struct("48s x 11s x 1s 1s 1s")
_UPDATING, _NORMAL = b"u", b"-"
_DIGITS = re.compile(rb"[0-9]+\Z")

assert _METADATA.size == METADATA_SIZE and _RECORD.size == RECORD_SIZE


@dataclass(frozen=True)
class IndexMetadata:
    lockspace: str
    mtime: int
    updating: bool


@dataclass(frozen=True)
class Record:
    """``lease_id`` is empty for a free record."""

    lease_id: str = ""
    offset: int = 0
    updating: bool = False

    @property
    def free(self) -> bool:
        return not self.lease_id


def encode_metadata(metadata: IndexMetadata) -> bytes:
    return _METADATA.pack(
        MAGIC,
        b"0001",
        metadata.lockspace.encode("ascii"),
        b"%010d" % metadata.mtime,
        _UPDATING if metadata.updating else _NORMAL,
        b"\n",
    )


def decode_metadata(data: bytes, where: str) -> IndexMetadata:
    """Raises `InvalidContent`: the index then needs to be formatted anew."""
    if len(data) < METADATA_SIZE:
        raise InvalidContent(where, f"{len(data)} bytes are no index metadata")
    magic, version, lockspace, mtime, updating, _ = _METADATA.unpack(data[:METADATA_SIZE])
    if magic != MAGIC:
        raise InvalidContent(where, f"its magic is {magic:#010x}, expected {MAGIC:#010x}")
    if version != b"0001":
        raise InvalidContent(where, f"its version is {version!r}")
    if not _DIGITS.match(mtime):
        raise InvalidContent(where, f"its time is {mtime!r}")
    return IndexMetadata(_name(lockspace, where), int(mtime), _flag(updating, where))


def encode_record(record: Record) -> bytes:
    return _RECORD.pack(
        record.lease_id.encode("ascii"),
        b"%011d" % record.offset,
        _UPDATING if record.updating else _NORMAL,
        _NORMAL,
        b"\n",
    )


def decode_record(data: bytes, where: str) -> Record:
    """Raises `InvalidContent`."""
    if len(data) != RECORD_SIZE:
        raise InvalidContent(where, f"{len(data)} bytes are no record")
    lease_id, offset, updating, _, _ = _RECORD.unpack(data)
    name = _name(lease_id, where)
    if name and not is_uuid(name):
        raise InvalidContent(where, f"its lease id is {name[:48]!r}")
    if not _DIGITS.match(offset):
        raise InvalidContent(where, f"its offset is {offset!r}")
    return Record(name, int(offset), _flag(updating, where))


def record_at(number: int, lease_id: str, align: int) -> Record:
    """The record of a new lease. The offset follows from the number."""
    return Record(lease_id, xlease_offset(number, align))


def record_offset(number: int) -> int:
    """Where a record lies within the index."""
    if not 0 <= number < MAX_RECORDS:
        raise ValueError(f"no record {number}")
    return METADATA_SIZE + number * RECORD_SIZE


def empty_index(lockspace: str, mtime: int, *, updating: bool) -> bytes:
    """The whole index without a lease."""
    records = encode_record(Record()) * MAX_RECORDS
    return encode_metadata(IndexMetadata(lockspace, mtime, updating)) + records


def _name(data: bytes, where: str) -> str:
    name, _, rest = data.partition(b"\0")
    if rest.strip(b"\0"):
        raise InvalidContent(where, "a name is followed by bytes other than NUL")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidContent(where, f"a name is {name[:48]!r}") from None


def _flag(data: bytes, where: str) -> bool:
    if data not in (_UPDATING, _NORMAL):
        raise InvalidContent(where, f"a flag is {data!r}")
    return data == _UPDATING
