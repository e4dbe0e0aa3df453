# SPDX-License-Identifier: GPL-2.0-or-later
"""Small files of /proc, /sys and /etc, read without surprise.

A container or an odd kernel lacks some, and root alone may read others: what can't be read is empty
text. ``root`` moves the whole tree, for recorded ones.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

MAX_BYTES = 1 << 20  # the kernel refuses to read a sysctl into 4 MiB at once


@dataclass(frozen=True)
class Tree:
    root: str = "/"

    def path(self, name: str) -> str:
        return os.path.join(self.root, name.lstrip("/"))

    def text(self, name: str) -> str:
        """The file without white space at its ends; empty when there is none or it can't be read."""
        try:
            with open(self.path(name), "rb") as f:
                return f.read(MAX_BYTES).decode(errors="replace").strip(" \t\n\0")
        except OSError:
            return ""

    def number(self, name: str, default: int = 0) -> int:
        text = self.text(name)
        return int(text) if re.fullmatch(r"-?[0-9]+", text) else default

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError:
            return []

    def exists(self, name: str) -> bool:
        return os.path.exists(self.path(name))


def number_list(text: str) -> list[int]:
    """The kernel's list of numbers: ``0-3,8`` is 0, 1, 2, 3, 8. What is no list is empty."""
    found: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if match is None:
            return []
        found.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found
