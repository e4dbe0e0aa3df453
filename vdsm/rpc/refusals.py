# SPDX-License-Identifier: GPL-2.0-or-later
"""One log line for a refused connection; for a flood of the same, one line a second that counts them."""

from __future__ import annotations

import asyncio
import logging

from vdsm.common import metrics

log = logging.getLogger("vdsm.rpc.port")

QUIET_S = 1.0
MOST_KINDS = 256

_REFUSED = metrics.counter("vdsm_port_refused", "Connections refused before a request was read, by reason", ("reason",))


class Refusals:
    def __init__(self) -> None:
        self._more: dict[tuple[str, str], int] = {}

    def tell(self, address: str, why: str) -> None:
        _REFUSED.labels(why.partition(":")[0]).inc()
        kind = (address, why)
        if kind in self._more:
            self._more[kind] += 1
            return
        log.warning("connection from %s refused: %s", address, why)
        if len(self._more) < MOST_KINDS:
            self._more[kind] = 0
            asyncio.get_running_loop().call_later(QUIET_S, self._sum_up, kind)

    def _sum_up(self, kind: tuple[str, str]) -> None:
        more = self._more.pop(kind)
        if more:
            log.warning("%d more connections from %s refused: %s", more, *kind)
            self._more[kind] = 0
            asyncio.get_running_loop().call_later(QUIET_S, self._sum_up, kind)
