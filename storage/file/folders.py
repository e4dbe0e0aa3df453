# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at folders that may lie on storage that hangs: `storage.servers.connectors.Folders`."""

from __future__ import annotations

import logging

from storage.errors import StorageError, StorageNotResponding
from storage.file.io import FileIo
from storage.file.iopool import IoPools

log = logging.getLogger("vdsm.storage.connections")

ANSWER_S = 5.0


class MountedLooks:
    def __init__(self, pools: IoPools) -> None:
        self._pools = pools

    async def is_folder(self, path: str) -> bool:
        io = FileIo(path, timeout_s=ANSWER_S, pools=self._pools)
        try:
            return (await io.status(path)).is_folder
        finally:
            await io.close()

    async def answers(self, path: str) -> bool:
        io = FileIo(path, timeout_s=ANSWER_S, pools=self._pools)
        try:
            await io.space(path)
        except StorageNotResponding:
            return False
        except StorageError as e:  # only silence is a reason to cut off who uses it
            log.warning("the storage at %s: %s", path, e)
        finally:
            await io.close()
        return True
