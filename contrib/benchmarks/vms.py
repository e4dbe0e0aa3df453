# SPDX-License-Identifier: GPL-2.0-or-later
"""VM.create beside plain ``virsh create`` of the same XML, in turns; then the footprint with pool and VMs.

VM.create counts from the call to the event that says Up: checks, storage prepared, hooks (none installed), libvirt.
``virsh create`` starts what the agent gave libvirt before, on an image that is prepared already.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator

from contrib.benchmarks import footprint
from contrib.benchmarks.report import Row, Table
from contrib.lab import engine, vm_xml
from contrib.lab.host import PrivateHost
from vdsm.client import Client, Notice
from vdsm.common.ids import new_uuid

ROUNDS = 7
VMS = 20
MEMORY_MIB = 64
XML_FILE = "/tmp/benchmark.xml"
STEP_S = 60.0


def run(host: PrivateHost) -> list[Table]:
    return asyncio.run(_run(host))


async def _run(host: PrivateHost) -> list[Table]:
    async with host.client() as client:
        pool = await engine.new_pool(client)
        with_pool = footprint.measure(host).row("pool, SPM, no VM")
        start = await _starts(host, client, pool)
        vms = [await running_vm(client, pool) for _ in range(VMS)]
        with_vms = footprint.measure(host).row(f"pool, SPM, {VMS} VMs")
        for vm_id in vms:
            await client.call("VM.destroy", {"vmID": vm_id}, timeout_s=STEP_S)
    note = f"Goal: under {footprint.GOAL_MIB} MiB in all. The VMs have no guest: what costs is watching them."
    return [start, Table("Memory and idle CPU with storage and VMs", footprint.COLUMNS, [with_pool, with_vms], note)]


async def _starts(host: PrivateHost, client: Client, pool: engine.Pool) -> Table:
    volume = await engine.create_volume(client, pool)
    vm = vm_xml.Vm(new_uuid(), "benchmark", memory_mib=MEMORY_MIB, disks=[volume.disk()])
    ours, plain = [], []
    async with contextlib.aclosing(client.events()) as events:
        for _ in range(ROUNDS):
            ours.append(await _timed_create(client, events, vm))
            host.run(["sh", "-c", f"virsh -q dumpxml --inactive {vm.vm_id} > {XML_FILE}"])
            await client.call("VM.destroy", {"vmID": vm.vm_id}, timeout_s=STEP_S)
            await client.call("Image.prepare", volume.ids, timeout_s=STEP_S)
            plain.append(await asyncio.to_thread(_timed_virsh, host))
            async with asyncio.timeout(STEP_S):
                await _until_up(events, vm.vm_id)  # the agent takes it over; the next round waits for an Up of its own
            await client.call("VM.destroy", {"vmID": vm.vm_id}, timeout_s=STEP_S)
            await client.call("Image.teardown", volume.ids, timeout_s=STEP_S)
    ratio = statistics.median(ours) / statistics.median(plain)
    rows = [_row("VM.create until Up", ours), _row("virsh create", plain)]
    note = (
        f"Median ratio: {ratio:.2f} (goal: under 1.3 plus hooks' own time). {ROUNDS} rounds in turns, one disk on a "
        f"POSIXFS domain, domain type {vm_xml.domain_type()}. virsh's time includes entering the host's namespaces."
    )
    return Table("Start of a VM", ("way", "median ms", "fastest ms", "slowest ms"), rows, note)


async def _timed_create(client: Client, events: AsyncIterator[Notice], vm: vm_xml.Vm) -> float:
    # the iterator connects when first asked: have it ask before the clock starts
    up = asyncio.ensure_future(_until_up(events, vm.vm_id))
    await asyncio.sleep(0.1)
    started = time.perf_counter()
    await engine.create_vm(client, vm)
    async with asyncio.timeout(STEP_S):
        await up
    return time.perf_counter() - started


async def _until_up(events: AsyncIterator[Notice], vm_id: str) -> None:
    async for notice in events:
        told = notice.params.get(vm_id, {})
        if told.get("status") == "Up":
            return
        if told.get("exitCode"):  # the round before ended with code 0
            raise RuntimeError(f"VM went down: {told}")


def _timed_virsh(host: PrivateHost) -> float:
    started = time.perf_counter()
    host.run(["virsh", "-q", "create", XML_FILE])
    return time.perf_counter() - started


async def running_vm(client: Client, pool: engine.Pool) -> str:
    volume = await engine.create_volume(client, pool)
    vm_id = new_uuid()
    await engine.create_vm(client, vm_xml.Vm(vm_id, f"vm-{vm_id[:8]}", memory_mib=MEMORY_MIB, disks=[volume.disk()]))
    await engine.wait_vm(client, vm_id, "Up", timeout_s=STEP_S)
    return vm_id


def _row(label: str, seconds: list[float]) -> Row:
    return (label, *(f"{1000 * value:.0f}" for value in (statistics.median(seconds), min(seconds), max(seconds))))
