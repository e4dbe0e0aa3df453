# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of one VM: their images, and what happens when one of them fails under the guest.

The images stand in the record before the first is prepared and until the last is torn down. Which trouble stopped the
guest is heard of once, by an event; it is on record, so a restart of the agent still knows it, and libvirt is asked
where no event was heard.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.capability import Capability, Handle, Json, Reaction
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.errors import VirtError
from vdsm.virt.hypervisor import Change, DiskTrouble, Domain, DomainEvent, Troubles, VmEvent
from vdsm.virt.images import SharedImages
from vdsm.virt.records import Trouble
from vdsm.virt.states import DISK_TROUBLE, PauseCode

log = logging.getLogger("vdsm.virt")

# IO_ERROR_REASON's words (virt.md §5.3); an empty one says only that there is trouble
_CODES = {
    "enospc": PauseCode.NO_SPACE,
    "eio": PauseCode.IO_ERROR,
    "eperm": PauseCode.NO_PERMISSION,
    "eother": PauseCode.OTHER,
}
# words of libvirt's list of disk errors, which is coarser
_ERRORS = {"no space": PauseCode.NO_SPACE, "unspecified": PauseCode.IO_ERROR}


class Disks(Capability):
    def __init__(self, vm: Handle, images: SharedImages, hypervisor: Troubles) -> None:
        self._vm = vm
        self._images = images
        self._hypervisor = hypervisor
        self._lost: list[ImageId] = []
        # looks of a higher number began after the last trouble was heard of
        self._heard_at = 0
        self._asking: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> PauseCode:
        trouble = self._vm.record.trouble
        return PauseCode.NONE if trouble is None else trouble.code

    def hears(self) -> Mapping[type[VmEvent], Reaction]:
        return {DiskTrouble: self._failed, DomainEvent: self._changed}

    async def recover(self, domain: Domain) -> None:
        self._lost = await self._images.resume(self._vm.vm_id, self._vm.record.images)
        if domain.reason == "ioerror" and self._vm.record.trouble is None:
            await self._vm.change(trouble=Trouble(await self._ask(), time.monotonic()))

    def told(self) -> Json:
        """What the event of a pause says of the disk that caused it (virt.md §8)."""
        trouble = self._vm.record.trouble
        if trouble is None or self._vm.status.pause_code not in DISK_TROUBLE or not trouble.alias:
            return {}
        drives = self._vm.description.drives
        name = next((drive.target for drive in drives if drive.path and drive.path == trouble.path), "")
        return {"ioerror": {"alias": trouble.alias, "name": name, "path": trouble.path}}

    async def reach_storage(self) -> None:
        """Prepare what the VM uses and nobody has on record: its layers are not known, and its links may be lost."""
        while self._lost:
            await self._images.prepare(self._vm.vm_id, self._lost[-1])
            self._lost.pop()

    async def runs(self, number: int) -> None:
        """A look of that number found that the guest's CPUs run: whatever it was, it is over."""
        if self._vm.record.trouble is not None and number > self._heard_at:
            await self._vm.change(trouble=None)

    async def unheard(self) -> None:
        """A look found that a disk has paused the guest, and no event told which: time counts, and libvirt is asked."""
        if self._vm.record.trouble is None:
            trouble = Trouble(PauseCode.OTHER, time.monotonic())
            await self._vm.change(trouble=trouble)
            self._asking = asyncio.create_task(self._find_out(trouble), name=f"disk errors of {self._vm.vm_id}")

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    async def release(self) -> list[ImageId]:
        """Tear down what is prepared for the VM; the images for which that failed."""
        return await self._images.release(self._vm.vm_id, self._vm.record.images)

    async def _failed(self, event: DiskTrouble) -> None:
        vm = self._vm
        self._heard_at = vm.look.wished
        if not event.paused:
            log.warning("VM %s: disk %s (%s): %s, told to the guest", vm.vm_id, event.alias, event.path, event.reason)
            return
        if self._stays:  # it was asked for before somebody paused the guest, and failed afterwards
            log.warning("VM %s stands: disk %s (%s): %s", vm.vm_id, event.alias, event.path, event.reason)
            return
        code = _CODES.get(event.reason, PauseCode.OTHER)
        log.warning("VM %s is paused: disk %s (%s): %s", vm.vm_id, event.alias, event.path, event.reason or code)
        before = vm.record.trouble
        since_s = time.monotonic() if before is None else before.since_s
        await vm.change(trouble=Trouble(code, since_s, event.alias, event.path))
        vm.look.soon()

    @property
    def _stays(self) -> bool:
        """A disk had stopped the guest, and somebody wants that it stands."""
        return self.trouble is PauseCode.NO_ERROR

    async def _changed(self, event: DomainEvent) -> None:
        """Whoever let it go on: what stops it from now on is new."""
        if event.change is Change.RESUMED and self._stays:
            await self._vm.change(trouble=None)

    async def _find_out(self, before: Trouble) -> None:
        code = await self._ask()
        if self._vm.record.trouble == before:  # no event told meanwhile, and it still stands
            await self._vm.change(trouble=Trouble(code, before.since_s))
            self._vm.look.soon()

    async def _ask(self) -> PauseCode:
        try:
            errors = await self._hypervisor.disk_errors(self._vm.vm_id)
        except (VirtError, DeadlineExceeded) as e:
            log.warning("VM %s: which disk paused it: %s", self._vm.vm_id, e)
            return PauseCode.OTHER
        found = {_ERRORS.get(word, PauseCode.OTHER) for word in errors.values()}
        return next((code for code in (PauseCode.NO_SPACE, PauseCode.IO_ERROR) if code in found), PauseCode.OTHER)
