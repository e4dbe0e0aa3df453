# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent knows of its VMs across its own death: one file per VM in the state folder.

A record is the intent of a change on this host: written (and synced) before the first step, changed
at each boundary, removed when the engine has let the VM go. Phases:

    starting   images are being prepared, hooks run; QEMU was never asked to run
    launching  the domain is defined, libvirt was or will be asked to start QEMU
    running    QEMU was started; libvirt and its XML are the truth about everything else
    releasing  the VM must end: QEMU is stopped, images are torn down
    down       nothing of it runs on the host; it is reported with its exit until it is destroyed
    left       the engine has let it go, some of its images could not be torn down yet: nobody hears of it

The images of a VM stand in the record before the first of them is prepared.

`Store` is the only writer. A record is frozen: a change makes a new one, and changes of one VM reach the disk one after
the other, each with all that was known when it was written. A disk that takes no write costs records, never VMs: only
what has not begun yet (`create`, `commit`) is refused. Everything else goes on (`change`, `forget`): the record is
owed, that is logged, and it is written once the disk takes it. Until then the disk has an older word of the VM, and
libvirt has the truth.

A record holds no secret: its XML is without the passwords and payloads that the start was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from vdsm.common import masking
from vdsm.common.atomic import remove_durably, write_atomic
from vdsm.common.ids import is_uuid
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.errors import RecordNotWritten
from vdsm.virt.qemu_process import QemuProcess
from vdsm.virt.states import Exit, ExitReason, PauseCode

RETRY_S = 5.0
STOP_S = 5.0

log = logging.getLogger("vdsm.virt")


class Phase(StrEnum):
    STARTING = "starting"
    LAUNCHING = "launching"
    RUNNING = "running"
    RELEASING = "releasing"
    DOWN = "down"
    LEFT = "left"


class Trouble(msgspec.Struct, frozen=True):
    """The guest stands because of a disk; ``since_s`` is monotonic: it means something until the next boot only."""

    code: PauseCode
    since_s: float
    alias: str = ""
    path: str = ""


class SavedJob(msgspec.Struct, frozen=True):
    """Long work that goes on: what a new agent needs to see to its end. ``on``: its drive, empty for the whole VM."""

    job_id: str
    kind: str
    on: str = ""
    image_id: str = ""
    state: Mapping[str, str] = {}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    vm_id: str
    name: str
    phase: Phase
    xml: str
    images: tuple[ImageId, ...] = ()
    started_at_s: float | None = None
    exit: Exit | None = None
    # the engine asked for the end: nothing is reported once the VM is gone
    forget: bool = False
    # the Down event was published
    told: bool = False
    # why the next end of the domain comes: who asked for it, and what libvirt's events said
    asked: ExitReason | None = None
    asked_until_s: float = 0.0
    heard: ExitReason | None = None
    # the guest's clock against the host's: it outlives the domain, since the next start is given it
    time_offset_s: int | None = None
    trouble: Trouble | None = None
    destroy_on_reboot: bool = False
    process: QemuProcess | None = None
    jobs: tuple[SavedJob, ...] = ()


