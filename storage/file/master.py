# SPDX-License-Identifier: GPL-2.0-or-later
"""The task store's folder on a master: every access through the domain's I/O helper."""

from __future__ import annotations

import os
from collections.abc import Mapping

from storage.file.io import FileIo

FOLDERS = ("vms", "tasks")


class MasterFiles:
    """`storage.tasks.store.Files` by a domain's `FileIo`. ``master``: the folder of that name."""

    def __init__(self, io: FileIo, master: str) -> None:
        self._io = io
        self._master = master
        self.folder = os.path.join(master, "tasks")

    async def make(self) -> None:
        """The folders of a master. Nothing happens when they are there."""
        for name in FOLDERS:
            await self._io.make_folders(os.path.join(self._master, name))

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
