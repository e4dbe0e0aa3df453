# SPDX-License-Identifier: GPL-2.0-or-later
"""Metadata of a domain (and, on the master, of its pool): lines ``KEY=VALUE`` under a checksum.

Keys that we do not know are kept as they came, so a domain that a newer agent wrote loses
nothing by our update. The checksum is SHA-1 over all other lines in sorted order, without
newlines; it finds accidents, not attackers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from storage.errors import ChecksumMismatch, ContentTooLong, InvalidContent

CHECKSUM = "_SHA_CKSUM"
MAX_SIZE = 64 << 10
MAX_LINES = 4096


def checksum(fields: Mapping[str, str]) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for line in sorted(f"{key}={value}" for key, value in fields.items() if key != CHECKSUM):
        digest.update(line.encode("ascii", "xmlcharrefreplace"))
    return digest.hexdigest()


def encode(fields: Mapping[str, str]) -> bytes:
    """The file's bytes, with a fresh checksum. Raises `InvalidContent` for what no line can hold."""
    lines = {key: value for key, value in fields.items() if key != CHECKSUM}
    for key, value in lines.items():
        if not key or "=" in key or "\n" in key or key != key.strip():
            raise InvalidContent("domain metadata", f"no key can be {key[:80]!r}")
        if "\n" in value or "\0" in value or "\r" in value:
            raise InvalidContent("domain metadata", f"the value of {key} holds a line break or NUL")
    lines[CHECKSUM] = checksum(lines)
    data = "".join(f"{key}={lines[key]}\n" for key in sorted(lines)).encode()
    if len(data) > MAX_SIZE:
        raise ContentTooLong("domain metadata", len(data), MAX_SIZE)
    return data


def decode(data: bytes, where: str) -> dict[str, str]:
    """All fields but the checksum.

    Raises `ChecksumMismatch`, `InvalidContent`, `ContentTooLong`; each names ``where``.
    Text without a checksum is accepted, as very old domains have none.
    """
    if len(data) > MAX_SIZE:
        raise ContentTooLong(where, len(data), MAX_SIZE)
    try:
        text = data.rstrip(b"\0").decode()
    except UnicodeDecodeError as e:
        raise InvalidContent(where, f"byte {e.start} is no UTF-8") from None
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise InvalidContent(where, f"more than {MAX_LINES} lines")
    fields: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise InvalidContent(where, f"line {number} is no KEY=VALUE: {line[:80]!r}")
        if key in fields:
            raise InvalidContent(where, f"line {number} repeats the key {key[:80]}")
        fields[key] = value
    if not fields:
        raise InvalidContent(where, "it is empty")
    expected = fields.pop(CHECKSUM, None)
    found = checksum(fields)
    if expected is not None and expected != found:
        raise ChecksumMismatch(where, expected[:80], found)
    return fields
