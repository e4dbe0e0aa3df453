# SPDX-License-Identifier: GPL-2.0-or-later
"""One client's calls alone, and beside another client that asks for all VMs' statistics 200 times a second.

The VM.create here is refused for its XML: what is measured is the way to the verb and back, not a start.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from contrib.benchmarks import vms
from contrib.benchmarks.lag import Lag
from contrib.benchmarks.report import Row, Table
from contrib.lab import engine
from contrib.lab.agent_life import AGENT_SOCKET
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PYTHON
from vdsm.client import Client, RpcError
from vdsm.common.ids import new_uuid

RATE = 200
SECONDS = 20.0
PAUSE_S = 0.02
VMS = 10
CALLS: dict[str, dict[str, Any]] = {
    "VM.create": {"vmID": new_uuid(), "vmParams": {"xml": "<domain/>"}},
    "Host.ping2": {},
    "Host.getStats": {},
}


def run(host: PrivateHost) -> list[Table]:
    return asyncio.run(_run(host))


async def _run(host: PrivateHost) -> list[Table]:
    async with host.client() as client:
        # a local domain: the part that follows makes its own on the host's other storage
        pool = await engine.new_pool(client, domain_type=engine.LOCALFS)
        ids = [await vms.running_vm(client, pool) for _ in range(VMS)]
        quiet = await _measured(client, SECONDS / 2)
        lag = Lag(host)
        noise = asyncio.create_task(asyncio.to_thread(_noise, host))
        await asyncio.sleep(1.0)
        loud = await _measured(client, SECONDS - 3)
        counts = await noise
        lag_ms = lag.quantile_ms(0.999)
        for vm_id in ids:
            await client.call("VM.destroy", {"vmID": vm_id}, timeout_s=vms.STEP_S)
        await engine.remove_pool(client, pool)
    rows: list[Row] = [(verb, *_row(quiet[verb]), *_row(loud[verb])) for verb in CALLS]
    columns = ("call", "alone p50 ms", "alone p99 ms", "beside p50 ms", "beside p99 ms")
    note = (
        f"The noisy client sent {counts['sent']} calls of Host.getAllVmStats ({VMS} VMs) in {SECONDS:g} s, "
        f"{counts['answered']} were answered, {counts['failed']} failed. Loop lag meanwhile, p99.9: at most "
        f"{lag_ms:g} ms."
    )
    return [Table("A client beside a noisy one", columns, rows, note)]


def _noise(host: PrivateHost) -> dict[str, int]:
    argv = [PYTHON, "-m", "contrib.benchmarks.noise", AGENT_SOCKET, "Host.getAllVmStats", str(RATE), str(SECONDS)]
    counts: dict[str, int] = json.loads(host.run(argv, timeout_s=SECONDS + 90).stdout)
    return counts


async def _measured(client: Client, seconds: float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {verb: [] for verb in CALLS}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for verb, params in CALLS.items():
            started = time.perf_counter()
            try:
                await client.call(verb, params, timeout_s=60)
            except RpcError as e:
                if verb != "VM.create":
                    raise RuntimeError(f"{verb}: {e}") from e
            found[verb].append(1000 * (time.perf_counter() - started))
            await asyncio.sleep(PAUSE_S)
    return found


def _row(latencies_ms: list[float]) -> tuple[str, str]:
    ordered = sorted(latencies_ms)
    return f"{ordered[len(ordered) // 2]:.2f}", f"{ordered[len(ordered) * 99 // 100]:.2f}"
