# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of images and volumes, as bodies of SPM tasks.

Each takes its locks in the one order, stores how to undo itself, then acts. What a body leaves
behind when it dies in the middle:

- create: payload without metadata, which no listing shows; undone by the stored steps;
- delete of a volume: an illegal volume, or files without metadata; the latter are removed by the
  stored steps, the former can be deleted again;
- delete of an image: the whole image, or a folder ``_remove_me_<image>`` that the next SPM removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from storage import locks
from storage.domain import Domain, NewVolume
from storage.domains import Domains
from storage.errors import ImageNotFound, InvalidVolume, StorageError, VolumeExists, VolumeShared
from storage.locks import Lock, Locks, Mode
from storage.ondisk.values import Allocation, Legality, VolumeFormat, VolumeRole
from storage.spm import recoveries
from storage.tasks.record import Recovery
from storage.tasks.runner import Task
from vdsm.common.crashpoints import crash_point

CREATE_SHARED = crash_point("spm.volume.shared", "the template is linked into the image, no volume is made")
CREATE_MADE = crash_point("spm.volume.made", "the volume is complete, its task still runs")
DELETE_REMOVED = crash_point("spm.volume.removed", "the volume is removed, its task still runs")
IMAGE_DELETED = crash_point("spm.image.removed", "the image is removed, its task still runs")
EXTEND_SIZED = crash_point("spm.volume.sized", "the payload is larger, the metadata has the old capacity")


class VolumeShrinkRefused(StorageError):
    volume_id: str
    size: int
    wanted: int
    msg = "Volume {self.volume_id} has {self.size} bytes: it cannot be made smaller ({self.wanted})"


class VolumeInternal(StorageError):
    volume_id: str
    msg = "Volume {self.volume_id} has children: only a leaf or a base can be changed so"


