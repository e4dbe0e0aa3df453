# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders of a master on this disk, without an I/O helper."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from storage.errors import IoFailed


class LocalFiles:
    """`storage.tasks.files.Files`; refuses as an I/O helper does."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    async def listdir(self, name: str = "") -> list[str]:
        path = self.path(name)
        with refusing("list_folder", path):
            return os.listdir(path)

    async def read(self, name: str, max_bytes: int) -> bytes:
        path = self.path(name)
        with refusing("read", path):
            if os.path.getsize(path) > max_bytes:
                raise OSError(errno.EFBIG, "too long", path)
            return Path(path).read_bytes()

    async def write_tree(self, name: str, files: Mapping[str, bytes]) -> None:
        path = self.path(name)
        shutil.rmtree(path, ignore_errors=True)
        Path(path).mkdir()
        for file, data in files.items():
            (Path(path) / file).write_bytes(data)

    async def rename(self, old: str, new: str) -> None:
        with refusing("rename", self.path(old)):
            Path(self.path(old)).rename(self.path(new))

    async def remove_tree(self, name: str) -> None:
        path = self.path(name)
        if os.path.lexists(path) and not os.path.isdir(path):
            raise IoFailed("remove_tree", path, "ENOTDIR", "Not a directory")
        shutil.rmtree(path, ignore_errors=True)

    async def sync(self) -> None:
        pass


@contextlib.contextmanager
def refusing(operation: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise IoFailed(operation, path, errno.errorcode[e.errno or errno.EIO], os.strerror(e.errno or 0)) from None
