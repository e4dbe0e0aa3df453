# SPDX-License-Identifier: GPL-2.0-or-later
"""The task store's files on a domain: every access through the domain's I/O helper."""

from __future__ import annotations

import os
from collections.abc import Mapping

from storage.file.io import FileIo


class DomainFiles:
    """`storage.tasks.store.Files` by a domain's `FileIo`."""

    def __init__(self, io: FileIo) -> None:
        self._io = io

    async def listdir(self, path: str) -> list[str]:
        return await self._io.list_folder(path)

    async def read(self, path: str, max_bytes: int) -> bytes:
        return await self._io.read(path, max_size=max_bytes)

    async def write_tree(self, path: str, files: Mapping[str, bytes]) -> None:
        await self._io.remove_tree(path)
        await self._io.make_folder(path)
        for name, data in files.items():
            await self._io.write_atomic(os.path.join(path, name), data)

    async def rename(self, old: str, new: str) -> None:
        await self._io.rename(old, new)

    async def remove_tree(self, path: str) -> None:
        await self._io.remove_tree(path)

    async def sync_folder(self, path: str) -> None:
        await self._io.sync_folder(path)
