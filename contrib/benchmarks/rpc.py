# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests per second and latency of Host.ping2 on each way in."""

from __future__ import annotations

import json

from contrib.benchmarks.report import Table
from contrib.lab.agent_life import AGENT_SOCKET
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PYTHON

PORT = 8054
SETTINGS = f"[agent]\nplain_http_address = 127.0.0.1\nplain_http_port = {PORT}\n"
SECONDS = 3.0
CONNECTIONS = (1, 50)
WAYS = (
    ("HTTP keep-alive, TCP", "http", f"127.0.0.1:{PORT}"),
    ("WebSocket, TCP", "ws", f"127.0.0.1:{PORT}"),
    ("HTTP keep-alive, unix socket", "http", AGENT_SOCKET),
    ("WebSocket, unix socket", "ws", AGENT_SOCKET),
    ("STOMP, TLS", "stomp", "127.0.0.1:54321"),
)


def run(host: PrivateHost) -> list[Table]:
    rows = []
    for label, kind, address in WAYS:
        for connections in CONNECTIONS:
            argv = [PYTHON, "-m", "contrib.benchmarks.load", kind, address, str(connections), str(SECONDS)]
            done = host.run(argv, timeout_s=SECONDS + 30)
            figures = json.loads(done.stdout)
            if figures["errors"]:
                raise RuntimeError(f"{label}: {figures['errors']} calls failed")
            rows.append(
                (
                    label,
                    str(connections),
                    f"{figures['requests'] / figures['seconds']:.0f}",
                    f"{figures['p50_us'] / 1000:.2f}",
                    f"{figures['p99_us'] / 1000:.2f}",
                )
            )
    note = (
        f"One request at a time on each connection, {SECONDS:g} s each after a warm-up; the client is a process of its "
        "own beside the agent on the same machine, so both share its cores. The agent is one process with one loop."
    )
    return [Table("Host.ping2", ("way", "connections", "requests/s", "p50 ms", "p99 ms"), rows, note)]
