# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM's power goes in the middle of a change of its pool, on NFS; another host takes over and ends the change.

Two hosts lead a pool each, the first on version 4.2, the second on version 3. Both lose their power at a point of
their change.
They boot, and each takes over the other's pool, whose SPM is dead:

     0 s   both kernels stop at their points, nothing is written back
    ~45    both hosts are up, with agents; the lease of the other pool is not free yet
    ~70    8 I/O timeouts (of 1 s) and 60 s after the last renewal it is: each host is SPM of the other's pool
    ~90    the changes are ended; each host comes back to the pool that it had, under its own id

At the end both pools are left, and the decoder reads on the server what is there: no lease held, no host id, no task.

The last tests of their group: the hosts are booted anew, and what earlier tests started there is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import storage.service
import storage.spm.program  # noqa: F401 - declares the crash points of leased processes
from contrib.lab import engine
from contrib.lab.control import HostFailed
from contrib.lab.microvm import storage_server
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.san import San
from tests.decoder import domain as decoder
from tests.lab.pool_flows import FLOWS, MIB, OPTIONS, SLOW_S, Domain, Exports, Flow, Host, Switch, flow_at
from tests.soak import SOAK
from vdsm.client import ClientError, RpcError
from vdsm.common.crashpoints import REGISTRY

pytestmark = [pytest.mark.cost(230), pytest.mark.timeout(900), pytest.mark.usefixtures("nfs")]

# of all flows the two with the most to lose, in the middle: two masters, and volumes of which some are converted
OFTEN = [("master.move.written", "domain.convert.both")]
POINTS = sorted(name for name in REGISTRY if name.startswith(tuple(flow.area for flow in FLOWS)))
VERSIONS = ("4.2", "3")

ASKED = "/run/lab-crash-at"
ENVIRONMENT = {"VDSM_CRASH_AT": f"@{ASKED}", "VDSM_CRASH_POWER": "/proc/sysrq-trigger"}
CUT_S = 120.0
# sanlock's dump ends at the first place without a lease, and the first one is reserved
SDM = f"leases:{MIB}:{MIB}"
# the cut ends a call in whatever way its connection ends
CUT = (RpcError, ClientError, HostFailed, TimeoutError, OSError)


def _pairs() -> list[tuple[str, str]]:
    """Every point once, two at a time."""
    rest = [point for point in POINTS if point not in itertools.chain(*OFTEN)]
    rest += rest[: len(rest) % 2]
    return OFTEN + (list(zip(rest[::2], rest[1::2], strict=True)) if SOAK else [])


def _up(micro: MicroHost) -> None:
    if micro.pid == 0:
        micro.start()
        storage_server.start_lock_daemons(micro)
    micro.run(["sh", "-c", f"rm -f {ASKED}; chmod 666 /proc/sysrq-trigger"])
    micro.start_agent(ENVIRONMENT, timeout_s=SLOW_S)


@contextlib.asynccontextmanager
async def _agents(micros: list[MicroHost]) -> AsyncIterator[list[Host]]:
    await asyncio.gather(*(asyncio.to_thread(_up, micro) for micro in micros))
    async with contextlib.AsyncExitStack() as stack:
        yield [
            Host(number, micro, await stack.enter_async_context(micro.client()))
            for number, micro in enumerate(micros, 1)
        ]


async def _cut(host: Host, flow: Flow, point: str) -> None:
    await asyncio.to_thread(host.micro.put, ASKED, point.encode())
    with contextlib.suppress(*CUT):
        async with asyncio.timeout(CUT_S):
            await flow.change(host)
    await asyncio.to_thread(host.micro.wait_ended, timeout_s=30)


async def _take_over(host: Host, flow: Flow) -> None:
    await flow.found(host)
    await host.lead(flow.pool)
    await flow.go_on(host)
    left = {domain: await host.told(domain) for domain in flow.left()}
    assert left == flow.left()


async def _come_back(flow: Flow, cut: Host, taken_by: Host) -> None:
    """The role moves by a stop to the host that was cut, which is in its pool again."""
    await cut.connect(flow.pool)
    assert await cut.spm(flow.pool) == ("Free", taken_by.number)
    await taken_by.yields(flow.pool)
    await cut.lead(flow.pool)
    assert await taken_by.spm(flow.pool) == ("Free", cut.number)
    await cut.yields(flow.pool)
    assert await cut.spm(flow.pool) == ("Free", -1)
    await asyncio.gather(cut.leave(flow.pool), taken_by.leave(flow.pool))