class Volumes:
    def __init__(self, domains: Domains, held: Locks, repository: str) -> None:
        self._domains = domains
        self._locks = held
        self._repository = repository

    async def create(self, task: Task, domain_id: str, wanted: NewVolume, source_image_id: str) -> str:
        """Make a volume. ``source_image_id`` is the parent's image: another one means clone of a template."""
        domain = await self._domains.get(domain_id)
        clone = bool(wanted.parent_id) and source_image_id not in ("", wanted.image_id)
        also = [locks.image(domain_id, source_image_id, Mode.SHARED)] if clone else []
        async with self._locks.hold(_changing(domain, wanted.image_id, also)):
            await self._check_new(domain, wanted)
            await task.will_undo(*await self._undo_create(domain, wanted, clone))
            if clone:
                await self._share_template(domain, source_image_id, wanted)
                CREATE_SHARED.reach()
            await domain.create_volume(wanted)
            CREATE_MADE.reach()
            task.replace_recoveries(
                recoveries.volume_rollback(domain, self._repository, wanted.image_id, wanted.volume_id)
            )
            return wanted.volume_id

    async def delete(self, task: Task, domain_id: str, image_id: str, volume_ids: Sequence[str], *, force: bool) -> str:
        """Remove volumes of an image, leaf first."""
        domain = await self._domains.get(domain_id)
        async with self._locks.hold(_changing(domain, image_id)):
            for volume_id in volume_ids:
                await self._delete_one(task, domain, image_id, volume_id, force=force)
        return ""

    async def delete_image(self, task: Task, domain_id: str, image_id: str, *, force: bool) -> str:
        """Remove the whole image. Raises `ImageNotFound`, `VolumeShared` when others are based on it."""
        domain = await self._domains.get(domain_id)
        async with self._locks.hold(_changing(domain, image_id)):
            if image_id not in await domain.list_images():
                raise ImageNotFound(image_id, domain_id)
            await task.will_undo()
            await domain.delete_image(image_id)
            IMAGE_DELETED.reach()
        return ""

    async def extend_size(self, task: Task, domain_id: str, image_id: str, volume_id: str, size: int) -> str:
        """Grow a raw volume. A sparse qcow2 volume needs nothing here: it grows with its data."""
        domain = await self._domains.get(domain_id)
        async with self._locks.hold(_changing(domain, image_id)):
            metadata = await domain.read_volume(image_id, volume_id)
            if metadata.role is VolumeRole.SHARED:
                raise VolumeShared(volume_id)
            if metadata.role is VolumeRole.INTERNAL and metadata.has_parent:
                raise VolumeInternal(volume_id)
            if size < metadata.capacity:
                raise VolumeShrinkRefused(volume_id, metadata.capacity, size)
            if metadata.format is VolumeFormat.RAW:
                await task.will_undo(recoveries.size_finalize(domain, image_id, volume_id))
                await _grow(domain, image_id, volume_id, size, metadata.allocation)
                EXTEND_SIZED.reach()
                await domain.write_volume(image_id, volume_id, replace(metadata, capacity=size))
                task.replace_recoveries()
        return str(size)

    async def describe(self, domain_id: str, image_id: str, volume_id: str, description: str) -> None:
        domain = await self._domains.get(domain_id)
        async with self._locks.hold(_changing(domain, image_id)):
            metadata = await domain.read_volume(image_id, volume_id)
            await domain.write_volume(image_id, volume_id, replace(metadata, description=description))

    async def set_legality(self, domain_id: str, image_id: str, volume_id: str, legality: Legality) -> None:
        domain = await self._domains.get(domain_id)
        async with self._locks.hold(_changing(domain, image_id)):
            metadata = await domain.read_volume(image_id, volume_id)
            await domain.write_volume(image_id, volume_id, replace(metadata, legality=legality))

    async def _check_new(self, domain: Domain, wanted: NewVolume) -> None:
        """Before anything is stored: the stored steps back would remove an older volume of this name."""
        if await domain.io.exists(domain.volume_path(wanted.image_id, wanted.volume_id)):
            raise VolumeExists(wanted.volume_id, domain.domain_id)
        if wanted.parent_id and wanted.format is not VolumeFormat.COW:
            raise InvalidVolume(wanted.volume_id, "a volume with a parent must be COW")

    async def _undo_create(self, domain: Domain, wanted: NewVolume, clone: bool) -> list[Recovery]:
        image_id, volume_id = wanted.image_id, wanted.volume_id
        steps = []
        if not await domain.io.exists(domain.image_path(image_id)):
            steps.append(recoveries.image_rollback(domain, image_id))
        if wanted.parent_id and not clone:
            steps.append(recoveries.parent_rollback(domain, image_id, wanted.parent_id))
        if clone and not await domain.io.exists(domain.volume_path(image_id, wanted.parent_id)):
            steps.append(recoveries.share_rollback(domain, image_id, wanted.parent_id))
        steps.append(recoveries.sentinel())
        steps.append(recoveries.halfbaked_rollback(domain, image_id, volume_id))
        steps.append(recoveries.metadata_rollback(domain, image_id, volume_id))
        return steps

    async def _share_template(self, domain: Domain, source_image_id: str, wanted: NewVolume) -> None:
        template = await domain.read_volume(source_image_id, wanted.parent_id)
        if template.role is VolumeRole.LEAF and not template.has_parent:
            await domain.write_volume(source_image_id, wanted.parent_id, replace(template, role=VolumeRole.SHARED))
        if not await domain.io.exists(domain.volume_path(wanted.image_id, wanted.parent_id)):
            await domain.share_volume(source_image_id, wanted.parent_id, wanted.image_id)

    async def _delete_one(self, task: Task, domain: Domain, image_id: str, volume_id: str, *, force: bool) -> None:
        metadata = await domain.read_volume(image_id, volume_id)
        if metadata.role is VolumeRole.SHARED and not force:
            raise VolumeShared(volume_id)
        steps = [recoveries.parent_rollback(domain, image_id, metadata.parent_id)] if metadata.has_parent else []
        await task.will_undo(*steps, recoveries.halfbaked_rollback(domain, image_id, volume_id))
        await domain.delete_volume(image_id, volume_id, force=force)
        DELETE_REMOVED.reach()


def _changing(domain: Domain, image_id: str, also: Sequence[Lock] = ()) -> list[Lock]:
    return [locks.domain(domain.domain_id, Mode.SHARED), locks.image(domain.domain_id, image_id), *also]


async def _grow(domain: Domain, image_id: str, volume_id: str, size: int, allocation: Allocation) -> None:
    path = domain.volume_path(image_id, volume_id)
    if allocation is Allocation.PREALLOCATED:
        end = (await domain.volume_sizes(image_id, volume_id)).apparent
        await domain.io.allocate(path, size, offset=end, timeout_s=domain.io.timeout_s)
    else:
        await domain.io.truncate(path, size)
