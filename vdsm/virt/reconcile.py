# SPDX-License-Identifier: GPL-2.0-or-later
"""What failed once is tried again: all VMs of the host are gone over every `PERIOD_S`.

    a release that failed           at once when its QEMU has ended, else after 15, 30 ... 240 s
    a VM that libvirt has lost      looked at: libvirt may know it again
    images that stayed prepared     torn down, also of VMs that the engine has let go
    paused too long by a disk       ended, where its resume behaviour says so

A round waits for nothing: what hangs with one VM's storage delays no other VM's end, and no round ends the rounds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from functools import partial

from vdsm.common.errors import AgentError
from vdsm.virt.parts import Parts
from vdsm.virt.records import Phase, Record
from vdsm.virt.vm import Vm

log = logging.getLogger("vdsm.virt")

PERIOD_S = 15.0


class Reconciler:
    def __init__(self, parts: Parts, vms: dict[str, Vm], *, period_s: float = PERIOD_S) -> None:
        self._parts = parts
        self._vms = vms
        self._period_s = period_s
        self._task: asyncio.Task[None] | None = None
        # teardowns under way, by VM: they may last as long as their storage hangs, and rounds go on
        self._tearing: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="vm reconciler")

    async def stop(self) -> None:
        tasks = [task for task in (self._task, *self._tearing.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        while True:
            try:
                await self.round()
            except Exception:  # a defect: told, and the next round comes
                log.exception("going over the VMs failed")
            await asyncio.sleep(self._period_s)

    async def round(self) -> None:
        """Begin what is to be done; teardowns go on by themselves."""
        for vm in list(self._vms.values()):
            vm.resume_behaviour.kill_if_overdue()
            vm.ending.retry()
            if vm.lost.now:
                vm.look.soon()
        for record in self._parts.records.all():
            if record.vm_id not in self._tearing and _has_left(record):
                task = asyncio.create_task(self._tear_down(record), name=f"tear down {record.vm_id}")
                self._tearing[record.vm_id] = task
                task.add_done_callback(partial(self._torn_down, record.vm_id))

    def _torn_down(self, vm_id: str, task: asyncio.Task[None]) -> None:
        del self._tearing[vm_id]
        if not task.cancelled() and (error := task.exception()) is not None:  # a defect: told, and tried again
            log.error("VM %s: images that are left", vm_id, exc_info=error)

    async def _tear_down(self, record: Record) -> None:
        try:
            left = await self._parts.images.release(record.vm_id, record.images, wanted=lambda: self._is_still(record))
            await self._keep(record, left)
        except AgentError as e:
            log.error("VM %s: %s", record.vm_id, e)

    def _is_still(self, record: Record) -> bool:
        """False when it was started anew meanwhile, or let go."""
        now = self._parts.records.get(record.vm_id)
        return now is not None and now.phase is record.phase

    async def _keep(self, record: Record, left: Collection[object]) -> None:
        if not self._is_still(record):
            return
        if left or record.phase is Phase.DOWN:
            await self._parts.records.change(record.vm_id, images=tuple(left))
        else:
            await self._parts.records.forget(record.vm_id)


def _has_left(record: Record) -> bool:
    """Images that are to be torn down, or a record that is to go with the last of them."""
    return record.phase is Phase.LEFT or (record.phase is Phase.DOWN and bool(record.images))
