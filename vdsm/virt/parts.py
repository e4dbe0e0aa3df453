# SPDX-License-Identifier: GPL-2.0-or-later
"""What all VMs of a host share. Made once by `vms.Vms`, handed to each owner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from vdsm.virt.domain_xml.placeholders import HostFacts
from vdsm.virt.hypervisor import Hypervisor
from vdsm.virt.images import SharedImages
from vdsm.virt.ports import Hooks, Publisher
from vdsm.virt.records import Records


@dataclass(frozen=True)
class Parts:
    hypervisor: Hypervisor
    images: SharedImages
    hooks: Hooks
    events: Publisher
    records: Records
    facts: HostFacts
    run_folder: str
    # the root folder of the host, for looks at its files
    host_root: str
    # at most so many VMs start or are recovered at once
    slots: asyncio.Semaphore
