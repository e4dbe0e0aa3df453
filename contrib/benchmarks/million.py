# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of the agent's processes after a million calls, beside what it was when each way had been used once."""

from __future__ import annotations

import json

from contrib.benchmarks import footprint, rpc
from contrib.benchmarks.lag import Lag
from contrib.benchmarks.report import Row, Table
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PYTHON

CONNECTIONS = 50
CALLS = 1_000_000
STEPS = 2
CHUNK_S = 10.0
IDLE_S = 2.0


def run(host: PrivateHost) -> list[Table]:
    host.restart_agent()
    done = _rounds(host, 1)
    rows = [_row(host, done)]
    lag = Lag(host)
    for step in range(1, STEPS + 1):
        done += _rounds(host, CALLS * step // STEPS - done)
        rows.append(_row(host, done))
    note = (
        f"Host.ping2, STOMP in TLS, HTTP and WebSocket on the unix socket in turns, {CONNECTIONS} connections each; "
        "measured when they are closed, first after one turn of each (TLS alone makes 256 KiB of buffers for each "
        "connection, and the allocator keeps what was theirs for the next). Loop "
        f"lag meanwhile, p99.9: at most {lag.quantile_ms(0.999):g} ms. Anonymous memory is what the processes wrote "
        "themselves; PSS also changes with what else runs on the machine."
    )
    return [Table("Memory after a million calls", ("calls", "PSS MiB", "anonymous MiB"), rows, note)]


def _rounds(host: PrivateHost, least: int) -> int:
    """Whole rounds of all ways, until so many calls are done; how many were."""
    done = 0
    while done < least:
        for way, kind, address in rpc.WAYS:
            if "TCP" not in way:
                done += _calls(host, kind, address)
    return done


def _calls(host: PrivateHost, kind: str, address: str) -> int:
    argv = [PYTHON, "-m", "contrib.benchmarks.load", kind, address, str(CONNECTIONS), str(CHUNK_S)]
    figures = json.loads(host.run(argv, timeout_s=CHUNK_S + 30).stdout)
    if figures["errors"]:
        raise RuntimeError(f"{figures['errors']} calls failed")
    return int(figures["requests"])


def _row(host: PrivateHost, calls: int) -> Row:
    found = footprint.measure(host, IDLE_S)
    return (str(calls), f"{found.pss_kib / 1024:.1f}", f"{footprint.own_kib(host) / 1024:.1f}")
