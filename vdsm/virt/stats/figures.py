# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics of one VM from a window of samples, in the field's keys and types (virt.md §10.2).

Pure: libvirt's flat counters in, dictionaries out. Numbers go as text where the field sends text. A figure
that needs two samples is left out until there are two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsm.virt.stats.samples import Window

Json = dict[str, Any]

_FAST_MODELS = frozenset({"virtio", "e1000", "e1000e", "vmxnet3", "igb"})


def cpu(window: Window) -> Json:
    """User is time in the guest, sys is what QEMU and the kernel need for it; percent of one core."""
    kernel_ns, all_ns = window.growth("cpu.system"), window.growth("cpu.time")
    user_ns = window.growth("cpu.user")
    found: Json = {"vcpuCount": str(window.value("vcpu.current") or -1)}
    if window.value("cpu.time") is not None:
        found["cpuUsage"] = str(window.value("cpu.time"))
    if kernel_ns is None or all_ns is None or window.seconds <= 0:
        return found | {"cpuUser": "0.00", "cpuSys": "0.00", "cpuActual": "False"}
    overhead_ns = kernel_ns + (user_ns or 0)
    return found | {
        "cpuSys": _percent(overhead_ns, window.seconds),
        "cpuUser": _percent(max(0, all_ns - overhead_ns), window.seconds),
        "cpuActual": "True",
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
    usable = window.value("balloon.usable")
    return {
        "mem_total": str(total),
        "mem_unused": str(unused),
        "mem_free": str(unused if usable is None else usable),
        "swap_in": _per_second(window, "balloon.swap_in"),
        "swap_out": _per_second(window, "balloon.swap_out"),
        "majflt": _per_second(window, "balloon.major_fault"),
        "minflt": _per_second(window, "balloon.minor_fault"),
        "pageflt": _per_second(window, "balloon.major_fault") + _per_second(window, "balloon.minor_fault"),
    }


def disks(window: Window, image_ids: Mapping[str, str]) -> Json:
    """By target device; ``image_ids`` tells which image stands at a target."""
    found: Json = {}
    for number in range(window.value("block.count") or 0):
        key = f"block.{number}."
        target = window.last.values.get(key + "name")
        if not isinstance(target, str):
            continue
        disk = found[target] = {
            "truesize": _text(window, key + "allocation"),
            "apparentsize": _text(window, key + "physical"),
            "readBytes": _text(window, key + "rd.bytes"),
            "writtenBytes": _text(window, key + "wr.bytes"),
            "readOps": _text(window, key + "rd.reqs"),
            "writeOps": _text(window, key + "wr.reqs"),
        }
        if target in image_ids:
            disk["imageID"] = image_ids[target]
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


def memory_usage_percent(figures: Mapping[str, Any]) -> str:
    total, free = int(figures.get("mem_total", 0)), int(figures.get("mem_unused", 0))
    return "0" if total <= 0 else str(max(0, 100 - 100 * free // total))


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
