# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast one connection's frames are taken: a bucket of a second's worth. Too fast is slowed, never refused."""

from __future__ import annotations

FRAMES_PER_S = 2000.0


class Pace:
    def __init__(self, frames_per_s: float = FRAMES_PER_S) -> None:
        self._rate = frames_per_s
        self._level = 0.0
        self._seen = 0.0

    def delay_s(self, frames: int, now: float) -> float:
        """Seconds for which nothing more should be read after these frames."""
        self._level = max(0.0, self._level - (now - self._seen) * self._rate) + frames
        self._seen = now
        return max(0.0, self._level - self._rate) / self._rate