def _check(server: MicroHost, domain: Domain, fields: dict[str, str], scratch: Path) -> Any:
    """What lies on the server, by the decoder and by sanlock's own words; the decoded domain."""
    folder = f"{storage_server.EXPORT}/{domain.export}"
    packed = server.run(["tar", "-C", folder, "-cSf", "-", domain.domain_id], timeout_s=SLOW_S).stdout
    scratch.mkdir()
    subprocess.run(["tar", "-C", scratch, "-xf", "-"], input=packed, check=True)
    decoded = decoder.decode(scratch / domain.domain_id)
    assert {key: decoded.fields[key] for key in fields} == fields
    assert decoded.hosts == {}, "host ids of hosts that have left"
    # with no host id nothing is held; what a dead host had stays on record until somebody takes it
    areas = ("ids", SDM) if fields["ROLE"] == "Master" else ("ids",)
    for area in areas:
        told = server.run(["sanlock", "direct", "dump", f"{folder}/{domain.domain_id}/dom_md/{area}"]).stdout.decode()
        # offset, lockspace, resource or host, time of the last renewal: 0 when it was given back
        assert {row.split()[3] for row in told.splitlines()[1:]} == {"0" * 10}, told
    master = scratch / domain.domain_id / "master" / "tasks"
    assert not master.exists() or list(master.iterdir()) == []
    shutil.rmtree(scratch)
    return decoded


def _check_all(server: MicroHost, flows: Sequence[Flow], scratch: Path) -> None:
    for flow in flows:
        for domain, fields in flow.left().items():
            _check(server, domain, fields, scratch / domain.domain_id)


def _end_agents(hosts: list[MicroHost]) -> None:
    for micro in hosts:
        micro.kill_agent()
        micro.kill_root_helper()


def test_each_point_belongs_to_a_flow() -> None:
    assert {flow_at(point) for point in POINTS} == set(FLOWS)
    assert set(itertools.chain(*_pairs())) <= set(POINTS)


@pytest.mark.parametrize("points", _pairs(), ids=" and ".join)
async def test_another_host_takes_over_and_ends_what_a_power_cut_left(
    san: San, hosts: list[MicroHost], tmp_path: Path, points: tuple[str, str]
) -> None:
    began = time.monotonic()
    exports = [Exports(san.server, version, 2) for version in VERSIONS]
    flows = [flow_at(point)(of) for point, of in zip(points, exports, strict=True)]
    async with _agents(hosts) as (one, two):
        await asyncio.gather(flows[0].prepare(one, two), flows[1].prepare(two, one))
        ready = time.monotonic()
        await asyncio.gather(_cut(one, flows[0], points[0]), _cut(two, flows[1], points[1]))
    cut = time.monotonic()
    async with _agents(hosts) as (one, two):
        up = time.monotonic()
        await asyncio.gather(_take_over(two, flows[0]), _take_over(one, flows[1]))
        ended = time.monotonic()
        await one.yields(flows[1].pool)
        await one.leave(flows[1].pool)
        await _come_back(flows[0], cut=one, taken_by=two)
        await two.connect(flows[1].pool)
        await two.lead(flows[1].pool)
        await two.yields(flows[1].pool)
        await two.leave(flows[1].pool)
    _check_all(san.server, flows, tmp_path)
    _end_agents(hosts)
    print(
        f"{' and '.join(points)}: {ready - began:.0f} s made, {up - cut:.0f} s booted,"
        f" {ended - cut:.0f} s after the cut ended by others, {time.monotonic() - began:.0f} s in all"
    )


def _boot_server(server: MicroHost, exports: Sequence[Exports]) -> None:
    """What is exported lies on its disk, that it is exported does not."""
    server.power_cut()
    server.start()
    storage_server.serve_nfs(server, {name: OPTIONS for of in exports for name in of.names})


async def _recover(host: Host, flow: Switch) -> None:
    """An engine asks until the storage answers; the role was lost with it, or not."""

    async def found() -> bool:
        try:
            await flow.found(host)
            await host.lead(flow.pool)
        except (RpcError, ClientError):
            await asyncio.sleep(1)
            return False
        return True

    await engine.until(f"host {host.number} is SPM", found, timeout_s=SLOW_S)
    await flow.go_on(host)
    assert {domain: await host.told(domain) for domain in flow.left()} == flow.left()
    await host.yields(flow.pool)
    await host.leave(flow.pool)


@pytest.mark.skipif(not SOAK, reason="in `make soak`: a boot of the server, and what hosts wait for it")
async def test_masters_move_to_their_end_when_the_power_of_their_server_is_back(
    san: San, hosts: list[MicroHost], tmp_path: Path
) -> None:
    """The hosts go on by themselves: their roles end with the leases, their mounts and host ids come back."""
    exports = [Exports(san.server, version, 2) for version in VERSIONS]
    flows = [Switch(of) for of in exports]
    async with _agents(hosts) as (one, two):
        await asyncio.gather(flows[0].prepare(one, two), flows[1].prepare(two, one))
        await asyncio.gather(flows[0].begin(one), flows[1].begin(two))
        await asyncio.to_thread(_boot_server, san.server, exports)
        await asyncio.gather(_recover(one, flows[0]), _recover(two, flows[1]))
    _check_all(san.server, flows, tmp_path)
    _end_agents(hosts)
