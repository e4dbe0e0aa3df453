# SPDX-License-Identifier: GPL-2.0-or-later
"""What is mounted where, as the kernel says. Nothing that is mounted is touched: it may hang."""

from __future__ import annotations

import re

MOUNTINFO = "/proc/self/mountinfo"

# the kernel writes blanks, line ends and backslashes so; all else stands as it is
_ESCAPE = re.compile(r"\\([0-7]{3})")


def mount_points() -> set[str]:
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as f:
        return {_ESCAPE.sub(lambda m: chr(int(m[1], 8)), line.split(" ")[4]) for line in f}
