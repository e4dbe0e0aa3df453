# SPDX-License-Identifier: GPL-2.0-or-later
"""Host.getAllVmStats of many simulated VMs, and of real ones beside one bulk call of libvirt.

    python -m contrib.benchmarks vm_statistics
    python -m contrib.benchmarks.vm_statistics [VMS]

The second form runs the part with real VMs alone, with that many of them (`REAL_VMS`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from contrib.benchmarks import report
from contrib.benchmarks.report import Row, Table
from contrib.lab import vm_xml
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PYTHON
from vdsm.client import Client
from vdsm.common.ids import new_uuid

HERE = Path(__file__).resolve().parents[2]
SIMULATED = (100, 400)
DISKS, NICS = 10, 2
PERIOD_S = 1.0
SECONDS = 8.0
GOAL_BLOCK_MS = 50
REAL_VMS = 100
GOAL_RATIO = 1.5
ROUNDS = 30
STEP_S = 60.0
START_S = 5.0
VERB = "Host.getAllVmStats"
# libvirt's call alone, then the agent's: the same call, read into its words
BULK = """
import json, sys, time
import libvirt
from vdsm.virt.libvirt_edge.statistics import ALL_FLAGS, GROUPS, read_all
connect = libvirt.open("qemu:///system")
for line in sys.stdin:
    started = time.perf_counter()
    count = len(connect.getAllDomainStats(GROUPS, ALL_FLAGS))
    between = time.perf_counter()
    read_all(connect)
    print(json.dumps([count, 1000 * (between - started), 1000 * (time.perf_counter() - between)]), flush=True)
"""


def run(host: PrivateHost) -> list[Table]:
    return [_simulated(), asyncio.run(_real(host, REAL_VMS))]


# Simulated


def _simulated() -> Table:
    rows = [_simulated_row(count) for count in SIMULATED]
    note = (
        f"{DISKS} disks and {NICS} NICs each, HTTP on a unix socket, one call after the other for {SECONDS:g} s, and a "
        f"sample every {PERIOD_S:g} s (on a host: 15 s). Longest block of the loop while it samples and nobody "
        f"asks (goal: under {GOAL_BLOCK_MS} ms), and with the calls beside; by the clock, and in its thread's CPU, "
        "which other load on the machine does not change. Memory is what the process wrote itself."
    )
    columns = ("VMs", "KiB", "p50 ms", "p99 ms", "block ms (CPU)", "with calls ms (CPU)", "MiB", "MiB without VMs")
    return Table(f"{VERB}, simulated VMs", columns, rows, note)


def _simulated_row(count: int) -> Row:
    with _agent(0) as (process, _):
        empty_mib = _own_mib(process.pid)
    with _agent(count) as (process, socket):
        _told(process)
        time.sleep(SECONDS)
        quiet = _told(process)
        argv = [sys.executable, "-m", "contrib.benchmarks.load", "http", socket, "1", str(SECONDS), "", VERB]
        load = json.loads(subprocess.run(argv, check=True, capture_output=True, cwd=HERE, timeout=60).stdout)
        busy = _told(process)
        mib = _own_mib(process.pid)
    if load["errors"] or quiet["samples"] < 2:
        raise RuntimeError(f"{load} {quiet}")
    return (
        str(count),
        f"{load['bytes'] / 1024:.0f}",
        f"{load['p50_us'] / 1000:.1f}",
        f"{load['p99_us'] / 1000:.1f}",
        f"{quiet['longest_ms']:.0f} ({quiet['cpu_ms']:.0f})",
        f"{busy['longest_ms']:.0f} ({busy['cpu_ms']:.0f})",
        f"{mib:.0f}",
        f"{empty_mib:.0f}",
    )


@contextlib.contextmanager
def _agent(count: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder, "socket"))
        argv = [sys.executable, "-m", "contrib.benchmarks.simulated_agent", socket]
        argv += [str(count), str(DISKS), str(NICS), str(PERIOD_S)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE) as process:
            try:
                assert process.stdout is not None
                if process.stdout.readline() != b"ready\n":
                    raise RuntimeError(f"the agent with {count} simulated VMs did not start")
                yield process, socket
            finally:
                process.kill()


def _told(process: subprocess.Popen[bytes]) -> dict[str, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    found: dict[str, float] = json.loads(process.stdout.readline())
    return found


def _own_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) / 1024
    return 0.0


# Real


async def _real(host: PrivateHost, count: int) -> Table:
    bulk_ms: list[float] = []
    sample_ms: list[float] = []
    verb_ms: list[float] = []
    async with host.client() as client:
        ids = [new_uuid() for _ in range(count)]
        for vm_id in ids:
            vm = vm_xml.Vm(vm_id, f"vm-{vm_id[:8]}", memory_mib=64)
            await client.call("VM.create", {"vmID": vm_id, "vmParams": {"xml": vm_xml.to_xml(vm)}}, timeout_s=STEP_S)
        await _until_all_have_figures(client, count)
        with subprocess.Popen(
            host.command([PYTHON, "-c", BULK]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        ) as bulk:
            for _ in range(ROUNDS):
                for into, took_ms in zip(
                    (bulk_ms, sample_ms), await asyncio.to_thread(_bulk, bulk, count), strict=True
                ):
                    into.append(took_ms)
                started = time.perf_counter()
                told = await client.call(VERB, timeout_s=STEP_S)
                verb_ms.append(1000 * (time.perf_counter() - started))
                if len([vm for vm in told if vm.get("cpuActual")]) != count:
                    raise RuntimeError(f"{len(told)} VMs of {count} were told")
            assert bulk.stdin is not None
            bulk.stdin.close()
        for vm_id in ids:
            await client.call("VM.destroy", {"vmID": vm_id}, timeout_s=STEP_S)
    bulk_is, verb_is = statistics.median(bulk_ms), statistics.median(verb_ms)
    ratio, fresh = verb_is / bulk_is, (statistics.median(sample_ms) + verb_is) / bulk_is
    note = (
        f"{count} VMs (firmware only, no disk), {ROUNDS} rounds in turns. Median ratio of the verb to the bulk call: "
        f"{ratio:.2f}, of a sample and the verb: {fresh:.2f} (goal: under {GOAL_RATIO}). Calls of libvirt are made in "
        "a process of their own; the verb is answered from the agent's last sample, on the unix socket, decoded by "
        "the client."
    )
    rows = [
        _row("one bulk call of libvirt", bulk_ms),
        _row("a sample: the same call, in the agent's words", sample_ms),
        _row(VERB, verb_ms),
    ]
    return Table("Statistics of real VMs", ("way", "median ms", "p99 ms"), rows, note)


async def _until_all_have_figures(client: Client, count: int) -> None:
    async with asyncio.timeout(STEP_S + START_S * count):
        while len([vm for vm in await client.call(VERB, timeout_s=STEP_S) if vm.get("cpuActual")]) < count:
            await asyncio.sleep(0.5)


def _bulk(process: subprocess.Popen[bytes], count: int) -> tuple[float, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    found, bulk_ms, sample_ms = json.loads(process.stdout.readline())
    if found != count:
        raise RuntimeError(f"libvirt told {found} domains of {count}")
    return float(bulk_ms), float(sample_ms)


def _row(label: str, taken_ms: list[float]) -> Row:
    ordered = sorted(taken_ms)
    return (label, f"{statistics.median(ordered):.1f}", f"{ordered[len(ordered) * 99 // 100]:.1f}")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else REAL_VMS
    with PrivateHost() as host:
        host.start_agent()
        print(report.as_markdown(asyncio.run(_real(host, count))))
    print(report.machine())


if __name__ == "__main__":
    main()
