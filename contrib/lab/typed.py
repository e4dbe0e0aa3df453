# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command of the lab is given on its standard input."""

from __future__ import annotations

import os
import select
import sys
import time

CHUNK = 1 << 20


def given(timeout_s: float) -> bytes:
    """All of it, to its end; nothing where it is a terminal or closed. Raises TimeoutError."""
    source = 0
    if sys.stdin is None or os.isatty(source):
        return b""
    limit = time.monotonic() + timeout_s
    parts: list[bytes] = []
    while select.select([source], [], [], max(0.0, limit - time.monotonic()))[0]:
        part = os.read(source, CHUNK)
        if not part:
            return b"".join(parts)
        parts.append(part)
    raise TimeoutError(f"the input did not end within {timeout_s:g} s: give it one, or < /dev/null")
