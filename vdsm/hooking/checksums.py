# SPDX-License-Identifier: GPL-2.0-or-later
"""Checksums of installed scripts, as capabilities report them; a file is read again when it changed."""

from __future__ import annotations

import hashlib
import os

_MAX_BYTES = 64 << 20


class Checksums:
    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, int], str]] = {}

    def of(self, path: str) -> str:
        """sha256 in hexadecimal; empty when the file can't be read, as VDSM reports it."""
        try:
            info = os.stat(path)
            stamp = (info.st_ino, info.st_ctime_ns, info.st_size)
            known = self._known.get(path)
            if known is None or known[0] != stamp:
                known = self._known[path] = (stamp, _sha256(path))
        except OSError:
            return ""
        return known[1]


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(_MAX_BYTES)).hexdigest()
