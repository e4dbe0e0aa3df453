# SPDX-License-Identifier: GPL-2.0-or-later
"""Metadata of one volume: sorted lines ``KEY=VALUE`` and a last line ``EOF``, at most 512 bytes.

V5 states the capacity in bytes (CAP) and counts the image's snapshots (SEQ). Older formats state the capacity in
blocks of 512 bytes (SIZE) beside an MTIME that means nothing, and have no place for SEQ. While a domain is converted to
V5 a volume has both, and then CAP is the truth.

Written is one form for each version. Read is what the field reads: other line ends, blank and foreign lines, blanks
around keys and values, a key twice (the last one holds), no EOF. What decides about data (ids, format, roles, legality,
sizes) is read strictly. What was read from a file is never refused on the way back: a description that is longer
than we take from people stays whole, and so do keys that we do not know while there is room.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import TypeVar

from storage.errors import ContentTooLong, InvalidContent, MetadataCleared
from storage.ondisk import description
from storage.ondisk.layout import METADATA_SIZE
from storage.ondisk.values import Allocation, FormatVersion, Legality, VolumeFormat, VolumeRole
from vdsm.common.ids import BLANK_UUID, is_uuid
from vdsm.common.units import round_up

MAX_DESCRIPTION_CHARACTERS = 210
MAX_DESCRIPTION_BYTES = 210
"""The characters are the field's rule; the bytes keep the whole text within one block whatever else changes."""

MAX_FILE_SIZE = 4096
"""Read from a file: VDSM counts a description's characters, and up to 210 of them may stand there."""

MAX_GENERATION = 999
MAX_SEQUENCE = (1 << 32) - 1
MAX_CAPACITY = 1 << 62
SIZE_UNIT = 512
"""Bytes that SIZE counts by."""

_LEGACY_DISK_TYPES = {"1": "DATA", "2": "DATA"}
_OTHERS = ("DISKTYPE", "DOMAIN", "FORMAT", "IMAGE", "LEGALITY", "PUUID", "TYPE", "VOLTYPE")
_KNOWN = frozenset({"CAP", "CTIME", "DESCRIPTION", "GEN", "MTIME", "SEQ", "SIZE", *_OTHERS})
_BREAKS = re.compile(rb"\r\n|\n|\r")
_BREAK = re.compile("[\n\r]")

E = TypeVar("E", VolumeFormat, Allocation, VolumeRole, Legality)


@dataclass(frozen=True)
class VolumeMetadata:
    domain_id: str
    image_id: str
    parent_id: str
    capacity: int
    format: VolumeFormat
    allocation: Allocation
    role: VolumeRole
    disk_type: str = "DATA"
    description: str = ""
    legality: Legality = Legality.LEGAL
    ctime: int = 0
    generation: int = 0
    sequence: int = 0
    unknown: tuple[tuple[str, str], ...] = ()
    """Keys that we do not know, with their values."""

    @property
    def has_parent(self) -> bool:
        return self.parent_id != BLANK_UUID

    def with_next_generation(self) -> VolumeMetadata:
        return replace(self, generation=(self.generation + 1) % (MAX_GENERATION + 1))


def now_ctime() -> int:
    return int(time.time())


def check_description(text: str) -> str:
    """A new description. Raises `DescriptionTooLong` naming both limits, `InvalidContent`."""
    return description.check(text, MAX_DESCRIPTION_CHARACTERS, MAX_DESCRIPTION_BYTES)


def encode(metadata: VolumeMetadata, version: FormatVersion) -> bytes:
    """The text of a file. ``sequence`` is lost before V5.

    Raises `ContentTooLong`, `InvalidContent` for what no line can hold.
    """
    return _within_a_file(metadata, _with_size(metadata) if version < FormatVersion.V5 else _with_capacity(metadata))


def encode_between(metadata: VolumeMetadata) -> bytes:
    """What readers of V4 and of V5 both understand, for a domain that is being converted. Raises as `encode`."""
    return _within_a_file(metadata, {**_with_size(metadata), "CAP": str(metadata.capacity)})


def encode_block(metadata: VolumeMetadata, version: FormatVersion) -> bytes:
    """One metadata slot: the text padded by NULs to 512 bytes. Raises `ContentTooLong`, `InvalidContent`."""
    data = encode(metadata, version)
    if len(data) > METADATA_SIZE:
        data = encode(replace(metadata, unknown=()), version)
    if len(data) > METADATA_SIZE:
        raise ContentTooLong("volume metadata", len(data), METADATA_SIZE)
    return data.ljust(METADATA_SIZE, b"\0")


