# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics of one VM from a window of samples, in the field's keys and types (virt.md §10.2).

Pure: counters in, dictionaries out. Numbers go as text where the field sends text. A figure that needs two samples is
left out until there are two; what is not known is left out, never empty and never a zero that nobody counted. Where the
field always has a key, it is there: the totals of a disk begin with 0, and ``cpuActual`` tells whether the shares of
the CPU were measured. Balloon figures are those of a balloon: an engine takes them for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsm.virt.stats.counters import Block, Nic
from vdsm.virt.stats.samples import Window

Json = dict[str, Any]

_FAST_MODELS = frozenset({"virtio", "e1000", "e1000e"})
_NO_TOTALS = dict.fromkeys(
    ("truesize", "apparentsize", "readBytes", "writtenBytes", "readOps", "writeOps"),
    "0",
)


def cpu(window: Window) -> Json:
    """User is time in the guest, sys is what QEMU and the kernel need for it; percent of one core."""
    now, before = window.last.counters, None if window.first is None else window.first.counters
    overhead_ns = None if now.cpu_system is None or now.cpu_user is None else now.cpu_system + now.cpu_user
    found: Json = {
        "vcpuCount": str(now.vcpus or -1),
        "cpuUsage": "0.00" if overhead_ns is None else str(overhead_ns),
        "cpuUser": "0.00",
        "cpuSys": "0.00",
        "cpuActual": False,
    }
    if before is None or window.seconds <= 0:
        return found
    all_ns = _growth(before.cpu_time, now.cpu_time)
    system_ns, user_ns = _growth(before.cpu_system, now.cpu_system), _growth(before.cpu_user, now.cpu_user)
    if all_ns is None or system_ns is None or user_ns is None:
        return found
    found["cpuSys"] = _percent(system_ns + user_ns, window.seconds)
    found["cpuUser"] = _percent(max(0, all_ns - system_ns - user_ns), window.seconds)
    found["cpuActual"] = True
    return found


def balloon(window: Window, *, minimum_kib: int, enabled: bool) -> Json:
    now = window.last.counters
    if not now.balloon or now.memory is None or now.memory_maximum is None:
        return {}
    return {
        "balloon_max": str(now.memory_maximum),
        "balloon_min": str(minimum_kib),
        "balloon_cur": str(now.memory),
        "balloon_target": str(now.memory),
        "ballooning_enabled": enabled,
    }


def memory(window: Window) -> Json:
    """Empty until the guest's balloon driver tells."""
    now, before = window.last.counters, None if window.first is None else window.first.counters
    if now.available is None or now.unused is None:
        return {}
    found: Json = {
        "mem_total": str(now.available),
        "mem_unused": str(now.unused),
        "mem_free": str(now.unused + (now.caches or 0)),
    }
    if now.caches is not None:
        found["mem_cached"] = str(now.caches)
    if before is None:
        return found
    rates = {
        "swap_in": _rate(before.swap_in, now.swap_in, window.seconds),
        "swap_out": _rate(before.swap_out, now.swap_out, window.seconds),
        "majflt": _rate(before.major_faults, now.major_faults, window.seconds),
        "minflt": _rate(before.minor_faults, now.minor_faults, window.seconds),
    }
    found.update((name, round(rate)) for name, rate in rates.items() if rate is not None)
    if "majflt" in found and "minflt" in found:
        found["pageflt"] = found["majflt"] + found["minflt"]
    return found


def disks(window: Window, ids: Mapping[str, Json]) -> Json:
    """By target device. ``ids`` has every disk of the VM, with the key that says which image or LUN it shows."""
    found: Json = {target: _NO_TOTALS | named for target, named in ids.items()}
    before = window.blocks_before()
    for block in window.last.counters.blocks:
        disk = found.setdefault(block.name, {})
        disk.update(_totals(block, is_lun="lunGUID" in disk))
        if block.name in before:
            disk.update(_rates(before[block.name], block, window.seconds))
    return found


def network(window: Window, vnics: Mapping[str, tuple[str, str]]) -> Json:
    """By host device; ``vnics`` gives MAC and model of each. An engine wants all counts of a NIC, or no NIC."""
    return {
        nic.name: _nic(nic, *vnics[nic.name]) | {"sampleTime": window.last.taken_s}
        for nic in window.last.counters.nics
        if nic.name in vnics and None not in (nic.rx_bytes, nic.tx_bytes, nic.rx_drop, nic.tx_drop)
    }


def memory_usage_percent(window: Window, memory_figures: Mapping[str, Any]) -> str:
    """Of the memory that the VM was started with; 0 unknown."""
    total_kib = window.last.counters.memory_maximum or 0
    if total_kib <= 0 or "mem_free" not in memory_figures:
        return "0"
    return str(max(0, 100 - 100 * int(memory_figures["mem_free"]) // total_kib))


def _totals(block: Block, *, is_lun: bool) -> Json:
    """libvirt's allocation is how far QEMU has written since its start: nothing yet is no empty image. An engine takes
    the size of a LUN from here.
    """
    size = block.physical or 0
    return {
        "truesize": str(size if is_lun else block.allocation or size),
        "apparentsize": str(block.physical or 0),
        "readBytes": str(block.rd_bytes or 0),
        "writtenBytes": str(block.wr_bytes or 0),
        "readOps": str(block.rd_reqs or 0),
        "writeOps": str(block.wr_reqs or 0),
    }


def _rates(before: Block, now: Block, seconds: float) -> Json:
    rates = {
        "readRate": _rate(before.rd_bytes, now.rd_bytes, seconds),
        "writeRate": _rate(before.wr_bytes, now.wr_bytes, seconds),
    }
    latencies = {
        "readLatency": _latency(before.rd_times, now.rd_times, before.rd_reqs, now.rd_reqs),
        "writeLatency": _latency(before.wr_times, now.wr_times, before.wr_reqs, now.wr_reqs),
        "flushLatency": _latency(before.fl_times, now.fl_times, before.fl_reqs, now.fl_reqs),
    }
    found = {name: f"{rate:.1f}" for name, rate in rates.items() if rate is not None}
    return found | {name: str(latency) for name, latency in latencies.items() if latency is not None}


def _nic(nic: Nic, mac: str, model: str) -> Json:
    counted = {
        "rx": nic.rx_bytes,
        "tx": nic.tx_bytes,
        "rxErrors": nic.rx_errs,
        "txErrors": nic.tx_errs,
        "rxDropped": nic.rx_drop,
        "txDropped": nic.tx_drop,
    }
    found: Json = {name: str(count) for name, count in counted.items() if count is not None}
    found["macAddr"] = mac
    found["name"] = nic.name
    found["speed"] = "1000" if model in _FAST_MODELS else "100"
    found["state"] = "unknown"
    return found


def _growth(before: int | None, now: int | None) -> int | None:
    """By how much a counter grew; None when unknown or when it started anew."""
    return None if before is None or now is None or now < before else now - before


def _rate(before: int | None, now: int | None, seconds: float) -> float | None:
    """Growth of a counter per second."""
    growth = _growth(before, now)
    return None if growth is None or seconds <= 0 else growth / seconds


def _latency(time_before: int | None, time_now: int | None, before: int | None, now: int | None) -> int | None:
    """Nanoseconds for one operation, averaged over the window; 0 when there was none."""
    time_ns, requests = _growth(time_before, time_now), _growth(before, now)
    if time_ns is None or requests is None:
        return None
    return time_ns // requests if requests else 0


def _percent(nanoseconds: int, seconds: float) -> str:
    return f"{100 * nanoseconds / (seconds * 1e9):.2f}"
