# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a file domain's parts lie, and its metadata files read and replaced whole."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from storage.domain import VolumeSizes
from storage.errors import DomainUnsupported, ImageNotFound, InvalidChain, IoFailed, VolumeNotFound
from storage.file.io import FileIo
from storage.leases import Lease, Leases, Lockspace
from storage.ondisk import domain_fields, volume_metadata
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.domain_metadata import MAX_SIZE
from storage.ondisk.layout import sdm_offset
from storage.ondisk.values import DomainKind, FormatVersion, VolumeRole
from storage.ondisk.volume_metadata import MAX_FILE_SIZE, VolumeMetadata
from vdsm.common.ids import is_uuid
from vdsm.common.units import round_up

METADATA = "dom_md/metadata"
IMAGES = "images"
MASTER = "master"
META = ".meta"
LEASE = ".lease"
NEW = ".new"
REMOVED_PREFIX = "_remove_me_"

LARGE = 16 << 30
"""Bytes that a file takes; a smaller one is gone at once."""

DIRECT_READ = 4096
LIMIT_READ = round_up(MAX_SIZE + 1, DIRECT_READ)

Chain = list[tuple[str, VolumeMetadata]]


@dataclass(frozen=True)
class DomainFiles:
    """One domain's paths and small files. Does not lock; see `storage.domain` on who may write."""

    domain_id: str
    kind: DomainKind
    path: str
    block_size: int
    alignment: int
    version: FormatVersion
    io_timeout_s: int
    io: FileIo
    leases: Leases

    # Places

    def place(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def image(self, image_id: str) -> str:
        return os.path.join(self.path, IMAGES, image_id)

    def volume(self, image_id: str, volume_id: str, suffix: str = "") -> str:
        return os.path.join(self.path, IMAGES, image_id, volume_id + suffix)

    @property
    def lockspace(self) -> Lockspace:
        return Lockspace(self.domain_id, self.place("dom_md/ids"), self.alignment, self.block_size, self.io_timeout_s)

    @property
    def sdm_lease(self) -> Lease:
        return self._lease("SDM", self.place("dom_md/leases"), sdm_offset(self.alignment))

    def volume_lease(self, image_id: str, volume_id: str) -> Lease:
        return self._lease(volume_id, self.volume(image_id, volume_id, LEASE), 0)

    def _lease(self, resource: str, path: str, offset: int) -> Lease:
        return Lease(self.domain_id, resource, path, offset, self.alignment, self.block_size)

    # The domain's metadata

    async def read_metadata(self) -> DomainMetadata:
        path = self.place(METADATA)
        return domain_fields.decode(await self.io.read_direct(path, size=LIMIT_READ), path)

    async def write_metadata(self, metadata: DomainMetadata) -> None:
        data = domain_fields.encode(metadata)
        try:
            await self.io.write_atomic(self.place(METADATA), data)
        except IoFailed as e:
            if e.error != "ESTALE":  # the server replaced the folder under our handle: once more finds it
                raise
            await self.io.write_atomic(self.place(METADATA), data)

    # Metadata of volumes

    async def list_volumes(self) -> dict[str, tuple[str, ...]]:
        found = await self.io.list_matching(self.place(IMAGES), META)
        return {image: _volume_ids(names) for image, names in found.items() if is_uuid(image)}

    async def image_volumes(self, image_id: str) -> tuple[str, ...]:
        try:
            names = await self.io.list_folder(self.image(image_id))
        except IoFailed as e:
            if e.error in ("ENOENT", "ENOTDIR"):
                raise ImageNotFound(image_id, self.domain_id) from e
            raise
        return _volume_ids(names)

    async def read_volume(self, image_id: str, volume_id: str) -> VolumeMetadata:
        metadata = await self._read_volume(image_id, volume_id)
        if metadata.role is VolumeRole.SHARED and metadata.image_id != image_id:
            # VDSM replaces a template's own file only: the links of the images that are based on it keep the old one
            with contextlib.suppress(VolumeNotFound):
                return await self._read_volume(metadata.image_id, volume_id)
        return metadata

    async def _read_volume(self, image_id: str, volume_id: str) -> VolumeMetadata:
        path = self.volume(image_id, volume_id, META)
        try:
            data = await self.io.read_direct(path, size=round_up(MAX_FILE_SIZE, DIRECT_READ))
        except IoFailed as e:
            if e.error in ("ENOENT", "ENOTDIR"):
                raise VolumeNotFound(volume_id, self.domain_id) from e
            raise
        return volume_metadata.decode(data, path)

    async def write_volume(self, image_id: str, volume_id: str, metadata: VolumeMetadata) -> None:
        """Replace it; a shared volume's other images get the new file too."""
        self.check_writable()
        path = self.volume(image_id, volume_id, META)
        shared = await self.io.exists(path) and (await self.io.status(path)).links > 1
        await self.io.write_atomic(path, volume_metadata.encode(metadata))
        if shared:
            for other, volumes in (await self.list_volumes()).items():
                if other != image_id and volume_id in volumes:
                    await self.io.relink(path, self.volume(other, volume_id, META))

    async def children(self, image_id: str, volume_id: str) -> list[str]:
        """Volumes on top of this one: in the image, and for a shared one in those that share it."""
        sharing = [i for i, volumes in (await self.list_volumes()).items() if volume_id in volumes]
        images = {image_id, *sharing}
        found = []
        for image in images:
            for other in await self.image_volumes(image):
                if other != volume_id and (await self.read_volume(image, other)).parent_id == volume_id:
                    found.append(other)
        return sorted(found)

    async def chain(self, image_id: str, volume_id: str) -> Chain:
        """From the base to ``volume_id``."""
        found: Chain = []
        seen: set[str] = set()
        current = volume_id
        while True:
            if current in seen:
                raise InvalidChain(image_id, f"volume {current} is its own ancestor")
            seen.add(current)
            try:
                metadata = await self.read_volume(image_id, current)
            except VolumeNotFound:
                if not found:
                    raise
                raise InvalidChain(image_id, f"volume {current}, the parent of {found[-1][0]}, is missing") from None
            found.append((current, metadata))
            if not metadata.has_parent:
                return found[::-1]
            current = metadata.parent_id

    async def remove_payload(self, image_id: str, volume_id: str) -> None:
        """Giving back what a large file takes may take long."""
        path = self.volume(image_id, volume_id)
        if await self.io.exists(path) and (await self.io.status(path)).allocated > LARGE:
            await self.io.discard(path)
        else:
            await self.io.remove(path)

    async def sizes(self, image_id: str, volume_id: str) -> VolumeSizes:
        status = await self.io.status(self.volume(image_id, volume_id))
        return VolumeSizes(status.size, status.allocated)

    def check_writable(self) -> None:
        if self.version < FormatVersion.V5:
            raise DomainUnsupported(self.domain_id, f"format V{int(self.version)} is only read")


def _volume_ids(names: list[str]) -> tuple[str, ...]:
    ids = (name.removesuffix(META) for name in names if name.endswith(META))
    return tuple(sorted(v for v in ids if is_uuid(v)))
