# SPDX-License-Identifier: GPL-2.0-or-later
"""LOCALFS: a folder of this host; the root helper gives it a link under ``mnt``, which is root's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from storage.access import Identity, refused_at
from storage.errors import IoFailed
from storage.ondisk.remote_path import normalise
from storage.servers.errors import AccessRefused, ConnectionRefused
from storage.servers.kinds import LocalFolder
from vdsm.root.client import Root

ROOT_S = 120.0


class Looks(Protocol):
    async def is_folder(self, path: str) -> bool:
        """Raises `IoFailed`, `StorageNotResponding` within seconds."""


class LocalFolders:
    def __init__(self, root: Root, looks: Looks, qemu_users: Sequence[Identity]) -> None:
        self._root = root
        self._looks = looks
        self._qemu_users = qemu_users

    async def connect(self, connection: LocalFolder) -> None:
        folder = await self._usable(connection.spec)
        await self._root.call("LocalFolder.link", {"folder": folder}, timeout_s=ROOT_S)

    async def disconnect(self, connection: LocalFolder) -> None:
        await self._root.call("LocalFolder.unlink", {"folder": connection.spec}, timeout_s=ROOT_S)

    async def _usable(self, spec: str) -> str:
        """The folder, which agent and QEMU can use. It may lie on a mount that hangs, so a helper looks first."""
        folder = normalise(spec)
        try:
            is_folder = await self._looks.is_folder(folder)
        except IoFailed as e:
            if e.error == "EACCES":
                raise AccessRefused(folder) from None
            raise ConnectionRefused(spec, f"there is no such folder ({e.text})") from None
        if not is_folder:
            raise ConnectionRefused(spec, "it is no folder")
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise AccessRefused(folder)
        for user in self._qemu_users:
            refused = refused_at(folder, user)
            if refused is not None:
                raise AccessRefused(refused[0], f"user {user.name}, as which VMs run, needs to {refused[1]} it")
        return folder
