# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host does now. Every period the files of /proc and /sys are read once, in a thread; the verb
answers from the last two samples and never waits for a file.

Rates are between the two last samples; before there are two, the host counts as idle.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vdsm.host import memory
from vdsm.host.cpu import CpuTimes, node_of_cpu, parse_stat, shares
from vdsm.host.devices import interfaces
from vdsm.host.memory import Ksm, Node
from vdsm.host.tree import Tree

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    monotonic_s: float
    cpus: Mapping[str, CpuTimes]
    node_of: Mapping[int, int]
    own_ticks: tuple[int, int]
    load: float
    meminfo: Mapping[str, int]
    hugepages: Mapping[int, tuple[int, int]]
    nodes: tuple[Node, ...]
    ksm: Ksm
    thp: str
    boot_s: int
    network: Mapping[str, Mapping[str, Any]]
    disk_free_mib: Mapping[str, int]


def take(tree: Tree, folders: tuple[str, ...]) -> Sample:
    """Blocking. ``folders``: whose free space is told."""
    stat = tree.text("/proc/stat")
    return Sample(
        monotonic_s=time.monotonic(),
        cpus=parse_stat(stat),
        node_of=node_of_cpu(tree),
        own_ticks=own_ticks(tree.text("/proc/self/stat")),
        load=load_average(tree.text("/proc/loadavg")),
        meminfo=memory.parse_meminfo(tree.text("/proc/meminfo")),
        hugepages=memory.read_hugepages(tree),
        nodes=tuple(memory.read_nodes(tree)),
        ksm=memory.read_ksm(tree),
        thp=memory.thp_state(tree),
        boot_s=boot_time(stat),
        network=interfaces(tree, time.time()),
        disk_free_mib=free_space(folders),
    )


def own_ticks(stat: str) -> tuple[int, int]:
    """(user, system) of this process. Its name, in brackets, may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]), int(fields[12])) if len(fields) > 12 else (0, 0)


def load_average(text: str) -> float:
    """Over five minutes."""
    fields = text.split()
    try:
        return float(fields[1])
    except (IndexError, ValueError):
        return 0.0


def boot_time(stat: str) -> int:
    """Seconds since the epoch; 0 unknown."""
    line = next((line for line in stat.splitlines() if line.startswith("btime ")), "")
    return int(line.split()[1]) if line else 0


def free_space(folders: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for folder in folders:
        try:
            state = os.statvfs(folder)
        except OSError:
            continue
        found[folder] = state.f_bavail * state.f_frsize >> 20
    return found


def figures(before: Sample | None, now: Sample) -> dict[str, Any]:
    """The host's own part of `Host.getStats` (verbs.md A2)."""
    nothing: Mapping[str, CpuTimes] = {}
    earlier = before.cpus if before else nothing
    total = shares(earlier.get(""), now.cpus.get("", CpuTimes(0, 0, 0, 0)))
    own_user, own_system = _own_shares(before, now)
    info = dict(now.meminfo)
    all_kib = info.get("MemTotal", 0)
    free_kib = memory.free_kib(info)
    return {
        "cpuUser": f"{total.user:.2f}",
        "cpuSys": f"{total.system:.2f}",
        "cpuIdle": f"{total.idle:.2f}",
        "cpuUserVdsmd": f"{own_user:.2f}",
        "cpuSysVdsmd": f"{own_system:.2f}",
        "cpuLoad": f"{now.load:.2f}",
        "cpuStatistics": _by_cpu(earlier, now),
        "memUsed": str(round(100 - 100 * free_kib / all_kib) if all_kib else 0),
        "memFree": free_kib >> 10,
        "memShared": now.ksm.shared_mib,
        "swapTotal": info.get("SwapTotal", 0) >> 10,
        "swapFree": info.get("SwapFree", 0) >> 10,
        "anonHugePages": str(info.get("AnonHugePages", 0) >> 10),
        "hugepages": {
            str(size): {"nr_hugepages": count, "free_hugepages": free, "vm.free_hugepages": free}
            for size, (count, free) in now.hugepages.items()
        },
        "numaNodeMemFree": {str(node.number): _node(node) for node in now.nodes},
        "thpState": now.thp,
        "ksmState": now.ksm.running,
        "ksmPages": now.ksm.pages,
        "ksmMergeAcrossNodes": now.ksm.merge_across_nodes,
        "ksmCpu": 0,
        "bootTime": str(now.boot_s),
        "network": {name: dict(counts) for name, counts in now.network.items()},
        "diskStats": {folder: {"free": str(mib)} for folder, mib in now.disk_free_mib.items()},
    }


def _by_cpu(before: Mapping[str, CpuTimes], now: Sample) -> dict[str, dict[str, Any]]:
    found = {}
    for number, times in now.cpus.items():
        if number:
            share = shares(before.get(number), times)
            found[number] = {
                "cpuUser": f"{share.user:.2f}",
                "cpuSys": f"{share.system:.2f}",
                "cpuIdle": f"{share.idle:.2f}",
                "nodeIndex": now.node_of.get(int(number), 0),
            }
    return found


def _own_shares(before: Sample | None, now: Sample) -> tuple[float, float]:
    """Percent of one core."""
    if before is None or now.monotonic_s <= before.monotonic_s:
        return 0.0, 0.0
    ticks = (now.monotonic_s - before.monotonic_s) * _TICKS
    user, system = (max(0, b - a) for a, b in zip(before.own_ticks, now.own_ticks, strict=True))
    return 100 * user / ticks, 100 * system / ticks


def _node(node: Node) -> dict[str, Any]:
    used = round(100 - 100 * node.free_mib / node.total_mib) if node.total_mib else 0
    return {
        "memFree": str(node.free_mib),
        "memPercent": used,
        "hugepages": {str(size): {"freePages": str(free)} for size, (_, free) in node.hugepages.items()},
    }
