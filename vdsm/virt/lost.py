# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that libvirt has lost: it knows no such domain, or not that it runs, and the QEMU of the VM does.

libvirt that was started without its state, or lost a domain in a fault of its own, says of a guest that works "no such
domain", or "shut off" without any reason: it still has the definition. To end the VM for that would tear its disks from
under it; so it is shown as it was and looked for until libvirt knows it again or its process has ended.
"""

from __future__ import annotations

import logging

from vdsm.virt import qemu_process
from vdsm.virt.capability import Handle
from vdsm.virt.hypervisor import Domain

log = logging.getLogger("vdsm.virt")


def knows_nothing(domain: Domain | None) -> bool:
    """A domain whose end libvirt has seen is off for a reason."""
    return domain is None or not (domain.active or domain.reason)


class Lost:
    def __init__(self, vm: Handle) -> None:
        self._vm = vm
        self.now = False

    def check(self, domain: Domain | None) -> bool:
        """``domain``: what a look found. True when the VM is lost."""
        process = self._vm.record.process
        lost = knows_nothing(domain) and process is not None and qemu_process.lives(process)
        if lost and not self.now:
            log.error("VM %s: libvirt does not know that its QEMU runs: it is left as it is", self._vm.vm_id)
        elif self.now and not lost:
            log.info("VM %s: libvirt knows it again, or its QEMU has ended", self._vm.vm_id)
        self.now = lost
        return lost
