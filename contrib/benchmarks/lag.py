# SPDX-License-Identifier: GPL-2.0-or-later
"""Loop lag over a time, from the agent's own metric."""

from __future__ import annotations

import re

from contrib.lab.agent_life import AGENT_SOCKET
from contrib.lab.host import PrivateHost

_BUCKET = re.compile(r'^vdsm_loop_lag_seconds_bucket\{le="([^"]+)"\} ([0-9.e+]+)$', re.M)


class Lag:
    """From its making to `quantile_ms`."""

    def __init__(self, host: PrivateHost) -> None:
        self._host = host
        self._before = self._buckets()

    def quantile_ms(self, share: float) -> float:
        """The upper edge of the bucket in which the quantile lies."""
        now = self._buckets()
        grown = {edge: count - self._before.get(edge, 0) for edge, count in now.items()}
        wanted = share * max(grown.values())
        return 1000 * min(edge for edge, count in grown.items() if count >= wanted)

    def _buckets(self) -> dict[float, float]:
        argv = ["curl", "-s", "--max-time", "10", "--unix-socket", AGENT_SOCKET, "http://agent/metrics"]
        text = self._host.run(argv).stdout.decode()
        return {float(edge): float(count) for edge, count in _BUCKET.findall(text)}
