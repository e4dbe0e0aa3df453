# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host is and can do, in the words of `Host.getCapabilities`.

Engines cast hard (verbs.md A1): a key has exactly the type written here, and the lists that they
look into are there even when they are empty.
"""

from __future__ import annotations

import os
from typing import Any

from vdsm.host import devices, machines, memory, system
from vdsm.host.cpu import VIRTUALISATION, parse_cpuinfo, read_topology
from vdsm.host.machines import Hypervisor
from vdsm.host.system import Packages
from vdsm.host.tree import Tree
from vdsm.version import VERSION

# what an engine of the field takes this agent for
COMPATIBLE_VERSION = "4.50"
ENGINES = ["4.2", "4.3", "4.4", "4.5"]
RESERVED_MIB = 321
GUEST_OVERHEAD_MIB = 65


def can_use_kvm(tree: Tree, flags: frozenset[str]) -> bool:
    """The device alone proves nothing: without the processor's flag a guest hangs."""
    return tree.exists("/dev/kvm") and not VIRTUALISATION.isdisjoint(flags)


def describe(tree: Tree, host_id: str, hypervisor: Hypervisor, packages: Packages) -> dict[str, Any]:
    """All that the host knows by itself. Blocking, on /proc, /sys and /etc only."""
    return {
        **_processors(tree, hypervisor),
        **_memory(tree),
        **_system(tree, host_id),
        **_versions(tree, hypervisor, packages),
        **_features(tree),
        "emulatedMachines": machines.emulated_machines(hypervisor.capabilities),
        "rngSources": devices.random_sources(tree),
        "HBAInventory": devices.adapters(tree),
        "ISCSIInitiatorName": devices.initiator_name(tree),
    }


def _processors(tree: Tree, hypervisor: Hypervisor) -> dict[str, Any]:
    info = parse_cpuinfo(tree.text("/proc/cpuinfo"))
    topology = read_topology(tree, info.count)
    extra = machines.cpu_features(hypervisor.domain_capabilities)
    flags = list(dict.fromkeys([*sorted(info.flags), *extra]))
    return {
        "cpuCores": str(topology.cores),
        "cpuThreads": str(len(topology.places)),
        "cpuSockets": str(topology.sockets),
        "cpuModel": info.model,
        "cpuSpeed": f"{info.speed_mhz:.3f}",
        "cpuFlags": ",".join(flags),
        "onlineCpus": ",".join(map(str, topology.online)),
        "cpuTopology": [
            {
                "cpu_id": place.cpu,
                "core_id": place.core,
                "die_id": place.die,
                "socket_id": place.socket,
                "numa_cell_id": place.node,
            }
            for place in topology.places
        ],
        "vdsmToCpusAffinity": sorted(os.sched_getaffinity(0)),
        "kvmEnabled": "true" if can_use_kvm(tree, info.flags) else "false",
        "nestedVirtualization": system.nested_virtualization(tree),
        "tscFrequency": "",
        "tscScaling": "tsc_scale" in info.flags,
    }


def _memory(tree: Tree) -> dict[str, Any]:
    nodes = memory.read_nodes(tree)
    return {
        "memSize": str(memory.parse_meminfo(tree.text("/proc/meminfo")).get("MemTotal", 0) >> 10),
        "reservedMem": str(RESERVED_MIB),
        "guestOverhead": str(GUEST_OVERHEAD_MIB),
        "hugepages": sorted(memory.read_hugepages(tree)),
        "numaNodes": {
            str(node.number): {
                "cpus": list(node.cpus),
                "totalMemory": str(node.total_mib),
                "hugepages": {str(size): {"totalPages": str(count)} for size, (count, _) in node.hugepages.items()},
            }
            for node in nodes
        },
        "numaNodeDistance": {str(node.number): list(node.distances) for node in nodes},
        "autoNumaBalancing": system.numa_balancing(tree),
    }


def _system(tree: Tree, host_id: str) -> dict[str, Any]:
    release = system.parse_os_release(tree.text("/etc/os-release") or tree.text("/usr/lib/os-release"))
    return {
        "uuid": host_id,
        "operatingSystem": {
            "name": release.name,
            "version": release.version,
            "release": release.release,
            "pretty_name": release.pretty_name,
        },
        "boot_uuid": system.boot_uuid(tree),
        "kernelArgs": tree.text("/proc/cmdline"),
        "kernelFeatures": system.kernel_features(tree),
        "realtimeKernel": tree.text("/sys/kernel/realtime") == "1",
        "kdumpStatus": system.kdump_status(tree),
        "selinux": {"mode": system.selinux_mode(tree)},
        "fipsEnabled": tree.text("/proc/sys/crypto/fips_enabled") == "1",
    }


def _versions(tree: Tree, hypervisor: Hypervisor, packages: Packages) -> dict[str, Any]:
    own = {"version": f"{COMPATIBLE_VERSION}.0", "release": VERSION}
    running: Packages = {"kernel": system.kernel_package(tree), "vdsm": own}
    for name, number in (("libvirt", hypervisor.libvirt_version), ("qemu-kvm", hypervisor.qemu_version)):
        if number and name not in packages:
            running[name] = {"version": machines.version_text(number), "release": "0"}
    return {
        "packages2": {**packages, **running},
        "software_version": COMPATIBLE_VERSION,
        "software_revision": "0",
        "version_name": "vdsm-agent",
        "supportedENGINEs": list(ENGINES),
        "clusterLevels": machines.cluster_levels(hypervisor.libvirt_version, hypervisor.qemu_version),
    }


def _features(tree: Tree) -> dict[str, Any]:
    """Only what this agent does: an engine offers to users what is true here."""
    return {
        "vmTypes": ["kvm"],
        "additionalFeatures": [],
        "domain_versions": [0, 3, 4, 5],
        "supported_block_size": {"LOCALFS": [0, 512, 4096], "POSIXFS": [512], "NFS": [512]},
        "liveSnapshot": "false",
        "liveMerge": "false",
        "backupEnabled": False,
        "coldBackupEnabled": False,
        "clearBitmapsEnabled": False,
        "cd_change_pdiv": False,
        "refresh_disk_supported": False,
        "replicate_extend": False,
        "measure_subchain": False,
        "measure_active": False,
        "mailbox_events": False,
        "zerocopy_migrations": False,
        "hostdevPassthrough": "false",
        "hostedEngineDeployed": False,
        "vncEncrypted": False,
        "ovnConfigured": False,
        "openstack_binding_host_ids": {},
        "connector_info": {},
        "supportsIPv6": tree.exists("/proc/net/if_inet6"),
    }
