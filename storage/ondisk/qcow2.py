# SPDX-License-Identifier: GPL-2.0-or-later
"""The beginning of a qcow2 image: where QEMU would look for the rest of it.

A guest may write such a beginning into a raw disk, and an upload brings its own, so nothing of it is
trusted: everything has a bound, and only what QEMU itself takes as that is read as a name or a format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from storage.errors import InvalidContent

HEAD_SIZE = 64 << 10
"""Bytes to read: names and extensions follow the header at once in what QEMU writes."""

MAGIC = b"QFI\xfb"
MAX_NAME = 1023

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
KNOWN = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE_NAME = 0x44415441


@dataclass(frozen=True)
class Header:
    virtual_size: int
    backing_file: str
    """Empty when the image has none."""
    backing_format: str
    """Empty when it is not stated: QEMU would then guess it from the backing file's content."""
    incompatible: int
    encryption: int
    data_file: str

    @property
    def has_data_file(self) -> bool:
        return bool(self.incompatible & DATA_FILE or self.data_file)

    @property
    def unknown_features(self) -> int:
        return self.incompatible & ~KNOWN


def decode(data: bytes, where: str) -> Header:
    """From the first `HEAD_SIZE` bytes. Raises `InvalidContent` naming ``where``."""
    if not data.startswith(MAGIC):
        raise InvalidContent(where, "it is no qcow2 image")
    if len(data) < _V2.size:
        raise InvalidContent(where, f"it ends within its qcow2 header, after {len(data)} bytes")
    _, version, name_at, name_size, cluster_bits, virtual_size, encryption, *_ = _V2.unpack_from(data)
    if version not in (2, 3):
        raise InvalidContent(where, f"it is qcow2 of version {version}")
    if not 9 <= cluster_bits <= 21:
        raise InvalidContent(where, f"its clusters have 2^{cluster_bits} bytes")
    if virtual_size >= 1 << 63:
        raise InvalidContent(where, f"its virtual size is {virtual_size}")
    incompatible, length = _features(data, version, where)
    end = min(name_at or 1 << cluster_bits, 1 << cluster_bits)
    found = _extensions(data, length, end, where)
    return Header(
        virtual_size=virtual_size,
        backing_file=_name(data, name_at, name_size, 1 << cluster_bits, where) if name_at else "",
        backing_format=found.get(_BACKING_FORMAT, ""),
        incompatible=incompatible,
        encryption=encryption,
        data_file=found.get(_DATA_FILE_NAME, ""),
    )


def _features(data: bytes, version: int, where: str) -> tuple[int, int]:
    """Incompatible features and the header's length."""
    if version == 2:
        return 0, _V2.size
    if len(data) < _V2.size + _V3.size:
        raise InvalidContent(where, f"it ends within its qcow2 header, after {len(data)} bytes")
    incompatible, _, _, _, length = _V3.unpack_from(data, _V2.size)
    if length < _V2.size + _V3.size:
        raise InvalidContent(where, f"its qcow2 header has {length} bytes")
    return incompatible, length


def _extensions(data: bytes, place: int, end: int, where: str) -> dict[int, str]:
    """The texts among the header's extensions, by type."""
    found: dict[int, str] = {}
    while place + _EXTENSION.size <= end:
        if place + _EXTENSION.size > len(data):
            raise InvalidContent(where, "its qcow2 header extensions are cut off")
        kind, size = _EXTENSION.unpack_from(data, place)
        place += _EXTENSION.size
        if kind == 0:
            break
        if place + size > end:
            raise InvalidContent(where, f"a qcow2 header extension has {size} bytes, past the header's end")
        if kind in (_BACKING_FORMAT, _DATA_FILE_NAME):
            found[kind] = _text(data[place : place + size], size, where)
        place += (size + 7) & ~7
    return found


def _name(data: bytes, place: int, size: int, cluster: int, where: str) -> str:
    if size > MAX_NAME or place + size > cluster:
        raise InvalidContent(where, f"the name of its backing file has {size} bytes at {place}")
    return _text(data[place : place + size], size, where)


def _text(raw: bytes, size: int, where: str) -> str:
    if len(raw) != size:
        raise InvalidContent(where, f"its qcow2 header is longer than {HEAD_SIZE} bytes, or cut off")
    try:
        return raw.split(b"\0", 1)[0].decode()
    except UnicodeDecodeError:
        raise InvalidContent(where, f"its qcow2 header holds a name that is no text: {raw[:40]!r}") from None
