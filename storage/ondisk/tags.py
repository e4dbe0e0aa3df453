# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of metadata as LVM tags: block domains keep their metadata in the tags of the VG.

A character that a tag cannot hold becomes ``&<code point>&``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from storage.errors import InvalidContent

PREFIX = "MDT_"
MAX_TAG = 1024

_OTHER = re.compile(r"[^a-zA-Z0-9_+.\-/=!:#]")
_CODED = re.compile(r"&([0-9]{1,7})&")
_WHOLE = re.compile(r"(?:[a-zA-Z0-9_+.\-/=!:#]|&[0-9]{1,7}&)*\Z")


def encode(line: str) -> str:
    return _OTHER.sub(lambda m: f"&{ord(m[0])}&", line)


def decode(text: str, where: str) -> str:
    """Raises `InvalidContent`."""
    if len(text) > MAX_TAG or not _WHOLE.match(text):
        raise InvalidContent(where, f"a tag is {text[:80]!r}")
    try:
        return _CODED.sub(lambda m: chr(int(m[1])), text)
    except (ValueError, OverflowError):
        raise InvalidContent(where, f"a tag holds no character: {text[:80]!r}") from None


def metadata_tags(fields: Mapping[str, str]) -> set[str]:
    return {PREFIX + encode(f"{key}={value}") for key, value in fields.items()}


def metadata_fields(tags: Iterable[str], where: str) -> dict[str, str]:
    """Fields of those tags that hold metadata. Raises `InvalidContent`."""
    fields = {}
    for tag in tags:
        if not tag.startswith(PREFIX):
            continue
        key, equals, value = decode(tag.removeprefix(PREFIX), where).partition("=")
        if not equals or not key or key in fields:
            raise InvalidContent(where, f"a tag is {tag[:80]!r}")
        fields[key] = value
    return fields
