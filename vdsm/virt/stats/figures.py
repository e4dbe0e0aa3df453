# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics of one VM from a window of samples, in the field's keys and types (virt.md §10.2).

Pure: libvirt's flat counters in, dictionaries out. Numbers go as text where the field sends text. A figure
that needs two samples is left out until there are two; what is not known is left out, never empty: an engine takes
balloon figures for a balloon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsm.virt.stats.samples import Window

Json = dict[str, Any]

_FAST_MODELS = frozenset({"virtio", "e1000", "e1000e"})
_TOTALS = {
    "truesize": "allocation",
    "apparentsize": "physical",
    "readBytes": "rd.bytes",
    "writtenBytes": "wr.bytes",
    "readOps": "rd.reqs",
    "writeOps": "wr.reqs",
}


def cpu(window: Window) -> Json:
    """User is time in the guest, sys is what QEMU and the kernel need for it; percent of one core."""
    system_ns, user_ns = window.value("cpu.system"), window.value("cpu.user")
    grown = [window.growth(f"cpu.{name}") for name in ("time", "system", "user")]
    found: Json = {
        "vcpuCount": str(window.value("vcpu.current") or -1),
        "cpuUsage": "0.00" if system_ns is None or user_ns is None else str(system_ns + user_ns),
    }
    if None in grown or window.seconds <= 0:
        return found | {"cpuUser": "0.00", "cpuSys": "0.00", "cpuActual": False}
    all_ns, grown_system_ns, grown_user_ns = (growth or 0 for growth in grown)
    overhead_ns = grown_system_ns + grown_user_ns
    return found | {
        "cpuSys": _percent(overhead_ns, window.seconds),
        "cpuUser": _percent(max(0, all_ns - overhead_ns), window.seconds),
        "cpuActual": True,
    }


def balloon(window: Window, *, minimum_kib: int, enabled: bool) -> Json:
    current, maximum = window.value("balloon.current"), window.value("balloon.maximum")
    if current is None or maximum is None:
        return {}
    return {
        "balloon_max": str(maximum),
        "balloon_min": str(minimum_kib),
        "balloon_cur": str(current),
        "balloon_target": str(current),
        "ballooning_enabled": enabled,
    }


def memory(window: Window) -> Json:
    """Empty until the guest's balloon driver tells."""
    total, unused = window.value("balloon.available"), window.value("balloon.unused")
    if total is None or unused is None:
        return {}
    return {
        "mem_total": str(total),
        "mem_unused": str(unused),
        "mem_free": str(unused + (window.value("balloon.disk_caches") or 0)),
        "swap_in": _per_second(window, "balloon.swap_in"),
        "swap_out": _per_second(window, "balloon.swap_out"),
        "majflt": _per_second(window, "balloon.major_fault"),
        "minflt": _per_second(window, "balloon.minor_fault"),
        "pageflt": _per_second(window, "balloon.major_fault") + _per_second(window, "balloon.minor_fault"),
    }


def disks(window: Window, ids: Mapping[str, Json]) -> Json:
    """By target device. ``ids`` has every disk of the VM, with the key that says which image or LUN it shows."""
    found: Json = {target: dict.fromkeys(_TOTALS, "0") | named for target, named in ids.items()}
    for number in range(window.value("block.count") or 0):
        key = f"block.{number}."
        target = window.last.values.get(key + "name")
        if not isinstance(target, str):
            continue
        disk = found.setdefault(target, {})
        disk.update((name, _text(window, key + counter)) for name, counter in _TOTALS.items())
        if window.first is not None:
            disk |= {
                "readRate": _rate_text(window, key + "rd.bytes"),
                "writeRate": _rate_text(window, key + "wr.bytes"),
                "readLatency": _latency(window, key + "rd"),
                "writeLatency": _latency(window, key + "wr"),
                "flushLatency": _latency(window, key + "fl"),
            }
    return found


def network(window: Window, vnics: Mapping[str, tuple[str, str]]) -> Json:
    """By host device; ``vnics`` gives MAC and model of each."""
    found: Json = {}
    for number in range(window.value("net.count") or 0):
        key = f"net.{number}."
        name = window.last.values.get(key + "name")
        if not isinstance(name, str) or name not in vnics:
            continue
        mac, model = vnics[name]
        found[name] = {
            "macAddr": mac,
            "name": name,
            "speed": "1000" if model in _FAST_MODELS else "100",
            "state": "unknown",
            "rx": _text(window, key + "rx.bytes"),
            "tx": _text(window, key + "tx.bytes"),
            "rxErrors": _text(window, key + "rx.errs"),
            "txErrors": _text(window, key + "tx.errs"),
            "rxDropped": _text(window, key + "rx.drop"),
            "txDropped": _text(window, key + "tx.drop"),
            "sampleTime": window.last.taken_s,
        }
    return found


def memory_usage_percent(window: Window, memory_figures: Mapping[str, Any]) -> str:
    """Of the memory that the VM was started with; 0 unknown."""
    total_kib = window.value("balloon.maximum") or 0
    if total_kib <= 0 or "mem_free" not in memory_figures:
        return "0"
    return str(max(0, 100 - 100 * int(memory_figures["mem_free"]) // total_kib))


def _text(window: Window, key: str) -> str:
    return str(window.value(key) or 0)


def _rate_text(window: Window, key: str) -> str:
    return f"{window.rate(key) or 0.0:.1f}"


def _per_second(window: Window, key: str) -> int:
    return round(window.rate(key) or 0)


def _latency(window: Window, key: str) -> str:
    """Nanoseconds for one operation, averaged over the window."""
    time_ns, requests = window.growth(key + ".times"), window.growth(key + ".reqs")
    return "0" if not time_ns or not requests else str(time_ns // requests)


def _percent(nanoseconds: int, seconds: float) -> str:
    return f"{100 * nanoseconds / (seconds * 1e9):.2f}"
