# SPDX-License-Identifier: GPL-2.0-or-later
"""Images and volumes in memory: `storage.volume_parts.VolumeParts` and `storage.domain.Chains`.

What lies on the storage is apart from who uses it (`Stored`): it outlives a process that dies. Attaching is counted by
holder, as on block storage, and what is not attached shows nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from memory_faults import Faults

from storage import chain_walk, creation, removal
from storage.attached import AttachedChain, Payload
from storage.domain import Chain, Claims, Garbage, VolumeSizes
from storage.errors import (
    GenerationMismatch,
    ImageNotFound,
    InvalidContent,
    InvalidVolume,
    UnsafeImage,
    VolumeExists,
    VolumeNotFound,
    VolumeNotShared,
)
from storage.leases import Lease
from storage.new_volume import Before, CreateStep, NewVolume, Progress
from storage.ondisk.values import FormatVersion, VolumeFormat, VolumeRole
from storage.ondisk.volume_metadata import VolumeMetadata
from storage.tasks.record import Recovery
from storage.tasks.steps import HALFBAKED, SENTINEL, parent_rollback

SECTOR = 512


@dataclass
class Volume:
    """``metadata`` None: damaged, or not written yet."""

    size: int = 0
    head: bytes = b""
    metadata: VolumeMetadata | None = None
    odd: bool = False
    """It leads elsewhere."""
    there: bool = True


@dataclass
class Entry:
    """A volume in an image; a shared one has an entry in each."""

    volume: Volume
    visible: bool = False


@dataclass
class Stored:
    images: dict[str, dict[str, Entry]] = field(default_factory=dict)
    removed: dict[str, dict[str, Entry]] = field(default_factory=dict)
    attached: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """Holders with the (image, volume) that they have."""


class MemoryVolumes:
    def __init__(self, domain_id: str, stored: Stored, faults: Faults) -> None:
        self.domain_id = domain_id
        self._stored = stored
        self._images = stored.images
        self._faults = faults
        self.version = FormatVersion.V5

    # Reading

    async def images(self) -> list[str]:
        return sorted(await self.by_image())

    async def by_image(self) -> dict[str, tuple[str, ...]]:
        await self._faults.read("by_image")
        return {image: _visible(entries) for image, entries in self._images.items()}

    async def of_image(self, image_id: str) -> tuple[str, ...]:
        await self._faults.read("of_image")
        if image_id not in self._images:
            raise ImageNotFound(image_id, self.domain_id)
        return _visible(self._images[image_id])

    async def read(self, image_id: str, volume_id: str) -> VolumeMetadata:
        await self._faults.read("read")
        entry = self._images.get(image_id, {}).get(volume_id)
        if entry is None or not entry.visible:
            raise VolumeNotFound(volume_id, self.domain_id)
        if entry.volume.metadata is None:
            raise InvalidContent(f"metadata of {volume_id}", "it is damaged")
        return entry.volume.metadata

    async def chain(self, image_id: str, volume_id: str) -> Chain:
        return await chain_walk.down(self.read, image_id, volume_id)

    async def children(self, image_id: str, volume_id: str) -> list[str]:
        sharing = [i for i, volumes in (await self.by_image()).items() if volume_id in volumes]
        found = [
            other
            for image in {image_id, *sharing}
            for other in await self.of_image(image)
            if other != volume_id and (await self.read(image, other)).parent_id == volume_id
        ]
        return sorted(found)

    async def sizes(self, image_id: str, volume_id: str) -> VolumeSizes:
        await self._faults.read("sizes")
        volume = self._volume(image_id, volume_id)
        return VolumeSizes(volume.size, len(volume.head))

    async def lease(self, image_id: str, volume_id: str) -> Lease | None:
        return None

    # Changes

    async def write(
        self, image_id: str, volume_id: str, metadata: VolumeMetadata, *, expect_generation: int | None = None
    ) -> None:
        if expect_generation is not None:
            found = (await self.read(image_id, volume_id)).generation
            if found != expect_generation:
                raise GenerationMismatch(volume_id, found, expect_generation)
        await self._faults.change("write")
        entry = self._images[image_id][volume_id]
        entry.volume.metadata, entry.visible = metadata, True

    async def create(
        self, wanted: NewVolume, before: Before | None = None, progress: Progress | None = None
    ) -> VolumeMetadata:
        return await creation.create(self, wanted, before, progress)

    async def share(self, source_image_id: str, volume_id: str, target_image_id: str) -> None:
        if (await self.read(source_image_id, volume_id)).role is not VolumeRole.SHARED:
            raise VolumeNotShared(volume_id)
        await self._faults.change("share")
        volume = self._images[source_image_id][volume_id].volume
        self._images.setdefault(target_image_id, {})[volume_id] = Entry(volume, visible=True)

    async def unshare(self, image_id: str, volume_id: str) -> None:
        await self._faults.change("unshare")
        self._images.get(image_id, {}).pop(volume_id, None)

    async def extend(self, image_id: str, volume_id: str, size: int) -> int:
        await self._faults.change("extend")
        volume = self._volume(image_id, volume_id)
        volume.size = max(volume.size, size)
        return volume.size

    async def set_parent(self, image_id: str, volume_id: str, parent_id: str) -> None:
        found = await self.read(image_id, volume_id)
        await self.write(image_id, volume_id, replace(found, parent_id=parent_id), expect_generation=found.generation)

    async def delete(self, image_id: str, volume_id: str, *, force: bool = False) -> None:
        await removal.delete(self, image_id, volume_id, force=force)

    async def hide(self, image_id: str, volume_id: str) -> None:
        await self._faults.change("hide")
        entry = self._images.get(image_id, {}).get(volume_id)
        if entry is not None:
            entry.visible = False

    async def remove_rest(self, image_id: str, volume_id: str) -> None:
        await self._faults.change("remove_rest")
        entry = self._images.get(image_id, {}).get(volume_id)
        if entry is not None and not entry.visible:
            del self._images[image_id][volume_id]

    async def delete_image(self, image_id: str) -> None:
        await removal.delete_image(self, image_id)

    async def drop_image(self, image_id: str) -> None:
        await self._faults.change("drop_image")
        if not self._images.get(image_id, True):
            del self._images[image_id]

    async def removed(self) -> list[str]:
        await self._faults.read("removed")
        return sorted(self._stored.removed)

    async def purge(self, removed: str) -> bool:
        await self._faults.change("purge")
        return self._stored.removed.pop(removed, None) is not None

    async def collect_garbage(self, claimed: Claims) -> Garbage:
        removed, mended = [], []
        for image_id in list(self._images):
            for volume_id, entry in list(self._images[image_id].items()):
                if not entry.visible and (image_id, volume_id) not in claimed:
                    await self._faults.change("collect_garbage")
                    del self._images[image_id][volume_id]
                    removed.append(volume_id)
            if not self._images[image_id] and (image_id, "") not in claimed:
                del self._images[image_id]
                removed.append(image_id)
            else:
                mended += await removal.mend_parents(self, image_id)
        return Garbage(tuple(removed), tuple(mended))

    # What tasks store: in the form of files, which has readers

    async def undo(self, step: CreateStep, wanted: NewVolume) -> tuple[Recovery, ...]:
        image_id, volume_id = wanted.image_id, wanted.volume_id
        match step:
            case CreateStep.FOLDER:
                params = (self._path(image_id),)
                return (Recovery("create image rollback", "sd", "StorageDomain", "create_image_rollback", params),)
            case CreateStep.SHARE:
                return (_step("share", "shareVolumeRollback", self._path(image_id, wanted.parent_id)),)
            case CreateStep.PAYLOAD:
                marker = _step(SENTINEL, "startCreateVolumeRollback", self.domain_id, image_id, volume_id)
                return marker, *self.undo_deleted(image_id, volume_id)
            case CreateStep.PARENT:
                return (parent_rollback(self.domain_id, image_id, wanted.parent_id),)
            case CreateStep.METADATA:
                return (_step("metadata", "createVolumeMetadataRollback", self._path(image_id, volume_id)),)

    def undo_created(self, pool_folder: str, image_id: str, volume_id: str, ctime: int) -> Recovery:
        made = _step("made", "createVolumeRollback", pool_folder, self.domain_id, image_id, volume_id, "/images")
        return replace(made, made=str(ctime))

    def undo_deleted(self, image_id: str, volume_id: str) -> tuple[Recovery, ...]:
        path = self._path(image_id, volume_id)
        return (_step(HALFBAKED, "halfbakedVolumeRollback", self.domain_id, volume_id, path),)

    # Parts

    def check_writable(self) -> None:
        return

    def check_size(self, wanted: NewVolume, capacity: int) -> None:
        if wanted.initial_size is not None and wanted.initial_size > capacity:
            raise InvalidVolume(wanted.volume_id, "its initial size is above its capacity")

    async def has_image(self, image_id: str) -> bool:
        await self._faults.read("has_image")
        return image_id in self._images

    async def make_image(self, image_id: str) -> None:
        await self._faults.change("make_image")
        self._images.setdefault(image_id, {})

    async def is_free(self, image_id: str, volume_id: str) -> bool:
        await self._faults.read("is_free")
        return volume_id not in self._images.get(image_id, {})

    async def make_payload(self, image_id: str, volume_id: str) -> None:
        await self._faults.change("make_payload")
        if volume_id in self._images[image_id]:
            raise VolumeExists(volume_id, self.domain_id)
        self._images[image_id][volume_id] = Entry(Volume())

    async def format_payload(
        self, volume_id: str, metadata: VolumeMetadata, parent: VolumeMetadata | None, progress: Progress | None
    ) -> None:
        await self._faults.change("format_payload")
        volume = self._volume(metadata.image_id, volume_id)
        if metadata.format is VolumeFormat.RAW:
            volume.size, volume.head = metadata.capacity, bytes(SECTOR)
        else:
            backing = "" if parent is None else metadata.parent_id
            volume.head = qcow2_head(metadata.capacity, backing, "" if parent is None else parent.format.qemu)
            volume.size = len(volume.head)

    async def make_lease(self, image_id: str, volume_id: str) -> None:
        return

    async def remove_lease(self, image_id: str, volume_id: str) -> None:
        return

    async def hide_image(self, image_id: str) -> None:
        await self._faults.change("hide_image")
        if image_id not in self._images:
            raise ImageNotFound(image_id, self.domain_id)
        self._stored.removed[image_id] = self._images.pop(image_id)

    def _volume(self, image_id: str, volume_id: str) -> Volume:
        entry = self._images.get(image_id, {}).get(volume_id)
        if entry is None or not entry.volume.there:
            raise VolumeNotFound(volume_id, self.domain_id)
        return entry.volume

    def _path(self, *names: str) -> str:
        return "/".join(("/memory", self.domain_id, "images", *names))


class MemoryChains:
    kind = "block"

    def __init__(self, domain_id: str, stored: Stored, faults: Faults) -> None:
        self._domain_id = domain_id
        self._stored = stored
        self._faults = faults

    async def attach(self, image_id: str, volume_ids: Sequence[str], holder: str) -> AttachedChain:
        await self._faults.read("attach")
        payloads = {}
        for volume_id in volume_ids:
            volume = self._plain(image_id, volume_id)
            self._stored.attached.setdefault(holder, set()).add((image_id, volume_id))
            payloads[volume_id] = self._payload(image_id, volume_id, volume)
        return AttachedChain(f"/memory/{self._domain_id}/images/{image_id}", payloads)

    async def detach(self, image_id: str, holder: str) -> None:
        await self._faults.read("detach")
        kept = {held for held in self._stored.attached.pop(holder, set()) if held[0] != image_id}
        if kept:
            self._stored.attached[holder] = kept

    async def look(self, image_id: str, volume_id: str) -> Payload | None:
        await self._faults.read("look")
        volume = self._plain(image_id, volume_id)
        if not any((image_id, volume_id) in held for held in self._stored.attached.values()):
            return None
        return self._payload(image_id, volume_id, volume)

    def _plain(self, image_id: str, volume_id: str) -> Volume:
        entry = self._stored.images.get(image_id, {}).get(volume_id)
        if entry is None or not entry.volume.there:
            raise VolumeNotFound(volume_id, self._domain_id)
        if entry.volume.odd:
            raise UnsafeImage(volume_id, "it leads elsewhere")
        return entry.volume

    def _payload(self, image_id: str, volume_id: str, volume: Volume) -> Payload:
        path = f"/memory/{self._domain_id}/images/{image_id}/{volume_id}"
        return Payload(path, "host_device", volume.size, volume.head)


def qcow2_head(size: int, backing: str = "", backing_format: str = "") -> bytes:
    """The first bytes of an empty image, as QEMU begins one."""
    extensions = b""
    if backing:
        text = backing_format.encode()
        extensions = struct.pack(">II", 0xE2792ACA, len(text)) + text.ljust((len(text) + 7) & ~7, b"\0")
    extensions += bytes(8)
    name_at = 104 + len(extensions) if backing else 0
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, name_at, len(backing), 16, size, 0, 0, 0, 0, 0, 0, 0)
    head += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    return (head + extensions + backing.encode()).ljust(SECTOR, b"\0")


def _visible(entries: dict[str, Entry]) -> tuple[str, ...]:
    return tuple(sorted(volume_id for volume_id, entry in entries.items() if entry.visible))


def _step(name: str, function: str, *params: str) -> Recovery:
    return Recovery(name, "fileVolume", "FileVolume", function, params)
