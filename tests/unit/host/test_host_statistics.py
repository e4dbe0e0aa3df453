# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures of `Host.getStats` from files of /proc and /sys with known numbers: values, units and types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vdsm.host import statistics
from vdsm.host.statistics import Sample
from vdsm.host.tree import Tree

MEMINFO = """MemTotal: 4194304 kB
MemFree: 1048576 kB
Buffers: 102400 kB
Cached: 819200 kB
SReclaimable: 126976 kB
SwapTotal: 2097152 kB
SwapFree: 1048576 kB
AnonHugePages: 20480 kB
"""
FILES = {
    "/proc/meminfo": MEMINFO,
    "/proc/loadavg": "0.10 0.25 0.40 1/100 1",
    "/proc/self/stat": "1 (a) b) S 1 1 1 0 -1 0 0 0 0 0 {user} {system} 0 0",
    "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "/sys/kernel/mm/ksm/run": "1",
    "/sys/kernel/mm/ksm/pages_to_scan": "100",
    "/sys/kernel/mm/ksm/pages_sharing": "2560",
    "/sys/kernel/mm/ksm/merge_across_nodes": "0",
    "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "8",
    "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "3",
    "/sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 2097152 kB\nNode 0 MemFree: 1048576 kB",
    "/sys/devices/system/node/node0/cpulist": "0",
    "/sys/devices/system/node/node1/meminfo": "Node 1 MemTotal: 2097152 kB\nNode 1 MemFree: 524288 kB",
    "/sys/devices/system/node/node1/cpulist": "1",
    "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages": "8",
    "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages": "2",
}


def sample(root: Path, *, stat: str, own: tuple[int, int] = (0, 0), at_s: float) -> Sample:
    for name, text in FILES.items():
        path = root / name[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(user=own[0], system=own[1]))
    (root / "proc/stat").write_text(stat)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics.time, "monotonic", lambda: at_s)
        return statistics.take(Tree(str(root)), (str(root), "/nonexistent"))


@pytest.fixture
def told(tmp_path: Path) -> dict[str, Any]:
    before = sample(tmp_path, stat="cpu 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0\ncpu1 0 0 0 0\nbtime 1700000000\n", at_s=10.0)
    stat = "cpu 100 50 30 200 10 5 5 0\ncpu0 100 0 0 100\ncpu1 0 0 50 150\nbtime 1700000000\n"
    ticks = statistics._TICKS
    now = sample(tmp_path, stat=stat, own=(2 * ticks, ticks), at_s=20.0)
    return statistics.figures(before, now)


def test_shares_of_the_processors(told: dict[str, Any]) -> None:
    assert [told[key] for key in ("cpuUser", "cpuSys", "cpuIdle")] == ["37.50", "10.00", "52.50"]
    assert told["cpuStatistics"] == {
        "0": {"cpuUser": "50.00", "cpuSys": "0.00", "cpuIdle": "50.00", "nodeIndex": 0},
        "1": {"cpuUser": "0.00", "cpuSys": "25.00", "cpuIdle": "75.00", "nodeIndex": 1},
    }
    assert told["cpuLoad"] == "0.25"


def test_the_agents_own_share_is_of_one_core(told: dict[str, Any]) -> None:
    assert (told["cpuUserVdsmd"], told["cpuSysVdsmd"]) == ("20.00", "10.00")


def test_memory_is_in_mebibytes(told: dict[str, Any]) -> None:
    assert (told["memFree"], told["memUsed"], told["memShared"]) == (2048, "50", 10)
    assert (told["swapTotal"], told["swapFree"], told["anonHugePages"]) == (2048, 1024, "20")
    assert told["hugepages"] == {"2048": {"nr_hugepages": 8, "free_hugepages": 3, "vm.free_hugepages": 3}}


def test_memory_of_each_node(told: dict[str, Any]) -> None:
    assert told["numaNodeMemFree"]["0"] == {"memFree": "1024", "memPercent": 50, "hugepages": {}}
    assert told["numaNodeMemFree"]["1"] == {
        "memFree": "512",
        "memPercent": 75,
        "hugepages": {"2048": {"freePages": "2"}},
    }


def test_page_merging_and_huge_pages(told: dict[str, Any]) -> None:
    assert [told[key] for key in ("ksmState", "ksmPages", "ksmMergeAcrossNodes", "thpState")] == [
        True,
        100,
        False,
        "madvise",
    ]


def test_boot_time_and_free_space(told: dict[str, Any], tmp_path: Path) -> None:
    assert told["bootTime"] == "1700000000"
    assert list(told["diskStats"]) == [str(tmp_path)]
    assert told["diskStats"][str(tmp_path)]["free"].isdigit()


def test_one_sample_counts_as_idle(tmp_path: Path) -> None:
    only = sample(tmp_path, stat="cpu 100 0 0 0\ncpu0 100 0 0 0\n", at_s=1.0)
    told = statistics.figures(None, only)
    assert [told[key] for key in ("cpuUser", "cpuSys", "cpuIdle", "cpuUserVdsmd")] == ["0.00", "0.00", "100.00", "0.00"]
