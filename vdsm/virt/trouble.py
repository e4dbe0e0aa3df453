# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a VM that a disk has paused: its resume behaviour (virt.md §5.4).

    auto_resume   it goes on when a storage domain that it uses is well again
    leave_paused  a person decides
    kill          as auto_resume, but not after `KILL_AFTER_S`: by then the engine may have started it elsewhere, where
                  it holds the VM's lease; so it is ended without grace (exit reason 14)

What was asked of the storage before it was back may fail afterwards, when the kernel gives it up. That pauses a VM on
a storage that is well, and nobody would let it go on. So each return of a domain lets a VM go on once more, within
`LATE_S`; a disk that fails again and again stays as it is.

Only VMs paused by trouble of a disk: what somebody paused stays paused. The time counts from the first trouble, and is
on record, so a restart of the agent does not begin it anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from vdsm.common.errors import AgentError
from vdsm.virt.capability import Capability, Handle, Reaction
from vdsm.virt.errors import Superseded
from vdsm.virt.hypervisor import DiskTrouble, VmEvent
from vdsm.virt.running import Running
from vdsm.virt.states import DISK_TROUBLE, ExitReason, VmState, exit_for

log = logging.getLogger("vdsm.virt")

KILL_AFTER_S = 80.0  # 8 x sanlock's io_timeout: a lease that is not renewed is free then
# how long the kernel keeps what was asked: 60 s by the usual options of a mount
LATE_S = 60.0


class ResumeBehaviour(Capability):
    def __init__(self, vm: Handle, running: Running, slots: asyncio.Semaphore) -> None:
        """``slots``: so many VMs of the host go on at once, with their hooks."""
        self._vm = vm
        self._slots = slots
        self._running = running
        self._late_until_s = 0.0
        self._late: asyncio.Task[None] | None = None

    @property
    def troubled(self) -> bool:
        return self._vm.status.stored is VmState.PAUSED and self._vm.status.pause_code in DISK_TROUBLE

    def uses(self, domain_id: str) -> bool:
        return any(image.domain_id == domain_id for image in self._vm.record.images)

    def hears(self) -> Mapping[type[VmEvent], Reaction]:
        return {DiskTrouble: self._failed}

    def close(self) -> None:
        if self._late is not None:
            self._late.cancel()

    async def storage_is_back(self) -> None:
        """A storage domain that the VM uses became valid."""
        self._late_until_s = time.monotonic() + LATE_S
        await self._go_on()

    async def _failed(self, event: DiskTrouble) -> None:
        if event.paused and time.monotonic() < self._late_until_s:
            self._late_until_s = 0.0
            self._late = asyncio.create_task(self._go_on(), name=f"late trouble of {self._vm.vm_id}")

    async def _go_on(self) -> None:
        if self._vm.record.trouble is not None and not self.troubled:  # heard of, and not seen yet
            await self._vm.look.fresh()
        if not self._may_go_on():
            return
        try:
            async with self._slots:
                if not self._may_go_on():  # somebody paused it meanwhile, or its time ran out
                    return
                await self._running.go_on(self._check)
            log.info("VM %s goes on: its storage is back", self._vm.vm_id)
        except AgentError as e:
            log.error("VM %s can't go on though its storage is back: %s", self._vm.vm_id, e)

    def _may_go_on(self) -> bool:
        stays = self._vm.description.metadata.resume_behaviour == "leave_paused"
        return self.troubled and not stays and not self.overdue()

    def _check(self) -> None:
        if not self._may_go_on():
            raise Superseded(self._vm.vm_id, "resume", "its end" if self.overdue() else "pause")

    def overdue(self) -> bool:
        """It must not go on any more."""
        trouble = self._vm.record.trouble
        if not self.troubled or trouble is None or self._vm.description.metadata.resume_behaviour != "kill":
            return False
        return time.monotonic() - trouble.since_s > KILL_AFTER_S

    def kill_if_overdue(self) -> None:
        if self.overdue():
            log.error("VM %s is ended: paused by an I/O error for more than %.0f s", self._vm.vm_id, KILL_AFTER_S)
            self._vm.end(exit_for(ExitReason.PAUSED_TOO_LONG))
