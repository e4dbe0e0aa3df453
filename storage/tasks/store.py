# SPDX-License-Identifier: GPL-2.0-or-later
"""The directory ``<master>/tasks``: tasks that another host can take over.

A task is replaced as a whole: ``<id>.temp`` is written and flushed, the current directory becomes
``<id>.backup``, the new one takes its name, the backup is removed. At each moment one complete directory
exists, plain or ``.backup``, from the end of the first save on; `load` takes the plain one, else ``.temp``, else
``.backup`` (storage.md 11.2), and completes the save that was cut off.

Only the SPM writes here, and a task has one writer, so saves of one task are never concurrent: a save
that began goes to its end (see `runner.Task`).

What else lies there (files, foreign names, unreadable, damaged or huge directories) is reported and left:
it never keeps an SPM from starting. Only storage that does not answer at all does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from storage.errors import IoFailed
from storage.tasks import record as records
from storage.tasks.record import TaskRecord, TaskRecordInvalid
from vdsm.common.ids import is_uuid

MAX_FILE_BYTES = 64 << 10
MAX_FILES = 1000
# made by mkfs of a block domain's master
EXPECTED = frozenset({"lost+found"})


class Files(Protocol):
    """What the store needs of the domain's I/O: absolute paths, every call with a deadline of its own."""

    async def listdir(self, path: str) -> list[str]: ...
    async def read(self, path: str, max_bytes: int) -> bytes: ...
    async def write_tree(self, path: str, files: Mapping[str, bytes]) -> None:
        """Make the directory with these files in this order, all flushed; an older one of that name goes first."""
        ...

    async def rename(self, old: str, new: str) -> None: ...
    async def remove_tree(self, path: str) -> None:
        """No error when there is none."""
        ...

    async def sync_folder(self, path: str) -> None: ...


@dataclass(frozen=True)
class Loaded:
    tasks: list[TaskRecord]
    odd: list[str]
    """Sentences: what lies there and was stepped over."""


class TaskStore:
    def __init__(self, files: Files, folder: str) -> None:
        self._files = files
        self.folder = folder

    async def save(self, record: TaskRecord) -> None:
        path = os.path.join(self.folder, record.task_id)
        known = await self._files.listdir(self.folder)
        if record.task_id not in known and record.task_id + ".backup" in known:
            # the save before this one was refused between its renames: the only whole one is the backup
            await self._files.rename(path + ".backup", path)
            known = [*known, record.task_id]
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

    async def load(self) -> Loaded:
        """Every stored task. Raises only what the folder itself is refused for, and `StorageNotResponding`."""
        names = set(await self._files.listdir(self.folder))
        found: list[TaskRecord] = []
        odd: list[str] = []
        for task_id in sorted({name.partition(".")[0] for name in names}):
            if not is_uuid(task_id):
                foreign = {name for name in names if name.partition(".")[0] == task_id} - EXPECTED
                odd += [f"{self.folder} holds {name[:80]!r}, which is no task" for name in sorted(foreign)]
                continue
            try:
                loaded = await self._load_one(task_id, names, odd)
            except IoFailed as e:
                odd.append(f"Stored task {task_id} was not taken over: {e}")
            else:
                found += [loaded] if loaded is not None else []
        return Loaded(found, odd)

    async def _load_one(self, task_id: str, names: set[str], odd: list[str]) -> TaskRecord | None:
        for suffix in ("", ".temp", ".backup"):
            name = task_id + suffix
            if name not in names:
                continue
            try:
                loaded = records.decode(task_id, await self._read(name))
            except (TaskRecordInvalid, IoFailed) as e:
                # a torn ``.temp`` is what a save that was cut off leaves: nothing to tell a person
                odd += [] if suffix == ".temp" else [f"{os.path.join(self.folder, name)}: {e}"]
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
        """Its files; what else lies in its folder (folders, other names) is passed over."""
        folder = os.path.join(self.folder, name)
        task_id = name.partition(".")[0]
        ours = [entry for entry in await self._files.listdir(folder) if entry.startswith(task_id + ".")]
        if len(ours) > MAX_FILES:
            raise TaskRecordInvalid(task_id, name, f"it holds {len(ours)} files, at most {MAX_FILES} are read")
        return {entry: await self._files.read(os.path.join(folder, entry), MAX_FILE_BYTES) for entry in ours}