class Store:
    """All records, in memory and on disk. A record is a few KiB and is written a few times in a VM's life."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.unreadable: dict[str, str] = {}
        self._records: dict[str, Record] = {}
        # one turn at the disk for each VM that is written now
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._owed: set[str] = set()
        self._writing: set[asyncio.Task[None]] = set()
        self._payer: asyncio.Task[None] | None = None
        self._stopped = False

    async def stop(self) -> None:
        """What is being written is written; what is owed stays so."""
        self._stopped = True
        if self._payer is not None:
            self._payer.cancel()
            await asyncio.wait([self._payer])
        if self._writing:
            await asyncio.wait(self._writing, timeout=STOP_S)

    def get(self, vm_id: str) -> Record | None:
        return self._records.get(vm_id)

    def all(self) -> list[Record]:
        return list(self._records.values())

    def load(self) -> list[Record]:
        """Read all records; a file that can't be read is kept, logged and listed in `unreadable`."""
        self._records, self.unreadable = {}, {}
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            names = sorted(os.listdir(self._folder))
        except OSError as e:
            log.error("the folder for the records of VMs can't be read: %s", e)
            return []
        for name in names:
            vm_id, extension = os.path.splitext(name)
            if extension == ".json" and is_uuid(vm_id):
                self._load_one(vm_id, os.path.join(self._folder, name))
            elif name.startswith(".") and ".json." in name:  # of a write that a kill cut off
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._folder, name))
        return self.all()

    def take_over(self, record: Record) -> None:
        """Know a VM that has no readable record; its file, if there is one, is left alone until it changes."""
        self._records[record.vm_id] = record

    async def create(self, record: Record) -> None:
        """Durable when it returns; raises `RecordNotWritten` with nothing changed."""
        await self._commit(record)

    async def commit(self, vm_id: str, **fields: Any) -> Record:
        """Change fields, durably, for a step that must not be taken without its record; else `RecordNotWritten`."""
        return await self._commit(msgspec.structs.replace(self._records[vm_id], **fields))

    async def change(self, vm_id: str, **fields: Any) -> Record:
        """Change fields for what has happened already: a disk that takes no write is told, and tried again.

        In memory at once; a VM without record stays without.
        """
        record = self._records.get(vm_id)
        if record is None:
            raise KeyError(vm_id)
        changed = msgspec.structs.replace(record, **fields)
        if changed != record:
            self._records[vm_id] = changed
            await self._write_or_owe(vm_id)
        return self._records.get(vm_id, changed)

    async def forget(self, vm_id: str) -> None:
        """The record goes; as with `change`, a disk that refuses is told and tried again."""
        if self._records.pop(vm_id, None) is not None or vm_id in self._owed:
            await self._write_or_owe(vm_id)

    def _load_one(self, vm_id: str, path: str) -> None:
        try:
            with open(path, "rb") as file:
                record = msgspec.json.decode(file.read(), type=Record)
            if record.vm_id != vm_id:
                raise msgspec.ValidationError(f"the record is of VM {record.vm_id}")
            self._records[vm_id] = record
        except (OSError, msgspec.MsgspecError) as e:
            self.unreadable[vm_id] = f"{path}: {e}"
            log.error("the record of a VM can't be read and is left as it is: %s: %s", path, e)

    async def _commit(self, record: Record) -> Record:
        vm_id, before = record.vm_id, self._records.get(record.vm_id)
        self._records[vm_id] = record
        try:
            await self._write(vm_id)
        except OSError as e:
            self._take_back(record, before)
            raise RecordNotWritten(vm_id, e.strerror or str(e)) from e
        return record

    def _take_back(self, record: Record, before: Record | None) -> None:
        """It has not happened. What else was learnt of the VM meanwhile stays, and may be on the disk beside it."""
        vm_id = record.vm_id
        now = self._records.get(vm_id)
        if now is not None and before is not None:
            names = [name for name in Record.__struct_fields__ if getattr(now, name) != getattr(record, name)]
            self._records[vm_id] = msgspec.structs.replace(before, **{name: getattr(now, name) for name in names})
        else:
            self._records.pop(vm_id, None)
        if now is not record:
            self._owe(vm_id)

    async def _write_or_owe(self, vm_id: str) -> None:
        await self._write(vm_id, owe=True)

    def _owe(self, vm_id: str) -> None:
        self._owed.add(vm_id)
        if not self._stopped and (self._payer is None or self._payer.done()):
            self._payer = asyncio.create_task(self._pay(), name="records that are owed", context=masking.outside())

    async def _pay(self) -> None:
        while self._owed:
            await asyncio.sleep(RETRY_S)
            for vm_id in sorted(self._owed):
                try:
                    await self._write(vm_id)
                except OSError:  # told when it was new
                    continue
                log.info("VM %s: its record is written again", vm_id)

    async def _write(self, vm_id: str, *, owe: bool = False) -> None:
        """Bring the disk to what is known now, or ``owe`` it. Both go on when the caller leaves."""
        writing = asyncio.create_task(
            self._write_in_turn(vm_id, owe=owe), name=f"record {vm_id}", context=masking.outside()
        )
        self._writing.add(writing)
        writing.add_done_callback(self._written)
        await asyncio.shield(writing)

    def _written(self, writing: asyncio.Task[None]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled():
            writing.exception()  # the caller's, if it is still there

    async def _write_in_turn(self, vm_id: str, *, owe: bool) -> None:
        turn = self._turns.get(vm_id)
        if turn is None:
            turn = self._turns[vm_id] = asyncio.Lock()
        async with turn:
            record = self._records.get(vm_id)  # the newest word, whatever its own caller had
            try:
                await asyncio.to_thread(self._bring, vm_id, record)
            except OSError as e:
                if not owe:
                    raise
                log.error("the record of VM %s can't be written, the VM goes on without: %s", vm_id, e)
                self._owe(vm_id)
            else:
                if self._records.get(vm_id) is record:
                    self._owed.discard(vm_id)

    def _bring(self, vm_id: str, record: Record | None) -> None:
        path = os.path.join(self._folder, f"{vm_id}.json")
        if record is None:
            remove_durably(path)
            return
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        write_atomic(path, msgspec.json.encode(record), 0o600)
