# SPDX-License-Identifier: GPL-2.0-or-later
"""What anybody on the host can see of a VM without asking the agent: its console and its QEMU process."""

from __future__ import annotations

import os
from dataclasses import dataclass

from contrib.lab.host import PrivateHost
from contrib.lab.vm_xml import Vm


@dataclass(frozen=True)
class SeenVm:
    host: PrivateHost
    vm: Vm

    def console(self) -> str:
        """Everything that the guest wrote on its serial console."""
        try:
            text = self.host.path(self.vm.serial_log).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return text.replace("\r", "")

    async def hears(self, line: str) -> bool:
        return line in self.console().splitlines()

    def counter(self) -> int:
        """How far the guest has counted."""
        counts = [line.split()[-1] for line in self.console().splitlines() if line.startswith("guest: alive ")]
        return int(counts[-1]) if counts else 0

    async def counts_beyond(self, counter: int) -> bool:
        return self.counter() > counter

    def qemu_pid(self) -> int:
        """The machine's number of the VM's QEMU process."""
        return self.host.outer_pid(int(self.host.path(f"/run/libvirt/qemu/{self.vm.name}.pid").read_text()))

    def qemu_user(self) -> str:
        uid = str(os.stat(f"/proc/{self.qemu_pid()}").st_uid)
        accounts = [line.split(":") for line in self.host.path("/etc/passwd").read_text().splitlines()]
        name = next((fields[0] for fields in accounts if fields[2] == uid), "?")
        return f"{name} (uid {uid})"
