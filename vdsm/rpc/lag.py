# SPDX-License-Identifier: GPL-2.0-or-later
"""How late the loop is. Over 250 ms is a defect: clients' heart-beats shrink to one second.

A timer that should fire every half second notes by how much it came late. This is the one place that wakes up
for its own sake.
"""

from __future__ import annotations

import asyncio
import logging

from vdsm.common import metrics

log = logging.getLogger("vdsm.loop")

INTERVAL_S = 0.5
LIMIT_S = 0.25

_LAG = metrics.histogram(
    "vdsm_loop_lag_seconds", "Delay of a timer of the loop", buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
)


class LoopLag:
    def __init__(self) -> None:
        self.worst_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + INTERVAL_S
        self._timer = loop.call_at(due, self._fired, loop, due)

    def _fired(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        late_s = max(0.0, loop.time() - due)
        self.worst_s = max(self.worst_s, late_s)
        _LAG.observe(late_s)
        if late_s > LIMIT_S:
            log.warning("the loop was busy for %.0f ms: something blocked it", 1000 * late_s)
        self._arm(loop)
