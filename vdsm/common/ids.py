# SPDX-License-Identifier: GPL-2.0-or-later
"""Identifiers: canonical lower-case UUID text, and nothing else.

Ids become file names on shared storage, so the check is the wall against path traversal.
"""

from __future__ import annotations

import re
import uuid

from vdsm.common.errors import InvalidParameter

BLANK_UUID = "00000000-0000-0000-0000-000000000000"
UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

_UUID = re.compile(UUID_PATTERN.rstrip("$") + r"\Z")


def new_uuid() -> str:
    return str(uuid.uuid4())


def is_uuid(value: object) -> bool:
    return isinstance(value, str) and _UUID.match(value) is not None


def check_uuid(name: str, value: object) -> str:
    """``value`` when it is a canonical UUID, else `InvalidParameter` that names the parameter."""
    if isinstance(value, str) and _UUID.match(value):
        return value
    raise InvalidParameter(name, shown(value), "expected a UUID in lower-case canonical form")


def shown(value: object, limit: int = 80) -> str:
    """A value as an error message may show it: quoted, on one line, at most ``limit`` characters.

    Of objects and arrays only the kind: what is in them may be a secret, huge, or too deep to be written.
    """
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "an array"
    text = repr(value[: limit + 1]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
