# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent knows of its VMs across its own death: one file per VM in the state folder.

A record is the intent of a change on this host: written (and synced) before the first step, changed
at each boundary, removed when the engine has let the VM go. Phases:

    starting   images are being prepared, hooks run; QEMU was never asked to run
    launching  the domain is defined, libvirt was or will be asked to start QEMU
    running    QEMU was started; libvirt and its XML are the truth about everything else
    releasing  the VM must end: QEMU is stopped, images are torn down
    down       nothing of it is left on the host; it is reported with its exit until it is destroyed

The images of a VM stand in the record before the first of them is prepared.
"""

from __future__ import annotations

import asyncio
import logging
import os
from enum import StrEnum

import msgspec

from vdsm.common.atomic import remove_durably, write_atomic
from vdsm.common.ids import is_uuid
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.states import Exit

log = logging.getLogger("vdsm.virt")


class Phase(StrEnum):
    STARTING = "starting"
    LAUNCHING = "launching"
    RUNNING = "running"
    RELEASING = "releasing"
    DOWN = "down"


class Record(msgspec.Struct, kw_only=True):
    vm_id: str
    name: str
    phase: Phase
    xml: str
    images: tuple[ImageId, ...] = ()
    started_at_s: float | None = None
    exit: Exit | None = None
    # the engine asked for the end: nothing is reported once the VM is gone
    forget: bool = False


class Records:
    """A record is a few KiB and is written a few times in a VM's life."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.unreadable: dict[str, str] = {}

    def load(self) -> list[Record]:
        """All records; a file that can't be read is kept, logged and listed in `unreadable`."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        found = []
        self.unreadable = {}
        for name in sorted(os.listdir(self._folder)):
            vm_id, extension = os.path.splitext(name)
            if extension != ".json" or not is_uuid(vm_id):
                continue
            path = os.path.join(self._folder, name)
            try:
                with open(path, "rb") as file:
                    record = msgspec.json.decode(file.read(), type=Record)
                if record.vm_id != vm_id:
                    raise msgspec.ValidationError(f"the record is of VM {record.vm_id}")
                found.append(record)
            except (OSError, msgspec.MsgspecError) as e:
                self.unreadable[vm_id] = f"{path}: {e}"
                log.error("the record of a VM can't be read and is left as it is: %s: %s", path, e)
        return found

    async def save(self, record: Record) -> None:
        """Durable when it returns. One record has one owner, so saves of it never overlap."""
        data = msgspec.json.encode(record)
        await asyncio.to_thread(write_atomic, self._path(record.vm_id), data, 0o600)

    async def forget(self, vm_id: str) -> None:
        await asyncio.to_thread(remove_durably, self._path(vm_id))

    def _path(self, vm_id: str) -> str:
        return os.path.join(self._folder, f"{vm_id}.json")
