# SPDX-License-Identifier: GPL-2.0-or-later
"""What sanlock writes into ``ids``, ``leases`` and lease files: read only.

A lockspace has one *delta lease* per host, in sector (host id - 1). A resource has a leader record in
sector 0, a request in sector 1, and one block per host in sector (host id + 1). All little endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from storage.errors import ChecksumMismatch, InvalidContent
from storage.ondisk.crc32c import checksum

_LEADER = struct.Struct("<IIIIQQQQQ48s48sQQ I HH QQQ")
_CHECKED = 168
_BLOCK = struct.Struct("<QQQQQQ I I")
_BLOCK_CHECKED = 48
_REQUEST = struct.Struct("<IIQI")
_MODE = struct.Struct("<IQ")
_MODE_OFFSET = 128

REQUEST_MAGIC = 0x08292011
SHARED = 1
RELEASED = 1

_ALIGN_FLAGS = {0x10: 1 << 20, 0x20: 2 << 20, 0x40: 4 << 20, 0x80: 8 << 20}

EVENTS_OFFSET, EVENTS_SIZE = 256, 256


class Magic(IntEnum):
    DELTA = 0x12212010
    PAXOS = 0x06152010
    CLEARED = 0x11282016


_VERSIONS = {Magic.DELTA: 0x00030000, Magic.PAXOS: 0x00060000}


@dataclass(frozen=True)
class Leader:
    magic: Magic
    version: int
    flags: int
    sector: int
    num_hosts: int
    max_hosts: int
    owner_id: int
    owner_generation: int
    lver: int
    space: str
    resource: str
    timestamp: int
    io_timeout: int

    @property
    def free(self) -> bool:
        return self.timestamp == 0

    @property
    def alignment(self) -> int:
        """Bytes; 0 when the record is too old to say."""
        return next((size for flag, size in _ALIGN_FLAGS.items() if self.flags & flag), 0)


@dataclass(frozen=True)
class HostBlock:
    """One host's part in the election of a resource's owner."""

    mbal: int
    bal: int
    host_id: int
    generation: int
    time: int
    lver: int
    released: bool
    shared: bool
    shared_generation: int


@dataclass(frozen=True)
class Request:
    lver: int
    force_mode: int


def decode_leader(data: bytes, where: str) -> Leader:
    """Raises `InvalidContent`, `ChecksumMismatch`."""
    if len(data) < _LEADER.size:
        raise InvalidContent(where, f"{len(data)} bytes are no leader record")
    fields = _LEADER.unpack(data[: _LEADER.size])
    magic, version, flags, sector, num_hosts, max_hosts, owner, generation, lver = fields[:9]
    space, resource, timestamp, _, stored, _, io_timeout = fields[9:16]
    try:
        kind = Magic(magic)
    except ValueError:
        raise InvalidContent(where, f"its magic is {magic:#010x}") from None
    if kind in _VERSIONS and version & 0xFFFF0000 != _VERSIONS[kind]:
        raise InvalidContent(where, f"its version is {version:#010x}")
    found = checksum(data[:_CHECKED])
    if stored != found:
        raise ChecksumMismatch(where, f"{stored:#010x}", f"{found:#010x}")
    return Leader(
        kind,
        version,
        flags,
        sector,
        num_hosts,
        max_hosts,
        owner,
        generation,
        lver,
        _name(space, where),
        _name(resource, where),
        timestamp,
        io_timeout,
    )


def decode_host_block(data: bytes, where: str) -> HostBlock | None:
    """None for a host that never took part. Raises `ChecksumMismatch`, `InvalidContent`."""
    if len(data) < _MODE_OFFSET + _MODE.size:
        raise InvalidContent(where, f"{len(data)} bytes are no host block")
    if not any(data[: _BLOCK.size]):
        return None
    mbal, bal, host_id, generation, time, lver, stored, flags = _BLOCK.unpack(data[: _BLOCK.size])
    found = checksum(data[:_BLOCK_CHECKED])
    if stored and stored != found:
        raise ChecksumMismatch(where, f"{stored:#010x}", f"{found:#010x}")
    mode, shared_generation = _MODE.unpack_from(data, _MODE_OFFSET)
    return HostBlock(
        mbal, bal, host_id, generation, time, lver, bool(flags & RELEASED), bool(mode & SHARED), shared_generation
    )


def decode_request(data: bytes, where: str) -> Request | None:
    """None when nobody asked. Raises `InvalidContent`."""
    if len(data) < _REQUEST.size:
        raise InvalidContent(where, f"{len(data)} bytes are no request record")
    magic, version, lver, force_mode = _REQUEST.unpack(data[: _REQUEST.size])
    if magic != REQUEST_MAGIC or version >> 16 != 1:
        if not any(data[: _REQUEST.size]):
            return None
        raise InvalidContent(where, f"its magic is {magic:#010x}, its version {version:#010x}")
    return Request(lver, force_mode) if lver or force_mode else None


def events(data: bytes) -> frozenset[int]:
    """Host ids whose bit is set in a delta lease's event bitmap."""
    bitmap = data[EVENTS_OFFSET : EVENTS_OFFSET + EVENTS_SIZE]
    return frozenset(8 * i + bit + 1 for i, byte in enumerate(bitmap) for bit in range(8) if byte & (1 << bit))


def _name(data: bytes, where: str) -> str:
    try:
        return data.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        raise InvalidContent(where, f"a name is {data!r}") from None
