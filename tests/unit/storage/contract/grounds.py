# SPDX-License-Identifier: GPL-2.0-or-later
"""What each implementation of the contracts stands on in tests, and what befalls it from outside."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

from memory_domain import MemoryStorage

from storage.domain import Domain
from storage.file.domain import create_file_domain, open_file_domain
from storage.file.io import FileIo
from storage.leases.flock_edge import FlockLeases
from storage.new_domain import NewDomain
from storage.ondisk.values import DomainKind
from vdsm.common.ids import new_uuid


class Ground(Protocol):
    async def open(self) -> Domain:
        """The same storage, opened anew, as another process does."""

    def damage(self, image_id: str, volume_id: str) -> None:
        """Its metadata can't be read any more."""

    def lose_payload(self, image_id: str, volume_id: str) -> None: ...
    def lead_elsewhere(self, image_id: str, volume_id: str) -> None:
        """Its payload is no plain one any more."""

    def leave_payload(self, image_id: str, volume_id: str) -> None:
        """As a creation that died leaves one, in an image that may be new."""

    def lies(self, image_id: str, volume_id: str = "") -> bool:
        """Whether anything is left under that name."""

    def metadata_version(self) -> object:
        """Differs after each writing of the domain's metadata."""

    def is_left(self) -> bool:
        """Whether anything of the domain is."""

    async def end(self) -> None: ...


class FileGround:
    def __init__(self, top: Path) -> None:
        self._top = top
        self._domain_id = new_uuid()
        self._ios: list[FileIo] = []

    async def open(self) -> Domain:
        io = FileIo(str(self._top))
        self._ios.append(io)
        mount, leases = str(self._top), FlockLeases()
        if not os.listdir(self._top):
            new = NewDomain(self._domain_id, DomainKind.LOCALFS, "/srv", "d")
            return await create_file_domain(new, mount, io, leases, io_timeout_s=1)
        return await open_file_domain(mount, self._domain_id, io, lambda _: leases, io_timeout_s=1)

    def damage(self, image_id: str, volume_id: str) -> None:
        self._image(image_id, f"{volume_id}.meta").write_bytes(b"CAP=much\n")

    def lose_payload(self, image_id: str, volume_id: str) -> None:
        self._image(image_id, volume_id).unlink()

    def lead_elsewhere(self, image_id: str, volume_id: str) -> None:
        path, elsewhere = self._image(image_id, volume_id), self._top / "elsewhere"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)

    def leave_payload(self, image_id: str, volume_id: str) -> None:
        self._image(image_id).mkdir(exist_ok=True)
        self._image(image_id, volume_id).touch()

    def lies(self, image_id: str, volume_id: str = "") -> bool:
        names = os.listdir(self._image(image_id)) if self._image(image_id).exists() else []
        return any(name.startswith(volume_id) for name in names) if volume_id else self._image(image_id).exists()

    def metadata_version(self) -> object:
        return (self._top / self._domain_id / "dom_md" / "metadata").stat().st_ino

    def is_left(self) -> bool:
        return bool(os.listdir(self._top))

    async def end(self) -> None:
        for io in self._ios:
            await io.close()
        shutil.rmtree(self._top)

    def _image(self, *names: str) -> Path:
        return Path(self._top, self._domain_id, "images", *names)


class MemoryGround:
    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._images = self._storage.stored.images

    async def open(self) -> Domain:
        return self._storage.open()

    def damage(self, image_id: str, volume_id: str) -> None:
        self._images[image_id][volume_id].volume.metadata = None

    def lose_payload(self, image_id: str, volume_id: str) -> None:
        self._images[image_id][volume_id].volume.there = False

    def lead_elsewhere(self, image_id: str, volume_id: str) -> None:
        self._images[image_id][volume_id].volume.odd = True

    def leave_payload(self, image_id: str, volume_id: str) -> None:
        self._storage.leave_payload(image_id, volume_id)

    def lies(self, image_id: str, volume_id: str = "") -> bool:
        return image_id in self._images and (not volume_id or volume_id in self._images[image_id])

    def metadata_version(self) -> object:
        return self._storage.metadata_writes

    def is_left(self) -> bool:
        return not self._storage.gone or bool(self._images)

    async def end(self) -> None:
        return
