# SPDX-License-Identifier: GPL-2.0-or-later
"""What the test command leaves to `make soak`: matrices, campaigns and counts (docs/testing.md)."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

SOAK = bool(os.environ.get("VDSM_SOAK"))


def some(points: Iterable[str], often: Collection[str]) -> list[str]:
    """Those of the points that are in ``often``; all of them in `make soak`."""
    return [point for point in points if SOAK or point in often]
