# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory as the sum of PSS of all our processes, and the CPU they use when nothing happens.

Ours are the agent, the root helper and their children (SPM process, I/O helpers); libvirt, sanlock and QEMU are not.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from contrib.benchmarks.report import Row, Table
from contrib.lab.host import PrivateHost

IDLE_S = 20.0
SETTLE_S = 3.0
GOAL_MIB = 110
COLUMNS = ("state", "processes", "PSS MiB", "largest MiB", "idle CPU %")


@dataclass(frozen=True)
class Footprint:
    processes: int
    pss_kib: int
    largest_kib: int
    cpu_percent: float

    def row(self, state: str) -> Row:
        return (
            state,
            str(self.processes),
            f"{self.pss_kib / 1024:.1f}",
            f"{self.largest_kib / 1024:.1f}",
            f"{self.cpu_percent:.2f}",
        )


def ours(host: PrivateHost) -> list[psutil.Process]:
    found = []
    for inner in (host.agent_pid, host.root_pid):
        process = psutil.Process(host.outer_pid(inner))
        found += [process, *process.children(recursive=True)]
    return [process for process in found if "qemu" not in process.name()]


def measure(host: PrivateHost, idle_s: float = IDLE_S) -> Footprint:
    """The footprint now; the CPU over ``idle_s`` seconds from now."""
    time.sleep(SETTLE_S)
    processes = ours(host)
    before = _cpu_s(processes)
    started = time.monotonic()
    time.sleep(idle_s)
    used = _cpu_s(processes) - before
    elapsed = time.monotonic() - started
    pss = [_pss_kib(process.pid) for process in processes]
    return Footprint(len(processes), sum(pss), max(pss), 100 * used / elapsed)


def run(host: PrivateHost) -> list[Table]:
    host.restart_agent()
    row = measure(host).row("started, no pool, no VM")
    note = f"Goal: under {GOAL_MIB} MiB in all. CPU in percent of one core over {IDLE_S:g} s."
    return [Table("Memory and idle CPU", COLUMNS, [row], note)]


def own_kib(host: PrivateHost) -> int:
    """What all our processes wrote themselves: unlike PSS it does not change with who else runs on the machine."""
    return sum(_kib(process.pid, "Anonymous:") for process in ours(host))


def _pss_kib(pid: int) -> int:
    return _kib(pid, "Pss:")


def _kib(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1])
    return 0


def _cpu_s(processes: list[psutil.Process]) -> float:
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
