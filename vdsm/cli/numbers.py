# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers that options take, checked before anything is done. `ValueError` is what both parsers tell as wrong usage."""

from __future__ import annotations

import math

SHORTEST_PAUSE_S = 0.5


def seconds(text: str | float) -> float:
    """A time to wait: more than none, and with an end. Not a number would pass for any."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise ValueError(f"{text} is no time to wait")
    return found


def pause(text: str | float) -> float:
    """Between two looks of a command that goes on: long enough not to be a load."""
    found = seconds(text)
    if found < SHORTEST_PAUSE_S:
        raise ValueError(f"{text} is less than {SHORTEST_PAUSE_S:g}")
    return found


def port(text: str) -> int:
    try:
        found = int(text)
    except ValueError:
        found = 0
    if not 0 < found < 1 << 16:
        raise ValueError(f"{text} is no port")
    return found
