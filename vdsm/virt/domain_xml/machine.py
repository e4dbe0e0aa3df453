# SPDX-License-Identifier: GPL-2.0-or-later
"""Fit the XML to what the host can do: hardware virtualisation, or software emulation.

The engine always asks for KVM. A host where /dev/kvm can't run a guest emulates; what only KVM
offers must then leave the XML, or QEMU refuses to start.
"""

from __future__ import annotations

from lxml import etree

_KVM_TIMERS = frozenset({"kvmclock", "hypervclock", "tsc"})
_KVM_FEATURES = ("hyperv", "kvm", "pmu")
_HOST_CPU_MODES = frozenset({"host-passthrough", "host-model"})


def fit_to_emulation(root: etree._Element) -> None:
    """Turn a KVM domain into one that QEMU emulates. Topology, NUMA and devices stay."""
    root.set("type", "qemu")
    for name in _KVM_FEATURES:
        for feature in root.findall(f"features/{name}"):
            _remove(feature)
    ioapic = root.find("features/ioapic[@driver='kvm']")
    if ioapic is not None:
        _remove(ioapic)
    for timer in root.findall("clock/timer"):
        if timer.get("name") in _KVM_TIMERS:
            _remove(timer)
    cpu = root.find("cpu")
    if cpu is not None:
        _emulate_cpu(cpu)


def keep_through_reboot(root: etree._Element) -> bool:
    """Take ``on_reboot=destroy`` out of the XML, because the agent itself ends such a VM
    (exit reason 13, virt.md §4). True when it stood there."""
    on_reboot = root.find("on_reboot")
    if on_reboot is None or (on_reboot.text or "").strip() != "destroy":
        return False
    _remove(on_reboot)
    return True


def _emulate_cpu(cpu: etree._Element) -> None:
    for name in ("match", "check", "migratable"):
        cpu.attrib.pop(name, "")
    for child in [c for c in cpu if c.tag in ("feature", "cache", "maxphysaddr", "vendor")]:
        cpu.remove(child)
    model = cpu.find("model")
    if cpu.get("mode") in _HOST_CPU_MODES or model is None:
        cpu.set("mode", "maximum")
        if model is not None:
            cpu.remove(model)
    else:
        cpu.set("mode", "custom")
        cpu.set("match", "exact")
        cpu.set("check", "none")
        model.set("fallback", "allow")


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)
