# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast something is taken: a bucket that runs out at a rate. Too fast is slowed, never refused."""

from __future__ import annotations

FRAMES_PER_S = 2000.0


class Pace:
    def __init__(self, per_s: float = FRAMES_PER_S, *, burst_s: float = 1.0) -> None:
        """``burst_s``: how many seconds' worth may come at once."""
        self._rate = per_s
        self._burst = per_s * burst_s
        self._level = 0.0
        self._seen = 0.0

    def delay_s(self, count: int, now: float) -> float:
        """Seconds for which nothing more should be taken after these."""
        self._level = max(0.0, self._level - (now - self._seen) * self._rate) + count
        self._seen = now
        return max(0.0, self._level - self._burst) / self._rate
