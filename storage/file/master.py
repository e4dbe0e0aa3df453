# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders of a master: every access through the domain's I/O helper."""

from __future__ import annotations

import os
from collections.abc import Mapping

from storage.file.io import FileIo
from storage.tasks.files import MasterFolders


async def make_folders(io: FileIo, master: str) -> MasterFolders:
    """Those below ``master``, the folder of that name; made where they are missing."""
    tasks, ovfs = (FilesOf(io, os.path.join(master, name)) for name in ("tasks", "vms"))
    for files in (tasks, ovfs):
        await io.make_folders(files.folder)
    return MasterFolders(tasks, ovfs)


class FilesOf:
    """`storage.tasks.files.Files` by a domain's `FileIo`."""

    def __init__(self, io: FileIo, folder: str) -> None:
        self._io = io
        self.folder = folder

    async def listdir(self, name: str = "") -> list[str]:
        return await self._io.list_folder(self._path(name))

    async def read(self, name: str, max_bytes: int) -> bytes:
        return await self._io.read(self._path(name), max_size=max_bytes)

    async def write_tree(self, name: str, files: Mapping[str, bytes]) -> None:
        path = self._path(name)
        await self._io.remove_tree(path)
        await self._io.make_folder(path)
        for file, data in files.items():
            await self._io.write_atomic(os.path.join(path, file), data)

    async def rename(self, old: str, new: str) -> None:
        await self._io.rename(self._path(old), self._path(new))

    async def remove_tree(self, name: str) -> None:
        await self._io.remove_tree(self._path(name))

    async def sync(self) -> None:
        await self._io.sync_folder(self.folder)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name) if name else self.folder
