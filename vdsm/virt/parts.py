# SPDX-License-Identifier: GPL-2.0-or-later
"""What all VMs of a host share. Made once by `vms.Vms`, handed to each owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vdsm.virt.domain_xml.placeholders import HostFacts
from vdsm.virt.host_shutdown import HostShutdown
from vdsm.virt.hypervisor import Hypervisor
from vdsm.virt.images import SharedImages
from vdsm.virt.ports import Hooks, Publisher
from vdsm.virt.qemu_process import QemuProcess
from vdsm.virt.records import Store
from vdsm.virt.slots import Slots


@dataclass(frozen=True)
class Parts:
    hypervisor: Hypervisor
    images: SharedImages
    hooks: Hooks
    events: Publisher
    records: Store
    facts: HostFacts
    run_folder: str
    # the root folder of the host, for looks at its files
    host_root: str
    # so many VMs are launched at once
    slots: Slots
    # so many hooks run at once behind events
    hook_slots: asyncio.Semaphore
    host_shutdown: HostShutdown
    # the QEMU processes of this host by the id of their VM; reads all of /proc
    processes: Callable[[], Mapping[str, QemuProcess]]

    async def process_of(self, vm_id: str) -> QemuProcess | None:
        return (await asyncio.to_thread(self.processes)).get(vm_id)
