# SPDX-License-Identifier: GPL-2.0-or-later
"""Metadata of a domain (and, on the master, of its pool): lines ``KEY=VALUE`` under a checksum.

Keys that we do not know are kept as they came, so a domain that a newer agent wrote loses
nothing by our update. The checksum is SHA-1 over all other lines in sorted order, without
newlines; it finds accidents, not attackers.

Written is one form. Read is what the field reads: lines end where ``str.splitlines`` ends them, those without
``=`` are stepped over, blanks around a key are not part of it, and of a key that stands there twice the last one
holds. The checksum must fit the lines as they stand or as they are understood.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from storage.errors import ChecksumMismatch, ContentTooLong, InvalidContent

CHECKSUM = "_SHA_CKSUM"
MAX_SIZE = 64 << 10
MAX_LINES = 4096

_NEWLINES = re.compile(r"\r\n|\n|\r")
_DIGEST_AT_END = re.compile(r"([0-9a-f]{40})\s*\Z")


def checksum(fields: Mapping[str, str]) -> str:
    return _digest(f"{key}={value}" for key, value in fields.items() if key != CHECKSUM)


def encode(fields: Mapping[str, str]) -> bytes:
    """The file's bytes, with a fresh checksum. Raises `InvalidContent` for what no line can hold."""
    lines = {key: value for key, value in fields.items() if key != CHECKSUM}
    for key, value in lines.items():
        if not key or "=" in key or "\n" in key or key != key.strip():
            raise InvalidContent("domain metadata", f"no key can be {key[:80]!r}")
        if "\n" in value or "\r" in value:
            raise InvalidContent("domain metadata", f"the value of {key} holds a line break")
    lines[CHECKSUM] = checksum(lines)
    data = "".join(f"{key}={lines[key]}\n" for key in sorted(lines)).encode()
    if len(data) > MAX_SIZE:
        raise ContentTooLong("domain metadata", len(data), MAX_SIZE)
    return data


def decode(data: bytes, where: str) -> dict[str, str]:
    """All fields but the checksum.

    Raises `ChecksumMismatch`, `InvalidContent`, `ContentTooLong`; each names ``where``. The checksum
    is looked at before anything else, so damage of any kind is told as damage.
    """
    if len(data) > MAX_SIZE:
        raise ContentTooLong(where, len(data), MAX_SIZE)
    # damaged text still has a checksum to compare: what is no UTF-8 is refused below
    text = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
    fields = _verified(text, where)
    for key, value in fields.items():
        if not _is_utf8(key + value):
            raise InvalidContent(where, f"a line is no UTF-8: {f'{key}={value}'[:80]!r}")
    if not fields:
        raise InvalidContent(where, "it is empty")
    return fields


def _verified(text: str, where: str) -> dict[str, str]:
    """The fields under the checksum.

    Text that holds a line's end of another kind (U+2028 in a name) was sealed by agents that split at newlines only:
    it is read, so that the name can be changed.
    """
    mismatch: ChecksumMismatch | None = None
    for split in (text.splitlines(), _NEWLINES.split(text)):
        lines = [line for line in split if line.strip()]
        if len(lines) > MAX_LINES:
            raise InvalidContent(where, f"more than {MAX_LINES} lines")
        expected, body = _sealed(lines)
        fields = _fields(body)
        if expected is None:
            return fields
        found = _digest(f"{key}={value}" for key, value in fields.items())
        if expected in (found, _digest(body)):
            return fields
        mismatch = mismatch or ChecksumMismatch(where, ascii(expected)[1:81].rstrip("'"), found)
    assert mismatch is not None
    raise mismatch


def _sealed(lines: list[str]) -> tuple[str | None, list[str]]:
    """The stored checksum and the lines under it.

    Administrators who mend metadata by hand remove the line with the checksum, and very old domains
    have none: such text is accepted. A line that was damaged still ends with the digits.
    """
    for place, line in reversed(list(enumerate(lines))):
        key, equals, value = line.partition("=")
        if equals and key.strip() == CHECKSUM:
            return value.strip(), lines[:place] + lines[place + 1 :]
    damaged = next((m for m in map(_DIGEST_AT_END.search, lines) if m), None)
    return (damaged[1] if damaged else None), lines


def _fields(lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and key.strip() and key.strip() != CHECKSUM:
            fields[key.strip()] = value
    return fields


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for line in sorted(lines):
        digest.update(line.encode("ascii", "xmlcharrefreplace"))
    return digest.hexdigest()


def _is_utf8(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True
