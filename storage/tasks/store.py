# SPDX-License-Identifier: GPL-2.0-or-later
"""The directory ``<master>/tasks``: tasks that another host can take over.

A task is replaced as a whole: ``<id>.temp`` is written and flushed, the current directory becomes
``<id>.backup``, the new one takes its name, the backup is removed. A power cut leaves at least one
complete directory; `load` takes the plain one, else ``.temp``, else ``.backup`` and completes the
interrupted save (storage.md 11.2).

Only the SPM writes here, and a task has one writer, so saves of one task are never concurrent.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Protocol

from storage.tasks import record as records
from storage.tasks.record import TaskRecord, TaskRecordInvalid
from vdsm.common.ids import is_uuid

log = logging.getLogger("vdsm.storage.tasks")

MAX_FILE_BYTES = 64 << 10


class Files(Protocol):
    """What the store needs of the domain's I/O: absolute paths, every call with a deadline of its own."""

    async def listdir(self, path: str) -> list[str]: ...
    async def read(self, path: str, max_bytes: int) -> bytes: ...
    async def write_tree(self, path: str, files: Mapping[str, bytes]) -> None:
        """Make the directory with these files, all flushed; an older one of that name goes first."""
        ...

    async def rename(self, old: str, new: str) -> None: ...
    async def remove_tree(self, path: str) -> None:
        """No error when there is none."""
        ...

    async def sync_folder(self, path: str) -> None: ...


class TaskStore:
    def __init__(self, files: Files, folder: str) -> None:
        self._files = files
        self.folder = folder

    async def save(self, record: TaskRecord) -> None:
        path = os.path.join(self.folder, record.task_id)
        known = await self._files.listdir(self.folder)
        await self._files.write_tree(path + ".temp", records.encode(record))
        if record.task_id in known:
            await self._files.remove_tree(path + ".backup")
            await self._files.rename(path, path + ".backup")
        await self._files.rename(path + ".temp", path)
        await self._files.remove_tree(path + ".backup")
        await self._files.sync_folder(self.folder)

    async def remove(self, task_id: str) -> None:
        """At no moment does half of it stand under its own name: it is a ``.temp`` before its files go."""
        path = os.path.join(self.folder, task_id)
        for suffix in (".temp", ".backup"):
            await self._files.remove_tree(path + suffix)
        if task_id in await self._files.listdir(self.folder):
            await self._files.rename(path, path + ".temp")
            await self._files.remove_tree(path + ".temp")
        await self._files.sync_folder(self.folder)

    async def load(self) -> list[TaskRecord]:
        """Every stored task. One that cannot be read is reported, kept on storage and skipped."""
        names = set(await self._files.listdir(self.folder))
        found = []
        for task_id in sorted({name.partition(".")[0] for name in names}):
            if not is_uuid(task_id):
                log.warning("%s holds %r, which is no task: left alone", self.folder, task_id)
                continue
            loaded = await self._load_one(task_id, names)
            if loaded is not None:
                found.append(loaded)
        return found

    async def _load_one(self, task_id: str, names: set[str]) -> TaskRecord | None:
        for suffix in ("", ".temp", ".backup"):
            name = task_id + suffix
            if name not in names:
                continue
            try:
                loaded = records.decode(task_id, await self._read(name))
            except TaskRecordInvalid as e:
                log.error("%s (in %s)", e, os.path.join(self.folder, name))
                continue
            await self._complete_save(task_id, suffix, names)
            return loaded
        if task_id not in names and task_id + ".backup" not in names:
            # its first save was cut off, so its first step was never done; or the removal of an ended one was
            await self._files.remove_tree(os.path.join(self.folder, task_id + ".temp"))
        return None

    async def _complete_save(self, task_id: str, suffix: str, names: set[str]) -> None:
        path = os.path.join(self.folder, task_id)
        if suffix:
            await self._files.remove_tree(path)
            await self._files.rename(path + suffix, path)
        for other in (".temp", ".backup"):
            if other != suffix and task_id + other in names:
                await self._files.remove_tree(path + other)

    async def _read(self, name: str) -> dict[str, bytes]:
        folder = os.path.join(self.folder, name)
        files = {}
        for entry in await self._files.listdir(folder):
            files[entry] = await self._files.read(os.path.join(folder, entry), MAX_FILE_BYTES)
        return files
