# SPDX-License-Identifier: GPL-2.0-or-later
"""What the hypervisor can emulate, from libvirt's two XML documents, and which clusters of an engine that fits.

An engine makes a host NonOperational whose machine types do not have one of its cluster's level (virt.md §29.1). QEMU
as its project publishes it has types up to level 4.7; level 4.8 knows those of Enterprise Linux only.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from lxml import etree

from vdsm.common.xml import parse


@dataclass(frozen=True)
class Hypervisor:
    """``capabilities`` and ``domain_capabilities`` are XML, the versions are libvirt's numbers (10.1.2 is 10001002)."""

    capabilities: str = ""
    domain_capabilities: str = ""
    libvirt_version: int = 0
    qemu_version: int = 0


def emulated_machines(capabilities: str, arch: str = "") -> list[str]:
    """Names of the machine types for guests of this architecture: full names and aliases."""
    if not capabilities:
        return []
    root = parse(capabilities, what="libvirt's capabilities")
    arch = arch or platform.machine()
    found: dict[str, None] = {}
    for element in root.iterfind(f"guest/arch[@name='{arch}']"):
        for machine in element.iter("machine"):
            for name in (machine.text, machine.get("canonical")):
                if name:
                    found[name.strip()] = None
    return list(found)


def cpu_features(domain_capabilities: str) -> list[str]:
    """Flags as the engine reads them: features of the host's model, and ``model_<name>`` for each usable model."""
    if not domain_capabilities:
        return []
    root = parse(domain_capabilities, what="libvirt's domain capabilities")
    features = [
        element.get("name", "")
        for element in root.iterfind("cpu/mode[@name='host-model']/feature")
        if element.get("policy") == "require"
    ]
    models = _usable_models(root)
    found = features + [f"model_{name}" for name in models]
    if any(name.endswith("-IBRS") for name in models):
        found.append("spec_ctrl")
    return list(dict.fromkeys(filter(None, found)))


def _usable_models(root: etree._Element) -> list[str]:
    return [
        model.text.strip()
        for model in root.iterfind("cpu/mode[@name='custom']/model")
        if model.get("usable") == "yes" and model.text
    ]


def cluster_levels(libvirt_version: int, qemu_version: int) -> list[str]:
    """The newest levels need what only newer hypervisors emulate."""
    levels = ["4.2", "4.3", "4.4", "4.5", "4.6"]
    if libvirt_version >= 8_000_000:
        levels.append("4.7")
    if libvirt_version >= 10_010_000 and qemu_version >= 9_001_000:
        levels.append("4.8")
    return levels


# in the order of the engine; x86 only
MACHINES_OF_LEVEL = {
    "4.2": ("pc-i440fx-rhel7.3.0", "pc-i440fx-2.6"),
    "4.3": ("pc-i440fx-rhel7.6.0", "pc-i440fx-2.12"),
    "4.4": ("pc-q35-rhel8.1.0", "pc-q35-4.1", "pc-i440fx-rhel7.6.0", "pc-i440fx-2.12"),
    "4.5": ("pc-q35-rhel8.3.0", "pc-q35-4.1", "pc-i440fx-rhel7.6.0", "pc-i440fx-2.12"),
    "4.6": ("pc-q35-rhel8.4.0", "pc-q35-4.1", "pc-i440fx-rhel7.6.0", "pc-i440fx-2.12"),
    "4.7": ("pc-q35-rhel8.6.0", "pc-q35-4.1", "pc-i440fx-rhel7.6.0", "pc-i440fx-2.12"),
    "4.8": ("pc-q35-rhel9.6.0", "pc-i440fx-rhel7.6.0"),
}


def what_limits_the_cluster(hypervisor: Hypervisor, arch: str = "") -> str:
    """Which levels of clusters this host can't join, and why, as a sentence; empty when it can join the newest."""
    if not hypervisor.capabilities or (arch or platform.machine()) != "x86_64":
        return ""
    emulated = set(emulated_machines(hypervisor.capabilities, arch))
    levels = cluster_levels(hypervisor.libvirt_version, hypervisor.qemu_version)
    newest = list(MACHINES_OF_LEVEL)[-1]
    fits = [level for level in levels if not emulated.isdisjoint(MACHINES_OF_LEVEL.get(level, ()))]
    if newest in fits:
        return ""
    wanted = " or ".join(MACHINES_OF_LEVEL[newest])
    versions = f"{version_text(hypervisor.libvirt_version)} and QEMU {version_text(hypervisor.qemu_version)}"
    joins = f"it joins clusters of level {', '.join(fits)}" if fits else "it joins no cluster"
    return (
        f"An engine makes this host NonOperational in a cluster of level {newest}: such a cluster wants machine type "
        f"{wanted}, libvirt 10.10 and QEMU 9.1, and this host has libvirt {versions}; {joins}"
    )


def version_text(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
