# SPDX-License-Identifier: GPL-2.0-or-later
"""Chains on files: whoever sees the mount can use them, so there is nothing to attach but the right to read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from storage.attached import AttachedChain, Payload
from storage.errors import IoFailed, UnsafeImage, VolumeNotFound
from storage.file.files import DomainFiles
from storage.ondisk.qcow2 import HEAD_SIZE
from vdsm.common.units import round_up

SECTOR = 512


class FileChains:
    """`storage.domain.Chains`. Holders are not counted: what one gives back, nobody loses."""

    kind = "file"

    def __init__(self, files: DomainFiles) -> None:
        self._files = files

    async def attach(self, image_id: str, volume_ids: Sequence[str], holder: str) -> AttachedChain:
        """QEMU's group may do with a payload what its owner may, and asks the server whether it may."""
        payloads = await asyncio.gather(*(self._attach(image_id, volume_id) for volume_id in volume_ids))
        return AttachedChain(self._files.image(image_id), dict(zip(volume_ids, payloads, strict=True)))

    async def detach(self, image_id: str, holder: str) -> None:
        return

    async def look(self, image_id: str, volume_id: str) -> Payload | None:
        return (await self._look(image_id, volume_id))[0]

    async def _attach(self, image_id: str, volume_id: str) -> Payload:
        with contextlib.suppress(IoFailed):  # to open it is what tells
            await self._files.io.forget_refusals(self._files.volume(image_id, volume_id))
        payload, mode = await self._look(image_id, volume_id)
        wanted = mode | (mode & 0o700) >> 3
        if wanted != mode:
            await self._files.io.chmod(payload.path, wanted)
        return payload

    async def _look(self, image_id: str, volume_id: str) -> tuple[Payload, int]:
        path = self._files.volume(image_id, volume_id)
        try:
            status = await self._files.io.status(path)
        except IoFailed as e:
            if e.error in ("ENOENT", "ENOTDIR"):
                raise VolumeNotFound(volume_id, self._files.domain_id) from e
            raise
        if not status.is_file:
            raise UnsafeImage(path, "it is no regular file")
        head = await self._files.io.read_direct(path, size=HEAD_SIZE)
        return Payload(path, "file", round_up(status.size, SECTOR), head), status.mode
