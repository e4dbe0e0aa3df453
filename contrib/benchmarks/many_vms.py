# SPDX-License-Identifier: GPL-2.0-or-later
"""Many VMs: created at once beside as many plain ``virsh create``, and what watching a hundred of them costs.

    python -m contrib.benchmarks many_vms

Created at once: the clock runs from the first call until the last VM is Up, beside a shell that starts ``virsh create``
for each of the same domains at once and waits for all. In turns, on images that exist; the best of `ROUNDS` counts.
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

from contrib.benchmarks import footprint
from contrib.benchmarks.report import Row, Table
from contrib.lab import engine, vm_xml
from contrib.lab.host import PrivateHost
from vdsm.client import Client
from vdsm.common.ids import new_uuid

AT_ONCE = 30
WATCHED = 100
ROUNDS = 3
MEMORY_MIB = 32
STEP_S = 300.0
XML_FOLDER = "/tmp/many"
AGENT_LOG = "/var/log/vdsm/agent.log"
CREATE_ALL = f"""
mkdir -p {XML_FOLDER}
for id in "$@"; do virsh -q dumpxml --inactive "$id" > {XML_FOLDER}/$id.xml; done
"""
VIRSH_ALL = f'for file in {XML_FOLDER}/*.xml; do virsh -q create "$file" & done; wait'


def run(host: PrivateHost) -> list[Table]:
    return asyncio.run(_run(host))


async def _run(host: PrivateHost) -> list[Table]:
    async with host.client() as client:
        pool = await engine.new_pool(client)
        volumes = [await engine.create_volume(client, pool) for _ in range(WATCHED)]
        started = await _at_once(host, client, volumes[:AT_ONCE])
        vms = [_describe(volume) for volume in volumes]
        await _create_all(client, vms)
        watched = footprint.measure(host)
        restart_s = await _restart(host, len(vms))
    async with host.client() as client:
        again = footprint.measure(host)
        await asyncio.gather(*(client.call("VM.destroy", {"vmID": vm.vm_id}, timeout_s=STEP_S) for vm in vms))
    rows = [watched.row(f"pool, SPM, {WATCHED} VMs"), again.row("the same after a restart of the agent")]
    note = (
        f"VMs without a guest (firmware only). Goals: under 150 MiB, under 5 % of a core. Restart until all "
        f"{WATCHED} VMs are answered for: {restart_s:.2f} s (goal: under 2 s)."
    )
    return [started, Table(f"Watching {WATCHED} VMs", footprint.COLUMNS, rows, note)]


def _describe(volume: engine.Volume) -> vm_xml.Vm:
    vm_id = new_uuid()
    return vm_xml.Vm(vm_id, f"many-{vm_id[:8]}", memory_mib=MEMORY_MIB, disks=[volume.disk()])


async def _at_once(host: PrivateHost, client: Client, volumes: list[engine.Volume]) -> Table:
    vms = [_describe(volume) for volume in volumes]
    ids = [vm.vm_id for vm in vms]
    ours, plain = [], []
    for _ in range(ROUNDS):
        ours.append(await _create_all(client, vms))
        host.run(["sh", "-c", CREATE_ALL, "sh", *ids])
        await asyncio.gather(*(client.call("VM.destroy", {"vmID": i}, timeout_s=STEP_S) for i in ids))
        await asyncio.gather(*(client.call("Image.prepare", v.ids, timeout_s=STEP_S) for v in volumes))
        plain.append(await asyncio.to_thread(_virsh_all, host))
        await asyncio.gather(*(_end_plain(client, i) for i in ids))
        await asyncio.gather(*(client.call("Image.teardown", v.ids, timeout_s=STEP_S) for v in volumes))
    ratio = min(ours) / min(plain)
    note = (
        f"Ratio of the best: {ratio:.2f} (goal: under 1.2 in all). Where the time of ours went, summed over "
        f"{AT_ONCE} VMs of the last round: {_clock(host, set(ids))}."
    )
    rows = [_row(f"{AT_ONCE} x VM.create until all are Up", ours), _row(f"{AT_ONCE} x virsh create", plain)]
    return Table("Starts at once", ("way", "best s", "slowest s"), rows, note)


async def _create_all(client: Client, vms: list[vm_xml.Vm]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(engine.create_vm(client, vm) for vm in vms))
    wanted = {vm.vm_id for vm in vms}
    while wanted:
        told = await client.call("Host.getVMList", timeout_s=STEP_S)
        if lost := [vm for vm in told if vm["vmId"] in wanted and vm["status"] == "Down"]:
            raise RuntimeError(f"VMs went down: {lost}")
        wanted -= {vm["vmId"] for vm in told if vm["status"] == "Up"}
        await asyncio.sleep(0.01)
    return time.perf_counter() - started


async def _end_plain(client: Client, vm_id: str) -> None:
    """The agent takes over what virsh starts of its VMs."""
    await engine.wait_vm(client, vm_id, "Up", timeout_s=STEP_S)
    await client.call("VM.destroy", {"vmID": vm_id}, timeout_s=STEP_S)


def _virsh_all(host: PrivateHost) -> float:
    started = time.perf_counter()
    host.run(["sh", "-c", VIRSH_ALL])
    return time.perf_counter() - started


def _clock(host: PrivateHost, ids: set[str]) -> str:
    """The clock lines of the last round, added up by step."""
    lines: dict[str, str] = {}
    for line in Path(host.path(AGENT_LOG)).read_text(errors="replace").splitlines():
        if (found := re.search(r"VM\.create (\S+) [\d.]+ s: (.*)$", line)) and found[1] in ids:
            lines[found[1]] = found[2]
    steps: dict[str, float] = {}
    for line in lines.values():
        for name, seconds in re.findall(r"([\w ]+?) ([\d.]+)(?:,|$)", line):
            steps[name.strip()] = steps.get(name.strip(), 0.0) + float(seconds)
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in steps.items()) or "no line found"


async def _restart(host: PrivateHost, count: int) -> float:
    started = time.perf_counter()
    await asyncio.to_thread(host.restart_agent)
    async with host.client() as client:
        while True:
            told = await client.call("Host.getVMList", timeout_s=STEP_S)
            if len([vm for vm in told if vm["status"] == "Up"]) == count:
                return time.perf_counter() - started


def _row(label: str, seconds: list[float]) -> Row:
    return (label, f"{min(seconds):.2f}", f"{max(seconds):.2f}")
