# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of the host and of its NUMA nodes, huge pages, page merging. Units: MiB unless named."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vdsm.host.tree import Tree, number_list

_NODES = "/sys/devices/system/node"
_KSM = "/sys/kernel/mm/ksm"
_PAGE_KIB = 4


@dataclass(frozen=True)
class Node:
    number: int
    cpus: tuple[int, ...]
    total_mib: int
    free_mib: int
    distances: tuple[int, ...]
    hugepages: dict[int, tuple[int, int]]  # size in KiB -> (all, free)


def parse_meminfo(text: str) -> dict[str, int]:
    """KiB by name; also of a node's file, whose lines begin with ``Node <n>``."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"(?:Node\s+\d+\s+)?([\w()]+):\s+(\d+)", line)
        if match:
            found[match[1]] = int(match[2])
    return found


def free_kib(info: dict[str, int]) -> int:
    """What programs could get at once: free memory and caches that may be dropped."""
    return sum(info.get(name, 0) for name in ("MemFree", "Cached", "Buffers", "SReclaimable")) or (
        info.get("MemFree", 0) + info.get("FilePages", 0)
    )


def read_nodes(tree: Tree) -> list[Node]:
    """Of a kernel without NUMA: one node with everything."""
    numbers = sorted(int(name[4:]) for name in tree.names(_NODES) if name.startswith("node") and name[4:].isdigit())
    nodes = []
    for number in numbers:
        folder = f"{_NODES}/node{number}"
        info = parse_meminfo(tree.text(f"{folder}/meminfo"))
        free = info.get("MemFree", 0) + info.get("FilePages", 0) + info.get("SReclaimable", 0)
        nodes.append(
            Node(
                number,
                cpus=tuple(number_list(tree.text(f"{folder}/cpulist"))),
                total_mib=info.get("MemTotal", 0) >> 10,
                free_mib=free >> 10,
                distances=tuple(int(word) for word in tree.text(f"{folder}/distance").split() if word.isdigit()),
                hugepages=read_hugepages(tree, f"{folder}/hugepages"),
            )
        )
    if nodes:
        return nodes
    info = parse_meminfo(tree.text("/proc/meminfo"))
    cpus = tuple(number_list(tree.text("/sys/devices/system/cpu/online")))
    return [Node(0, cpus, info.get("MemTotal", 0) >> 10, free_kib(info) >> 10, (10,), {})]


def read_hugepages(tree: Tree, folder: str = "/sys/kernel/mm/hugepages") -> dict[int, tuple[int, int]]:
    found = {}
    for name in tree.names(folder):
        match = re.fullmatch(r"hugepages-(\d+)kB", name)
        if match:
            place = f"{folder}/{name}"
            found[int(match[1])] = (tree.number(f"{place}/nr_hugepages"), tree.number(f"{place}/free_hugepages"))
    return found


@dataclass(frozen=True)
class Ksm:
    running: bool
    pages: int  # to scan in one turn
    merge_across_nodes: bool
    shared_mib: int


def read_ksm(tree: Tree) -> Ksm:
    return Ksm(
        running=tree.number(f"{_KSM}/run") == 1,
        pages=tree.number(f"{_KSM}/pages_to_scan"),
        merge_across_nodes=tree.number(f"{_KSM}/merge_across_nodes", 1) == 1,
        shared_mib=tree.number(f"{_KSM}/pages_sharing") * _PAGE_KIB >> 10,
    )


def thp_state(tree: Tree) -> str:
    """always, madvise or never: the word in brackets."""
    match = re.search(r"\[(\w+)\]", tree.text("/sys/kernel/mm/transparent_hugepage/enabled"))
    return match[1] if match else "never"
