# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections of the engine's port that are refused, and those dropped later: told once for a flood, and counted."""

from __future__ import annotations

import logging

from vdsm.common import metrics
from vdsm.common.repeats import Repeats

log = logging.getLogger("vdsm.rpc.port")

_REFUSED = metrics.counter("vdsm_port_refused", "Connections refused before a request was read, by reason", ("reason",))


class Refusals:
    def __init__(self) -> None:
        self._told = Repeats(log)

    def tell(self, address: str, why: str, reason: str = "") -> None:
        """``reason``: a word of few for the metric; without one the words before the first colon are it."""
        reason = reason or why.partition(":")[0]
        _REFUSED.labels(reason).inc()
        self._told.tell((address, reason), f"connection from {address} refused: {why}")

    def dropped(self, who: str, reason: str, why: str) -> None:
        """One that was in use."""
        self._told.tell((who, reason), f"connection of {who} dropped: {why}")
