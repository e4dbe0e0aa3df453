# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of the agent's processes after a million calls, beside what it was after the first fifty thousand."""

from __future__ import annotations

import itertools
import json

from contrib.benchmarks import footprint, rpc
from contrib.benchmarks.lag import Lag
from contrib.benchmarks.report import Row, Table
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PYTHON

CONNECTIONS = 50
WARM = 50_000
CALLS = 1_000_000
CHUNK_S = 10.0
IDLE_S = 2.0


def run(host: PrivateHost) -> list[Table]:
    host.restart_agent()
    done = _calls(host, WARM)
    rows = [_row(host, done)]
    lag = Lag(host)
    done += _calls(host, CALLS - done)
    rows.append(_row(host, done))
    note = (
        f"Host.ping2, STOMP in TLS, HTTP and WebSocket on the unix socket in turns, {CONNECTIONS} connections. Loop "
        f"lag meanwhile, p99.9: at most {lag.quantile_ms(0.999):g} ms. Anonymous memory is what the processes wrote "
        "themselves; PSS also changes with what else runs on the machine."
    )
    return [Table("Memory after a million calls", ("calls", "PSS MiB", "anonymous MiB"), rows, note)]


def _calls(host: PrivateHost, least: int) -> int:
    done = 0
    ways = itertools.cycle(way for way in rpc.WAYS if "TCP" not in way[0])
    while done < least:
        _, kind, address = next(ways)
        argv = [PYTHON, "-m", "contrib.benchmarks.load", kind, address, str(CONNECTIONS), str(CHUNK_S)]
        figures = json.loads(host.run(argv, timeout_s=CHUNK_S + 30).stdout)
        if figures["errors"]:
            raise RuntimeError(f"{figures['errors']} calls failed")
        done += int(figures["requests"])
    return done


def _row(host: PrivateHost, calls: int) -> Row:
    found = footprint.measure(host, IDLE_S)
    return (str(calls), f"{found.pss_kib / 1024:.1f}", f"{footprint.own_kib(host) / 1024:.1f}")
