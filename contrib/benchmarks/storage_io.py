# SPDX-License-Identifier: GPL-2.0-or-later
"""What shared storage costs: processes and memory by the number of domains, and what a look at one takes.

    python -m contrib.benchmarks storage_io

Domains are folders of a local file system, each a mount of its own to the agent, in one pool whose SPM is this host.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from contrib.benchmarks import footprint
from contrib.benchmarks.report import Row, Table
from contrib.lab import engine
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost
from contrib.lab.spec import LOCAL_FOLDER
from storage.domains import Domains
from storage.edges import lease_edges
from storage.file.domain import create_file_domain
from storage.file.io import FileIo
from storage.file.ioidle import KEPT_S
from storage.file.ionursery import IDLE_S
from storage.file.iopool import IoPool, IoPools, Request
from storage.file.source import MountedFolders
from storage.new_domain import NewDomain
from storage.ondisk.values import DomainKind
from vdsm.client import Client
from vdsm.common.ids import new_uuid

COUNTS = (1, 10, 50)
STEP_S = 120.0
ROUNDS = 20
GOAL_MIB = 15
HELPER = "iohelper"
BEFORE = (
    "Commit 4109961, where each process that used a domain had a Python as helper for it: 101.5, 200.2 and 634.6 MiB "
    "in 5, 23 and 103 processes (2026-11-29)."
)


def run(host: PrivateHost) -> list[Table]:
    return [asyncio.run(_memory(host)), asyncio.run(_looks())]


async def _memory(host: PrivateHost) -> Table:
    rows: list[Row] = []
    async with host.client() as client:
        pool = await engine.new_pool(client, domain_type=engine.LOCALFS, connection=local_folder(host, 0))
        for count in COUNTS:
            for number in range(len(await _statuses(client)), count):
                await _add(client, pool, local_folder(host, number))
            await until_valid(client)
            await asyncio.sleep(KEPT_S + IDLE_S + 5)  # what only starting needed has ended
            found = await asyncio.to_thread(footprint.measure, host)
            helpers = [p for p in footprint.ours(host) if any(HELPER in part for part in p.cmdline())]
            _, processes, pss, _, cpu = found.row("")
            rows.append((str(count), str(len(helpers)), processes, pss, f"{float(pss) / count:.1f}", cpu))
    note = (
        f"All our processes: agent, root helper, SPM process, I/O helpers. Goal: under {GOAL_MIB} MiB a domain with "
        f"10 domains. Each domain is looked at every 10 s. {BEFORE}"
    )
    columns = ("domains", "processes for I/O", "processes", "PSS MiB", "MiB a domain", "idle CPU %")
    return Table("Memory by the number of domains", columns, rows, note)


def local_folder(host: PrivateHost, number: int) -> dict[str, str]:
    """A connection for one more domain."""
    folder = f"{LOCAL_FOLDER}/domain{number}"
    host.run(["install", "-d", "-o", "36", "-g", "36", folder])
    return engine.local_connection(folder)


async def _add(client: Client, pool: engine.Pool, connection: dict[str, str]) -> None:
    ids = {
        "storagedomainID": await engine.create_domain(client, engine.LOCALFS, connection),
        "storagepoolID": pool.pool_id,
    }
    await client.call("StorageDomain.attach", ids, timeout_s=STEP_S)
    await client.call("StorageDomain.activate", ids, timeout_s=STEP_S)


async def until_valid(client: Client) -> None:
    """All domains of the pool are. Raises `HostFailed` when one is not."""
    await engine.until("all domains are valid", lambda: _all_valid(client), timeout_s=STEP_S)


async def _statuses(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = await client.call("Host.getStorageRepoStats", timeout_s=STEP_S)
    return found


async def _all_valid(client: Client) -> bool:
    found = await _statuses(client)
    if bad := [told.get("reason") for told in found.values() if not told["valid"] and told["actual"]]:
        raise HostFailed(f"domains are invalid: {bad}")
    return all(told["valid"] for told in found.values())


# One look, in this process


async def _looks() -> Table:
    rows = [row for count in COUNTS for row in await _looked(count)]
    note = (
        f"Median and slowest of {ROUNDS} rounds (opening: 3) over all domains at once. A mount that is new needs a "
        "helper process first."
    )
    columns = ("what", "domains", "requests a domain", "all at once ms", "slowest round ms")
    return Table("A look at domains", columns, rows, note)


async def _looked(count: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="vdsm-bench-") as top:
        ids = await _make(Path(top), count)
        async with _counted() as seen:
            opening = [await _open_all(top, ids) for _ in range(3)]
            opened = seen.take()
            pools = IoPools()
            domains = _domains(top, ids, pools)
            found = [await domains.get(domain_id) for domain_id in ids]
            seen.take()
            checks = []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                await asyncio.gather(*(domain.probe() for domain in found))
                await asyncio.gather(*(domain.space() for domain in found))
                checks.append(1000 * (time.perf_counter() - started))
            checked = seen.take()
            await domains.close()
            await pools.close()
    return [
        _row("opening", count, opened / len(opening) / count, opening),
        _row("check of the monitor", count, checked / ROUNDS / count, checks),
    ]


def _row(what: str, count: int, requests: float, ms: list[float]) -> Row:
    return (what, str(count), f"{requests:.0f}", f"{statistics.median(ms):.1f}", f"{max(ms):.1f}")


async def _make(top: Path, count: int) -> dict[str, str]:
    """Domains, each on a mount of its own: domain id to mount."""
    places, pools = {}, IoPools()
    for number in range(count):
        mount, domain_id = top / f"mount{number}", new_uuid()
        mount.mkdir()
        io = FileIo(str(mount / domain_id), mount=str(mount), pools=pools)
        wanted = NewDomain(domain_id, DomainKind.LOCALFS, str(mount), "bench", block_size=0)
        await create_file_domain(wanted, str(mount), io, lease_edges()(DomainKind.LOCALFS), io_timeout_s=10)
        await io.close()
        places[domain_id] = str(mount)
    await pools.close()
    return places


def _domains(top: str, places: dict[str, str], pools: IoPools) -> Domains:
    source = MountedFolders(top, lease_edges(), pools, io_timeout_s=10)
    source.learn({domain_id: {"mount": mount} for domain_id, mount in places.items()})
    return Domains(source)


async def _open_all(top: str, ids: dict[str, str]) -> float:
    """Milliseconds."""
    pools = IoPools()
    domains = _domains(top, ids, pools)
    started = time.perf_counter()
    await asyncio.gather(*(domains.get(domain_id) for domain_id in ids))
    took = time.perf_counter() - started
    await domains.close()
    await pools.close()
    return 1000 * took


class _Seen:
    def __init__(self) -> None:
        self.requests = 0

    def take(self) -> int:
        taken, self.requests = self.requests, 0
        return taken


@asynccontextmanager
async def _counted() -> AsyncIterator[_Seen]:
    """Counts the requests of all pools meanwhile."""
    seen, real = _Seen(), IoPool.ask

    async def ask(self: IoPool, request: Request) -> Any:
        seen.requests += 1
        return await real(self, request)

    IoPool.ask = ask  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        IoPool.ask = real  # type: ignore[method-assign]
