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

A disk that takes no write costs records, never VMs: only what has not begun yet (`save`) is refused. Everything
else goes on (`keep`, `forget`): the record is owed, that is logged, and it is written once the disk takes it. Until
then the disk has an older word of the VM, and libvirt has the truth.

A record holds no secret: its XML is without the passwords and payloads that the start was given.
"""

from __future__ import annotations

import asyncio
import logging
import os
from enum import StrEnum
from weakref import WeakValueDictionary

import msgspec

from vdsm.common import masking
from vdsm.common.atomic import remove_durably, write_atomic
from vdsm.common.ids import is_uuid
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.errors import RecordNotWritten
from vdsm.virt.states import Exit

RETRY_S = 5.0

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
        # what a file should say and does not: None for no file
        self._owed: dict[str, bytes | None] = {}
        # writes of one record are one after the other; a turn lives as long as somebody has or awaits it
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._payer: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        if self._payer is not None:
            self._payer.cancel()
            await asyncio.wait([self._payer])

    def load(self) -> list[Record]:
        """All records; a file that can't be read is kept, logged and listed in `unreadable`."""
        found: list[Record] = []
        self.unreadable = {}
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
        except OSError as e:
            log.error("there is no folder for the records of VMs, and none can be made: %s", e)
            return found
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
        """Durable when it returns; raises OSError. For a step that must not be taken without its record."""
        async with self._turn(record.vm_id):
            self._owed.pop(record.vm_id, None)
            await self._write(record.vm_id, msgspec.json.encode(record))

    async def keep(self, record: Record) -> None:
        """As `save`, for what has happened already: a disk that takes no write is told, and tried again."""
        await self._write_or_owe(record.vm_id, msgspec.json.encode(record))

    async def forget(self, vm_id: str) -> None:
        """The record goes; as with `keep`, a disk that refuses is told and tried again."""
        await self._write_or_owe(vm_id, None)

    def _turn(self, vm_id: str) -> asyncio.Lock:
        turn = self._turns.get(vm_id)
        if turn is None:
            turn = self._turns[vm_id] = asyncio.Lock()
        return turn

    async def _write_or_owe(self, vm_id: str, data: bytes | None) -> None:
        async with self._turn(vm_id):
            self._owed.pop(vm_id, None)
            try:
                await self._write(vm_id, data)
            except OSError as e:
                log.error("the record of VM %s can't be written, the VM goes on without: %s", vm_id, e)
                self._owed[vm_id] = data
        if self._owed and (self._payer is None or self._payer.done()):
            self._payer = asyncio.create_task(self._pay(), name="records that are owed", context=masking.outside())

    async def _pay(self) -> None:
        while self._owed:
            await asyncio.sleep(RETRY_S)
            for vm_id in list(self._owed):
                async with self._turn(vm_id):
                    if vm_id not in self._owed:  # a later word was written meanwhile
                        continue
                    try:
                        await self._write(vm_id, self._owed[vm_id])
                    except OSError:  # told when it was new
                        continue
                    del self._owed[vm_id]
                    log.info("VM %s: its record is written again", vm_id)

    async def _write(self, vm_id: str, data: bytes | None) -> None:
        if data is None:
            await asyncio.to_thread(remove_durably, self._path(vm_id))
        else:
            await asyncio.to_thread(self._replace, self._path(vm_id), data)

    def _replace(self, path: str, data: bytes) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        write_atomic(path, data, 0o600)

    def _path(self, vm_id: str) -> str:
        return os.path.join(self._folder, f"{vm_id}.json")


def not_written(record: Record, error: OSError) -> RecordNotWritten:
    """What a person is told whose VM can't go on for want of its record."""
    return RecordNotWritten(record.vm_id, error.strerror or str(error))
