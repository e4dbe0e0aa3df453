# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs of this host on its real libvirt: what the composition root calls."""

from __future__ import annotations

from vdsm.common.paths import Paths
from vdsm.virt.host_facts import read_host_facts
from vdsm.virt.libvirt_edge.libvirt_hypervisor import LibvirtHypervisor
from vdsm.virt.ports import Hooks, Images, Publisher
from vdsm.virt.vms import Vms


def make_vms(
    *,
    paths: Paths,
    storage: Images,
    hooks: Hooks,
    events: Publisher,
    host_id: str,
    libvirt_uri: str = "qemu:///system",
    start_slots: int = 4,
    stats_interval_s: float = 15.0,
) -> Vms:
    """Not started yet: `Vms.start` connects to libvirt and finds the VMs that run."""
    return Vms(
        paths=paths,
        storage=storage,
        hooks=hooks,
        events=events,
        hypervisor=LibvirtHypervisor(libvirt_uri, changers=start_slots + 2),
        facts=read_host_facts(host_id),
        start_slots=start_slots,
        stats_interval_s=stats_interval_s,
    )
