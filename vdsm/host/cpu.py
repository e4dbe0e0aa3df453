# SPDX-License-Identifier: GPL-2.0-or-later
"""The processors: what they are (/proc/cpuinfo), how they hang together (/sys), how busy they are (/proc/stat)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vdsm.host.tree import Tree, number_list

_CPUS = "/sys/devices/system/cpu"
VIRTUALISATION = frozenset({"vmx", "svm"})


@dataclass(frozen=True)
class CpuInfo:
    model: str
    speed_mhz: float
    flags: frozenset[str]
    count: int


@dataclass(frozen=True)
class Place:
    cpu: int
    core: int
    die: int
    socket: int
    node: int


@dataclass(frozen=True)
class Topology:
    places: tuple[Place, ...]

    @property
    def online(self) -> list[int]:
        return [place.cpu for place in self.places]

    @property
    def sockets(self) -> int:
        return len({place.socket for place in self.places})

    @property
    def cores(self) -> int:
        return len({(place.socket, place.die, place.core) for place in self.places})


@dataclass(frozen=True)
class CpuTimes:
    """Clock ticks since boot."""

    user: int
    system: int
    idle: int
    total: int


@dataclass(frozen=True)
class Shares:
    """Percent of the time between two samples."""

    user: float = 0.0
    system: float = 0.0
    idle: float = 100.0


def parse_cpuinfo(text: str) -> CpuInfo:
    """Of the first processor; x86 and arm words for flags are both known."""
    first: dict[str, str] = {}
    count = 0
    for line in text.splitlines():
        key, _, value = line.partition(":")
        key = key.strip()
        first.setdefault(key, value.strip())
        count += key == "processor"
    flags = first.get("flags") or first.get("Features") or ""
    try:
        speed = float(first.get("cpu MHz", ""))
    except ValueError:
        speed = 0.0
    return CpuInfo(first.get("model name", ""), speed, frozenset(flags.split()), count)


def read_topology(tree: Tree, count: int) -> Topology:
    """From sysfs; without it ``count`` processors of one core each on one socket."""
    online = number_list(tree.text(f"{_CPUS}/online")) or list(range(count))
    nodes = node_of_cpu(tree)
    places = []
    for cpu in online:
        folder = f"{_CPUS}/cpu{cpu}/topology"
        places.append(
            Place(
                cpu,
                core=max(0, tree.number(f"{folder}/core_id", cpu)),
                die=max(0, tree.number(f"{folder}/die_id")),
                socket=max(0, tree.number(f"{folder}/physical_package_id")),
                node=nodes.get(cpu, 0),
            )
        )
    return Topology(tuple(places))


def node_of_cpu(tree: Tree) -> Mapping[int, int]:
    folder = "/sys/devices/system/node"
    found = {}
    for name in tree.names(folder):
        if name.startswith("node") and name[4:].isdigit():
            for cpu in number_list(tree.text(f"{folder}/{name}/cpulist")):
                found[cpu] = int(name[4:])
    return found


def parse_stat(text: str) -> dict[str, CpuTimes]:
    """Times by processor number, and of all together under the empty name. Waiting for a disk counts as idle."""
    found = {}
    for line in text.splitlines():
        name, *fields = line.split()
        if not name.startswith("cpu"):
            continue
        ticks = [int(field) for field in fields[:8]] + [0] * (8 - len(fields[:8]))
        user, nice, system, idle, iowait, irq, softirq, steal = ticks
        busy_system = system + irq + softirq
        total = user + nice + busy_system + idle + iowait + steal
        found[name[3:]] = CpuTimes(user + nice, busy_system, idle + iowait, total)
    return found


def shares(before: CpuTimes | None, after: CpuTimes) -> Shares:
    if before is None or after.total <= before.total:
        return Shares()
    span = after.total - before.total

    def percent(start: int, end: int) -> float:
        return min(100.0, max(0.0, 100.0 * (end - start) / span))  # iowait may run backwards

    return Shares(
        percent(before.user, after.user), percent(before.system, after.system), percent(before.idle, after.idle)
    )