def decode(data: bytes, where: str) -> VolumeMetadata:
    """Read V3, V4 or V5. Raises `InvalidContent`, `ContentTooLong`, `MetadataCleared`; each names ``where``."""
    if len(data) > MAX_FILE_SIZE:
        raise ContentTooLong(where, len(data), MAX_FILE_SIZE)
    fields = _fields(data, where)
    if "NONE" in fields:
        raise MetadataCleared(where)
    reader = _Reader(fields, where)
    disk_type = reader.text("DISKTYPE")
    return VolumeMetadata(
        domain_id=reader.uuid("DOMAIN"),
        image_id=reader.uuid("IMAGE"),
        parent_id=reader.uuid("PUUID"),
        capacity=reader.number("CAP", MAX_CAPACITY)
        if "CAP" in fields
        else reader.number("SIZE", MAX_CAPACITY // SIZE_UNIT) * SIZE_UNIT,
        format=reader.one_of("FORMAT", VolumeFormat),
        allocation=reader.one_of("TYPE", Allocation),
        role=reader.one_of("VOLTYPE", VolumeRole),
        disk_type=_LEGACY_DISK_TYPES.get(disk_type, disk_type),
        description=fields.get("DESCRIPTION", ""),
        legality=reader.one_of("LEGALITY", Legality) if "LEGALITY" in fields else Legality.LEGAL,
        ctime=reader.number("CTIME", MAX_CAPACITY),
        generation=reader.number("GEN", MAX_SEQUENCE, default=0),
        sequence=reader.number("SEQ", MAX_SEQUENCE, default=0),
        unknown=tuple(sorted((k, v) for k, v in fields.items() if k not in _KNOWN)),
    )


def _with_capacity(metadata: VolumeMetadata) -> dict[str, str]:
    return {**_common(metadata), "CAP": str(metadata.capacity), "SEQ": str(metadata.sequence)}


def _with_size(metadata: VolumeMetadata) -> dict[str, str]:
    blocks = round_up(metadata.capacity, SIZE_UNIT) // SIZE_UNIT
    return {**_common(metadata), "SIZE": str(blocks), "MTIME": "0"}


def _common(metadata: VolumeMetadata) -> dict[str, str]:
    return {
        "CTIME": str(metadata.ctime),
        "DESCRIPTION": metadata.description,
        "DISKTYPE": metadata.disk_type,
        "DOMAIN": metadata.domain_id,
        "FORMAT": metadata.format.value,
        "GEN": str(metadata.generation),
        "IMAGE": metadata.image_id,
        "LEGALITY": metadata.legality.value,
        "PUUID": metadata.parent_id,
        "TYPE": metadata.allocation.value,
        "VOLTYPE": metadata.role.value,
    }


def _within_a_file(metadata: VolumeMetadata, fields: dict[str, str]) -> bytes:
    """With the keys that we do not know while there is room."""
    data = _text({**dict(metadata.unknown), **fields})
    if len(data) > MAX_FILE_SIZE:
        data = _text(fields)
    if len(data) > MAX_FILE_SIZE:
        raise ContentTooLong("volume metadata", len(data), MAX_FILE_SIZE)
    return data


def _text(fields: dict[str, str]) -> bytes:
    for key, value in fields.items():
        if _BREAK.search(value):
            raise InvalidContent("volume metadata", f"the value of {key} holds a line break")
    return ("".join(f"{key}={fields[key]}\n" for key in sorted(fields)) + "EOF\n").encode()


def _fields(data: bytes, where: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for number, line in enumerate(_BREAKS.split(data.rstrip(b"\0")), 1):
        if line.startswith(b"EOF"):
            break
        try:
            key, equals, value = line.decode().partition("=")
        except UnicodeDecodeError:
            raise InvalidContent(where, f"line {number} is no UTF-8: {line[:80]!r}") from None
        if equals and _is_key(key.strip()):
            fields[key.strip()] = value.strip()
    return fields


def _is_key(text: str) -> bool:
    """A comment may hold an equals sign: it is none of our keys, and nothing to keep as one."""
    return text.isascii() and text.replace("_", "").isalnum()


@dataclass(frozen=True)
class _Reader:
    fields: dict[str, str]
    where: str

    def text(self, key: str) -> str:
        if key not in self.fields:
            raise InvalidContent(self.where, f"the key {key} is missing")
        return self.fields[key]

    def uuid(self, key: str) -> str:
        text = self.text(key)
        if not is_uuid(text):
            raise InvalidContent(self.where, f"{key} is no UUID: {text[:80]!r}")
        return text

    def one_of(self, key: str, kind: type[E]) -> E:
        text = self.text(key)
        try:
            return kind(text)
        except ValueError:
            raise InvalidContent(self.where, f"{key} is {text[:80]!r}") from None

    def number(self, key: str, limit: int, default: int | None = None) -> int:
        if default is not None and key not in self.fields:
            return default
        text = self.text(key)
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= limit):
            raise InvalidContent(self.where, f"{key} is {text[:80]!r}, expected a number up to {limit}")
        return int(text)
