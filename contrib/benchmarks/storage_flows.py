# SPDX-License-Identifier: GPL-2.0-or-later
"""What flows of storage take by the number of domains: time, and requests to storage, which the agent's metrics count.

    python -m contrib.benchmarks storage_flows

Domains are folders of a local file system, each a mount of its own to the agent, in one pool. What a process of its own
does for the agent (attaching, making a pool) is in the time and not among the requests.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from contrib.benchmarks.report import Row, Table
from contrib.benchmarks.storage_io import COUNTS, STEP_S, local_folder, until_valid
from contrib.lab import engine
from contrib.lab.agent_life import AGENT_SOCKET
from contrib.lab.host import PrivateHost
from storage.monitor import INTERVAL_S
from vdsm.client import Client

WATCHED_INTERVALS = 3
ROUNDS = 3
_REQUESTS = re.compile(rb"^vdsm_storage_io_seconds_count\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
COLUMNS = ("what", "domains", "ms", "ms a domain", "requests", "requests a domain")
NOTE = (
    f"The fastest of {ROUNDS}; attaching: the median of those that lead to the number of domains. Connecting the pool "
    "ends with the answer, `all valid` when each domain was looked at. The monitor is what it asks in one interval "
    f"({INTERVAL_S:g} s)."
)


def run(host: PrivateHost) -> list[Table]:
    rows = asyncio.run(_measured(host))
    return [Table("Flows of storage", COLUMNS, sorted(rows, key=lambda row: (row[0], int(row[1]))), NOTE)]


async def _measured(host: PrivateHost) -> list[Row]:
    rows: list[Row] = []
    connections = [local_folder(host, 0)]
    async with host.client() as client:
        pool = await engine.new_pool(client, domain_type=engine.LOCALFS, connection=connections[0])
        ids = [pool.domain_id]
        for count in COUNTS:
            attached: list[_Flow] = []
            while len(ids) < count:
                connections.append(local_folder(host, len(ids)))
                ids.append(await _add(host, client, pool, connections[-1], attached))
            await until_valid(client)
            if attached:
                rows.append(_row("attach", 1, sorted(attached, key=lambda flow: flow.ms)[len(attached) // 2], count))
            rows += await _reconnected(host, client, pool, ids, connections)
            async with _flow(host) as watched:
                await asyncio.sleep(WATCHED_INTERVALS * INTERVAL_S)
            per_interval = watched.requests / WATCHED_INTERVALS
            rows.append(("monitor", str(count), "", "", f"{per_interval:.0f}", f"{per_interval / count:.1f}"))
            await engine.become_spm(client, pool.pool_id)
    return rows


async def _add(
    host: PrivateHost, client: Client, pool: engine.Pool, connection: dict[str, str], attached: list[_Flow]
) -> str:
    domain_id = await engine.create_domain(client, engine.LOCALFS, connection)
    ids = {"storagedomainID": domain_id, "storagepoolID": pool.pool_id}
    async with _flow(host) as flow:
        await client.call("StorageDomain.attach", ids, timeout_s=STEP_S)
    attached.append(flow)
    await client.call("StorageDomain.activate", ids, timeout_s=STEP_S)
    return domain_id


async def _reconnected(
    host: PrivateHost, client: Client, pool: engine.Pool, ids: list[str], connections: list[dict[str, str]]
) -> list[Row]:
    """Everything is left and connected again; the host is no SPM after it."""
    found: dict[str, list[_Flow]] = {}

    @asynccontextmanager
    async def measured(what: str) -> AsyncIterator[None]:
        async with _flow(host) as flow:
            yield
        found.setdefault(what, []).append(flow)

    servers = {"storagepoolID": engine.BLANK, "domainType": engine.LOCALFS, "connectionParams": connections}
    membership = {"storagepoolID": pool.pool_id, "hostID": engine.HOST_ID, "scsiKey": "key"}
    wanted = {
        **membership,
        "masterSdUUID": pool.domain_id,
        "masterVersion": 1,
        "domainDict": dict.fromkeys(ids, "active"),
    }
    await client.call("StoragePool.spmStop", {"storagepoolID": pool.pool_id}, timeout_s=STEP_S)
    for _ in range(ROUNDS):
        async with measured("disconnect the pool"):
            await client.call("StoragePool.disconnect", membership, timeout_s=STEP_S)
        async with measured("disconnect the servers"):
            await client.call("StoragePool.disconnectStorageServer", servers, timeout_s=STEP_S)
        async with measured("connect the servers"):
            await client.call("StoragePool.connectStorageServer", servers, timeout_s=STEP_S)
        async with measured("connect the pool, all valid"):
            async with measured("connect the pool"):
                await client.call("StoragePool.connect", wanted, timeout_s=STEP_S)
            await until_valid(client)
    return [_row(what, len(ids), min(flows, key=lambda flow: flow.ms), len(ids)) for what, flows in found.items()]


@dataclass
class _Flow:
    ms: float = 0.0
    requests: int = 0


@asynccontextmanager
async def _flow(host: PrivateHost) -> AsyncIterator[_Flow]:
    flow, before = _Flow(), await asyncio.to_thread(_requests, host)
    started = time.perf_counter()
    yield flow
    flow.ms = 1000 * (time.perf_counter() - started)
    flow.requests = await asyncio.to_thread(_requests, host) - before


def _requests(host: PrivateHost) -> int:
    argv = ["curl", "-s", "--max-time", "10", "--unix-socket", AGENT_SOCKET, "http://agent/metrics"]
    return sum(int(float(count)) for count in _REQUESTS.findall(host.run(argv).stdout))


def _row(what: str, about: int, flow: _Flow, count: int) -> Row:
    """``about``: of how many domains it was asked."""
    each = (f"{flow.ms:.0f}", f"{flow.ms / about:.1f}", str(flow.requests), f"{flow.requests / about:.1f}")
    return (what, str(count), *each)
