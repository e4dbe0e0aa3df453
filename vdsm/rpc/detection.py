# SPDX-License-Identifier: GPL-2.0-or-later
"""Which protocol the first bytes of a connection are (wire.md 1): STOMP and HTTP share the port."""

from __future__ import annotations

from enum import Enum, auto

from vdsm.common.stomp import COMMANDS

# HTTP is asked first. The field knows GET and PUT; POST is ours; whoever sends another one is told so in HTTP
HTTP = tuple(f"{method} ".encode() for method in ("GET", "PUT", "POST", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE"))
STOMP = tuple(f"{command}".encode() for command in sorted(COMMANDS))
_BEGINNINGS = (*HTTP, *(command + b"\r" for command in STOMP))


class Spoken(Enum):
    HTTP = auto()
    STOMP = auto()
    NEITHER = auto()


def detect(first: bytes) -> Spoken | None:
    """None: more bytes are needed. Heart-beats may come before the first frame."""
    text = first.lstrip(b"\r\n")
    if text.startswith(HTTP):
        return Spoken.HTTP
    line, ended, _ = text.partition(b"\n")
    if ended:
        return Spoken.STOMP if line.removesuffix(b"\r") in STOMP else Spoken.NEITHER
    return None if any(known.startswith(text) for known in _BEGINNINGS) else Spoken.NEITHER
