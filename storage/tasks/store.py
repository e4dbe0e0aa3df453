# SPDX-License-Identifier: GPL-2.0-or-later
"""The directory ``<master>/tasks``: tasks that another host can take over.

A task is replaced as a whole: ``<id>.temp`` is written and flushed, the current directory becomes
``<id>.backup``, the new one takes its name, the backup is removed. At each moment one complete directory
exists, plain or ``.backup``, from the end of the first save on; `load` takes the plain one, else ``.temp``, else
``.backup`` (storage.md 11.2), and completes the save that was cut off.

Only the SPM writes here, one save or removal at a time: one that began goes to its end (see `runner.Task`), and
none runs while the store moves to another master.

What else lies there (files, foreign names, unreadable, damaged or huge directories) is reported and left:
it never keeps an SPM from starting. Only storage that does not answer at all does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from storage.errors import IoFailed
from storage.tasks import record as records
from storage.tasks.files import EXPECTED, Files, copy_all
from storage.tasks.record import TaskRecord, TaskRecordInvalid
from vdsm.common.ids import is_uuid

MAX_FILE_BYTES = 64 << 10
MAX_FILES = 1000


@dataclass(frozen=True)
class Loaded:
    tasks: list[TaskRecord]
    odd: list[str]
    """Sentences: what lies there and was stepped over."""


class TaskStore:
    def __init__(self, files: Files) -> None:
        self._files = files
        self._turn = asyncio.Lock()

    @property
    def folder(self) -> str:
        return self._files.folder

    async def move(self, target: Files, commit: Callable[[], Awaitable[None]]) -> list[str]:
        """Everything goes into ``target``, which is emptied first; from ``commit`` on, which makes its domain the
        master, tasks are stored there. What was here before it stays here, too.

        Sentences on what lies here and is no task's folder: it was not copied. After an error this store is as it was.
        """
        async with self._turn:
            odd = await copy_all(self._files, target)
            await commit()
            self._files = target
            return odd

    async def save(self, record: TaskRecord) -> None:
        async with self._turn:
            await self._save(record)

    async def _save(self, record: TaskRecord) -> None:
        name = record.task_id
        known = await self._files.listdir()
        if name not in known and name + ".backup" in known:
            # the save before this one was refused between its renames: the only whole one is the backup
            await self._files.rename(name + ".backup", name)
            known = [*known, name]
        await self._files.write_tree(name + ".temp", records.encode(record))
        if name in known:
            await self._files.remove_tree(name + ".backup")
            await self._files.rename(name, name + ".backup")
        await self._files.rename(name + ".temp", name)
        await self._files.remove_tree(name + ".backup")
        await self._files.sync()

    async def remove(self, task_id: str) -> None:
        """At no moment does half of it stand under its own name: it is a ``.temp`` before its files go."""
        async with self._turn:
            await self._remove(task_id)

    async def _remove(self, task_id: str) -> None:
        for suffix in (".temp", ".backup"):
            await self._files.remove_tree(task_id + suffix)
        if task_id in await self._files.listdir():
            await self._files.rename(task_id, task_id + ".temp")
            await self._files.remove_tree(task_id + ".temp")
        await self._files.sync()

    async def load(self) -> Loaded:
        """Every stored task. Raises only what the folder itself is refused for, and `StorageNotResponding`."""
        names = set(await self._files.listdir())
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
            await self._files.remove_tree(task_id + ".temp")
        return None

    async def _complete_save(self, task_id: str, suffix: str, names: set[str]) -> None:
        if suffix:
            await self._files.remove_tree(task_id)
            await self._files.rename(task_id + suffix, task_id)
        for other in (".temp", ".backup"):
            if other != suffix and task_id + other in names:
                await self._files.remove_tree(task_id + other)

    async def _read(self, name: str) -> dict[str, bytes]:
        """Its files; what else lies in its folder (folders, other names) is passed over."""
        task_id = name.partition(".")[0]
        ours = [entry for entry in await self._files.listdir(name) if entry.startswith(task_id + ".")]
        if len(ours) > MAX_FILES:
            raise TaskRecordInvalid(task_id, name, f"it holds {len(ours)} files, at most {MAX_FILES} are read")
        return {entry: await self._files.read(os.path.join(name, entry), MAX_FILE_BYTES) for entry in ours}
