# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes of a file domain: `storage.domain.VolumeStore` as files of the image's folder.

A volume is its metadata ``<id>.meta``: listings go by that, so it is written last and removed first. Beside it are the
payload ``<id>`` and, where leases lie on storage, ``<id>.lease``. A template's files are hard links in
the images that are based on it.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from storage import chain_walk, creation, removal
from storage.domain import Chain, Claims, Garbage, VolumeSizes
from storage.errors import GenerationMismatch, ImageNotFound, IoFailed, VolumeExists, VolumeNotFound, VolumeNotShared
from storage.file import garbage, payload, steps
from storage.file.files import DIRECT_READ, IMAGES, LEASE, META, NEW, REMOVED_PREFIX, DomainFiles
from storage.file.payload import FILE_MODE
from storage.leases import Lease
from storage.new_volume import Before, CreateStep, NewVolume, Progress
from storage.ondisk import volume_metadata
from storage.ondisk.values import Allocation, DomainClass, FormatVersion, VolumeFormat, VolumeRole
from storage.ondisk.volume_metadata import MAX_FILE_SIZE, VolumeMetadata
from storage.tasks.record import Recovery
from vdsm.common.errors import InvalidParameter
from vdsm.common.ids import is_uuid
from vdsm.common.units import round_up


class FileVolumes:
    def __init__(self, files: DomainFiles) -> None:
        self.files = files
        self.io = files.io
        self.domain_id = files.domain_id

    @property
    def version(self) -> FormatVersion:
        return self.files.version

    # Reading

    async def images(self) -> list[str]:
        return sorted(await self.by_image())

    async def by_image(self) -> dict[str, tuple[str, ...]]:
        found = await self.io.list_matching(self.files.place(IMAGES), META)
        return {image: _volume_ids(names) for image, names in found.items() if is_uuid(image)}

    async def of_image(self, image_id: str) -> tuple[str, ...]:
        try:
            names = await self.io.list_folder(self.files.image(image_id))
        except IoFailed as e:
            if e.error in ("ENOENT", "ENOTDIR"):
                raise ImageNotFound(image_id, self.domain_id) from e
            raise
        return _volume_ids(names)

    async def read(self, image_id: str, volume_id: str) -> VolumeMetadata:
        metadata = await self._read_file(image_id, volume_id)
        if metadata.role is VolumeRole.SHARED and metadata.image_id != image_id:
            # VDSM replaces a template's own file only: the links of the images that are based on it keep the old one
            with contextlib.suppress(VolumeNotFound):
                return await self._read_file(metadata.image_id, volume_id)
        return metadata

    async def chain(self, image_id: str, volume_id: str) -> Chain:
        return await chain_walk.down(self.read, image_id, volume_id)

    async def children(self, image_id: str, volume_id: str) -> list[str]:
        sharing = [i for i, volumes in (await self.by_image()).items() if volume_id in volumes]
        found = []
        for image in {image_id, *sharing}:
            for other in await self.of_image(image):
                if other != volume_id and (await self.read(image, other)).parent_id == volume_id:
                    found.append(other)
        return sorted(found)

    async def sizes(self, image_id: str, volume_id: str) -> VolumeSizes:
        try:
            status = await self.io.status(self.files.volume(image_id, volume_id))
        except IoFailed as e:
            if e.error in ("ENOENT", "ENOTDIR"):
                raise VolumeNotFound(volume_id, self.domain_id) from e
            raise
        return VolumeSizes(status.size, status.allocated)

    async def lease(self, image_id: str, volume_id: str) -> Lease | None:
        return self.files.volume_lease(image_id, volume_id) if self.files.leases.on_storage else None

    # Changes

    async def write(
        self, image_id: str, volume_id: str, metadata: VolumeMetadata, *, expect_generation: int | None = None
    ) -> None:
        self.check_writable()
        if expect_generation is not None:
            found = (await self.read(image_id, volume_id)).generation
            if found != expect_generation:
                raise GenerationMismatch(volume_id, found, expect_generation)
        await self.replace(image_id, volume_id, metadata.role, volume_metadata.encode(metadata, self.version))

    async def replace(self, image_id: str, volume_id: str, role: VolumeRole, text: bytes) -> None:
        """Also where it is shared: the links of one that was cut off here may be of an older file."""
        path = self.files.volume(image_id, volume_id, META)
        await self.io.write_atomic(path, text)
        if role is VolumeRole.SHARED:
            for other, volumes in (await self.by_image()).items():
                if other != image_id and volume_id in volumes:
                    await self.io.relink(path, self.files.volume(other, volume_id, META))

    async def create(
        self, wanted: NewVolume, before: Before | None = None, progress: Progress | None = None
    ) -> VolumeMetadata:
        return await creation.create(self, wanted, before, progress)

    async def share(self, source_image_id: str, volume_id: str, target_image_id: str) -> None:
        """The metadata's link, which makes it visible there, last."""
        self.check_writable()
        metadata = await self.read(source_image_id, volume_id)
        if metadata.role is not VolumeRole.SHARED:
            raise VolumeNotShared(volume_id)
        await self.make_image(target_image_id)
        for suffix in ("", LEASE, META) if self.files.leases.on_storage else ("", META):
            source = self.files.volume(source_image_id, volume_id, suffix)
            await self.io.relink(source, self.files.volume(target_image_id, volume_id, suffix))

    async def unshare(self, image_id: str, volume_id: str) -> None:
        await self.hide(image_id, volume_id)
        await self.remove_rest(image_id, volume_id)

    async def extend(self, image_id: str, volume_id: str, size: int) -> int:
        self.check_writable()
        allocation = (await self.read(image_id, volume_id)).allocation
        await payload.extend(self.files, self.files.volume(image_id, volume_id), size, allocation)
        return size

    async def set_parent(self, image_id: str, volume_id: str, parent_id: str) -> None:
        found = await self.read(image_id, volume_id)
        await self.write(image_id, volume_id, replace(found, parent_id=parent_id), expect_generation=found.generation)

    async def delete(self, image_id: str, volume_id: str, *, force: bool = False) -> None:
        await removal.delete(self, image_id, volume_id, force=force)

    async def hide(self, image_id: str, volume_id: str) -> None:
        self.check_writable()
        await self.io.remove(self.files.volume(image_id, volume_id, META))

    async def remove_rest(self, image_id: str, volume_id: str) -> None:
        if not await self.io.exists(self.files.volume(image_id, volume_id, META)):
            await payload.remove(self.files, self.files.volume(image_id, volume_id))
            await self._remove_beside(image_id, volume_id)

    async def delete_image(self, image_id: str) -> None:
        await removal.delete_image(self, image_id)

    async def drop_image(self, image_id: str) -> None:
        try:
            await self.io.remove_folder(self.files.image(image_id))
        except IoFailed as e:
            if e.error not in ("ENOENT", "ENOTEMPTY", "EEXIST"):
                raise

    async def removed(self) -> list[str]:
        names = await self.io.list_folder(self.files.place(IMAGES))
        return [name.removeprefix(REMOVED_PREFIX) for name in names if name.startswith(REMOVED_PREFIX)]

    async def purge(self, removed: str) -> bool:
        self.check_writable()
        if removed not in await self.removed():
            return False
        await self.io.discard(self.files.place(IMAGES, REMOVED_PREFIX + removed))
        return True

    async def collect_garbage(self, claimed: Claims) -> Garbage:
        if self.files.domain_class is DomainClass.ISO:  # what lies there is people's, whatever its name
            return Garbage((), ())
        return await garbage.collect(self.files, self, frozenset(claimed))

    # What tasks store

    async def undo(self, step: CreateStep, wanted: NewVolume) -> tuple[Recovery, ...]:
        return steps.undo(self.files, step, wanted)

    def undo_created(self, pool_folder: str, image_id: str, volume_id: str, ctime: int) -> Recovery:
        return steps.created(self.files, pool_folder, image_id, volume_id, ctime)

    def undo_deleted(self, image_id: str, volume_id: str) -> tuple[Recovery, ...]:
        return (steps.halfbaked(self.files, image_id, volume_id),)

    # Parts of `storage.creation` and `storage.removal`

    def check_writable(self) -> None:
        self.files.check_writable()

    def check_size(self, wanted: NewVolume, capacity: int) -> None:
        """An initial size never changes what is made; which ones are taken is the field's rule (storage.md 16.1)."""
        if wanted.initial_size is None:
            return
        if wanted.format is VolumeFormat.COW:
            reason = "" if wanted.initial_size == 0 else "a COW volume on files takes none but 0"
        elif wanted.allocation is not Allocation.PREALLOCATED:
            reason = "a sparse RAW volume takes none"
        else:
            fits = 0 <= wanted.initial_size <= capacity
            reason = "" if fits else f"it is not within the capacity {capacity}"
        if reason:
            raise InvalidParameter("initialSize", str(wanted.initial_size), reason)

    async def has_image(self, image_id: str) -> bool:
        return await self.io.exists(self.files.image(image_id))

    async def make_image(self, image_id: str) -> None:
        await self.io.make_folders(self.files.image(image_id))

    async def is_free(self, image_id: str, volume_id: str) -> bool:
        return not any([await self.io.exists(self.files.volume(image_id, volume_id, s)) for s in ("", META)])

    async def make_payload(self, image_id: str, volume_id: str) -> None:
        await self._remove_beside(image_id, volume_id)  # left by a crash: nothing claims them
        try:
            await self.io.create(self.files.volume(image_id, volume_id), mode=FILE_MODE)
        except IoFailed as e:
            if e.error == "EEXIST":
                raise VolumeExists(volume_id, self.domain_id) from e
            raise

    async def format_payload(
        self, volume_id: str, metadata: VolumeMetadata, parent: VolumeMetadata | None, progress: Progress | None
    ) -> None:
        path = self.files.volume(metadata.image_id, volume_id)
        if metadata.format is VolumeFormat.RAW:
            await payload.format_raw(self.files, path, metadata, progress)
        else:
            await payload.format_cow(self.files, path, metadata, parent, progress)

    async def make_lease(self, image_id: str, volume_id: str) -> None:
        if self.files.leases.on_storage:
            await self.io.create(self.files.volume(image_id, volume_id, LEASE), mode=FILE_MODE)
            await self.files.leases.format_lease(self.files.volume_lease(image_id, volume_id))

    async def remove_lease(self, image_id: str, volume_id: str) -> None:
        await self.io.remove(self.files.volume(image_id, volume_id, LEASE))

    async def hide_image(self, image_id: str) -> None:
        removed = self.files.place(IMAGES, REMOVED_PREFIX + image_id)
        try:
            await self.io.discard(removed)  # of an earlier image of that name
            await self.io.rename(self.files.image(image_id), removed)
        except IoFailed as e:
            if e.error == "ENOENT":
                raise ImageNotFound(image_id, self.domain_id) from e
            raise

    async def _read_file(self, image_id: str, volume_id: str) -> VolumeMetadata:
        path = self.files.volume(image_id, volume_id, META)
        try:
            data = await self.io.read_direct(path, size=round_up(MAX_FILE_SIZE, DIRECT_READ))
        except IoFailed as e:
            if e.error in ("ENOENT", "ENOTDIR"):
                raise VolumeNotFound(volume_id, self.domain_id) from e
            raise
        return volume_metadata.decode(data, path)

    async def _remove_beside(self, image_id: str, volume_id: str) -> None:
        for suffix in (LEASE, META + NEW):
            await self.io.remove(self.files.volume(image_id, volume_id, suffix))


def _volume_ids(names: list[str]) -> tuple[str, ...]:
    ids = (name.removesuffix(META) for name in names if name.endswith(META))
    return tuple(sorted(v for v in ids if is_uuid(v)))
