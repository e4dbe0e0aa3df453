# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes of a file domain: made, shared, removed, in the order that every SPM of the field can take up.

Making: folder, payload, parent made internal, format, metadata, which makes the volume visible, and last the lease: the
field's own steps back know payload and metadata only (storage.md 11.3). Who asked is told before each step
and undoes them when the volume does not come to be.

Removing: marked illegal, lease, metadata, parent back to leaf, payload. Until the metadata goes it is an
illegal volume that can be deleted again; from then on nothing but a payload that no listing shows. So a crash
leaves no half volume in any listing; `garbage` removes what no metadata claims.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from storage import qemu_img
from storage.domain import Before, CreateStep, NewVolume, Progress
from storage.errors import (
    DAMAGED,
    ImageNotFound,
    InvalidVolume,
    IoFailed,
    VolumeExists,
    VolumeHasChildren,
    VolumeNotFound,
    VolumeNotShared,
    VolumeShared,
)
from storage.file.files import IMAGES, LEASE, META, NEW, REMOVED_PREFIX, DomainFiles
from storage.ondisk import volume_metadata
from storage.ondisk.values import Allocation, FormatVersion, Legality, VolumeFormat, VolumeRole
from storage.ondisk.volume_metadata import MAX_CAPACITY, VolumeMetadata
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import InvalidParameter
from vdsm.common.ids import BLANK_UUID
from vdsm.common.units import round_up

log = logging.getLogger("vdsm.storage.volumes")

CAPACITY_UNIT = 4096
FIRST_BLOCK = 4096
ALLOCATE_SILENCE_S = 60.0
FILE_MODE = 0o660

FOLDER_MADE = crash_point("volume.create.folder", "the image's folder exists, the payload does not")
SHARED = crash_point("volume.create.share", "the template is linked into the image, no volume is made")
PAYLOAD_MADE = crash_point("volume.create.payload", "the payload exists, the parent is unchanged")
PARENT_MARKED = crash_point("volume.create.parent", "the parent is internal, the payload has no format")
FORMATTED = crash_point("volume.create.format", "the payload has its format, there is no metadata")
METADATA_WRITTEN = crash_point("volume.create.metadata", "the volume is visible, there is no lease")
LEASE_WRITTEN = crash_point("volume.create.lease", "the volume is there")

MARKED_ILLEGAL = crash_point("volume.delete.illegal", "the volume is marked illegal, still there")
LEASE_REMOVED = crash_point("volume.delete.lease", "the volume is illegal and has no lease")
METADATA_REMOVED = crash_point("volume.delete.metadata", "the volume is gone, the parent is unchanged")
PARENT_FREED = crash_point("volume.delete.parent", "the parent is a leaf, the payload is left")
PAYLOAD_REMOVED = crash_point("volume.delete.payload", "nothing is left")

IMAGE_RENAMED = crash_point("image.delete.rename", "the image is gone, its files are left")


async def create(files: DomainFiles, wanted: NewVolume, before: Before, progress: Progress | None) -> VolumeMetadata:
    """Raises `VolumeExists`, `InvalidVolume`, `VolumeNotFound` (of the parent), `VolumeNotShared`,
    `DescriptionTooLong`: all of them before the first step.
    """
    files.check_writable()
    new_image = not await files.io.exists(files.image(wanted.image_id))
    if not new_image:
        await _check_free(files, wanted)
    parent = await _parent(files, wanted)
    metadata = _metadata(files, wanted, parent)
    volume_metadata.encode(metadata)  # whatever it refuses is refused before anything is made
    if new_image:
        await before(CreateStep.FOLDER)
        await files.io.make_folders(files.image(wanted.image_id))
    FOLDER_MADE.reach()
    if parent is not None and _is_clone(wanted):
        await _share_template(files, wanted, parent, before)
        SHARED.reach()
    await _make(files, wanted, metadata, parent, before, progress)
    return metadata


async def _make(
    files: DomainFiles,
    wanted: NewVolume,
    metadata: VolumeMetadata,
    parent: VolumeMetadata | None,
    before: Before,
    progress: Progress | None,
) -> None:
    image_id, volume_id = wanted.image_id, wanted.volume_id
    path = files.volume(image_id, volume_id)
    await _remove_files(files, image_id, volume_id)  # a lease or new metadata left by a crash: nothing claims them
    await before(CreateStep.PAYLOAD)
    try:
        await files.io.create(path, mode=FILE_MODE)
    except IoFailed as e:
        if e.error == "EEXIST":
            raise VolumeExists(volume_id, files.domain_id) from e
        raise
    PAYLOAD_MADE.reach()
    if parent is not None and parent.role is not VolumeRole.SHARED and not _is_clone(wanted):
        await before(CreateStep.PARENT)
        if parent.role is VolumeRole.LEAF:
            await files.write_volume(image_id, wanted.parent_id, replace(parent, role=VolumeRole.INTERNAL))
    PARENT_MARKED.reach()
    if wanted.format is VolumeFormat.RAW:
        await _format_raw(files, path, metadata, progress)
    else:
        await _format_cow(files, path, metadata, parent, progress)
    FORMATTED.reach()
    await before(CreateStep.METADATA)
    await files.write_volume(image_id, volume_id, metadata)
    METADATA_WRITTEN.reach()
    if files.leases.on_storage:
        await files.io.create(files.volume(image_id, volume_id, LEASE), mode=FILE_MODE)
        await files.leases.format_lease(files.volume_lease(image_id, volume_id))
    LEASE_WRITTEN.reach()


async def _check_free(files: DomainFiles, wanted: NewVolume) -> None:
    """Undoing the creation would remove an older volume of this name, or what is left of one."""
    for suffix in ("", META):
        if await files.io.exists(files.volume(wanted.image_id, wanted.volume_id, suffix)):
            raise VolumeExists(wanted.volume_id, files.domain_id)


def _is_clone(wanted: NewVolume) -> bool:
    return wanted.source_image_id not in ("", wanted.image_id)


async def _share_template(files: DomainFiles, wanted: NewVolume, template: VolumeMetadata, before: Before) -> None:
    """That a base becomes shared is not undone: it may be used by others from then on."""
    source_id, template_id = wanted.source_image_id, wanted.parent_id
    if template.role is not VolumeRole.SHARED:
        await files.write_volume(source_id, template_id, replace(template, role=VolumeRole.SHARED))
    if not await files.io.exists(files.volume(wanted.image_id, template_id, META)):
        await before(CreateStep.SHARE)
        await share(files, source_id, template_id, wanted.image_id)


async def _format_raw(files: DomainFiles, path: str, metadata: VolumeMetadata, progress: Progress | None) -> None:
    """The first block is there in every raw volume: QEMU finds out by it how it may read (storage.md 16.1)."""
    await files.io.write_direct(path, bytes(FIRST_BLOCK), offset=0)
    if metadata.allocation is Allocation.PREALLOCATED:
        # not made longer before: where space can't be reserved, only what is behind the end is written
        await _allocate(files, path, FIRST_BLOCK, metadata.capacity, progress)
    else:
        await files.io.truncate(path, metadata.capacity)


async def _format_cow(
    files: DomainFiles,
    path: str,
    metadata: VolumeMetadata,
    parent: VolumeMetadata | None,
    progress: Progress | None,
) -> None:
    await qemu_img.create(
        path,
        metadata.capacity,
        VolumeFormat.COW,
        mount=files.io.mount,
        compat="1.1" if files.version >= FormatVersion.V4 else "0.10",
        backing=None if parent is None else (metadata.parent_id, parent.format),
    )
    await files.io.chmod(path, FILE_MODE)
    if metadata.allocation is Allocation.PREALLOCATED:
        made = await qemu_img.check(path, VolumeFormat.COW, mount=files.io.mount, timeout_s=qemu_img.SHORT_S)
        end = made.image_end_offset or (await files.io.status(path)).size
        await _allocate(files, path, round_up(end, FIRST_BLOCK), metadata.capacity, progress)


async def _allocate(files: DomainFiles, path: str, begin: int, end: int, progress: Progress | None) -> None:
    if begin < end:
        await files.io.allocate(path, end, offset=begin, timeout_s=ALLOCATE_SILENCE_S, progress=progress)


async def _parent(files: DomainFiles, wanted: NewVolume) -> VolumeMetadata | None:
    if wanted.parent_id in ("", BLANK_UUID):
        return None
    parent = await files.read_volume(wanted.source_image_id or wanted.image_id, wanted.parent_id)
    if parent.legality is Legality.ILLEGAL:
        raise InvalidVolume(wanted.volume_id, f"its parent {wanted.parent_id} is illegal")
    # A parent of the same image may have a child already: an image that is previewed has two leaves.
    if _is_clone(wanted) and parent.role is not VolumeRole.SHARED and parent.has_parent:
        raise VolumeNotShared(wanted.parent_id)
    return parent


def _metadata(files: DomainFiles, wanted: NewVolume, parent: VolumeMetadata | None) -> VolumeMetadata:
    capacity = round_up(wanted.capacity, CAPACITY_UNIT)
    if not 0 < capacity <= MAX_CAPACITY:
        raise InvalidVolume(wanted.volume_id, f"its capacity is {wanted.capacity} bytes")
    if parent is not None and wanted.format is not VolumeFormat.COW:
        raise InvalidVolume(wanted.volume_id, "a volume on top of another must be COW")
    if parent is not None and capacity < parent.capacity:
        raise InvalidVolume(wanted.volume_id, f"its capacity {capacity} is below its parent's {parent.capacity}")
    _check_initial_size(wanted, capacity)
    return VolumeMetadata(
        domain_id=files.domain_id,
        image_id=wanted.image_id,
        parent_id=wanted.parent_id or BLANK_UUID,
        capacity=capacity,
        format=wanted.format,
        allocation=wanted.allocation,
        role=VolumeRole.LEAF,
        disk_type=wanted.disk_type,
        description=volume_metadata.check_description(wanted.description),
        legality=Legality.LEGAL if wanted.legal else Legality.ILLEGAL,
        ctime=volume_metadata.now_ctime(),
        sequence=wanted.sequence,
    )


def _check_initial_size(wanted: NewVolume, capacity: int) -> None:
    """On files it never changes what is made; which ones are taken is the field's rule (storage.md 16.1)."""
    if wanted.initial_size is None:
        return
    if wanted.format is VolumeFormat.COW:
        if wanted.initial_size != 0:
            raise InvalidParameter("initialSize", str(wanted.initial_size), "a COW volume on files takes none but 0")
    elif wanted.allocation is not Allocation.PREALLOCATED:
        raise InvalidParameter("initialSize", str(wanted.initial_size), "a sparse RAW volume takes none")
    elif not 0 <= wanted.initial_size <= capacity:
        raise InvalidParameter("initialSize", str(wanted.initial_size), f"it is not within the capacity {capacity}")


async def share(files: DomainFiles, source_image_id: str, volume_id: str, target_image_id: str) -> None:
    """Hard links in the target image; the metadata's link, which makes it visible there, last."""
    files.check_writable()
    metadata = await files.read_volume(source_image_id, volume_id)
    if metadata.role is not VolumeRole.SHARED:
        raise VolumeNotShared(volume_id)
    await files.io.make_folders(files.image(target_image_id))
    for suffix in ("", LEASE, META) if files.leases.on_storage else ("", META):
        source = files.volume(source_image_id, volume_id, suffix)
        await files.io.relink(source, files.volume(target_image_id, volume_id, suffix))


async def delete(files: DomainFiles, image_id: str, volume_id: str, *, force: bool) -> None:
    """Raises `VolumeNotFound`, `VolumeShared`, `VolumeHasChildren`. Damaged metadata does not keep a volume."""
    files.check_writable()
    try:
        metadata: VolumeMetadata | None = await files.read_volume(image_id, volume_id)
    except DAMAGED as e:
        log.warning("deleting volume %s whose metadata is damaged: %s", volume_id, e)
        metadata = None
    if not force:
        await _check_deletable(files, image_id, volume_id, metadata)
    if metadata is not None and metadata.role is not VolumeRole.SHARED:
        await files.write_volume(image_id, volume_id, replace(metadata, legality=Legality.ILLEGAL))
    MARKED_ILLEGAL.reach()
    await files.io.remove(files.volume(image_id, volume_id, LEASE))
    LEASE_REMOVED.reach()
    await files.io.remove(files.volume(image_id, volume_id, META))
    METADATA_REMOVED.reach()
    if metadata is not None and metadata.has_parent:
        await free_parent(files, image_id, metadata.parent_id)
    PARENT_FREED.reach()
    await files.remove_payload(image_id, volume_id)
    PAYLOAD_REMOVED.reach()


async def _check_deletable(files: DomainFiles, image_id: str, volume_id: str, metadata: VolumeMetadata | None) -> None:
    """Also of a volume with damaged metadata: who is based on it stands in the metadata of the others."""
    if metadata is not None and metadata.role is VolumeRole.SHARED:
        raise VolumeShared(volume_id)
    children = await files.children(image_id, volume_id)
    if children:
        raise VolumeHasChildren(volume_id, children)


async def free_parent(files: DomainFiles, image_id: str, parent_id: str) -> bool:
    """Make an internal volume without children a leaf again; True when it was one."""
    try:
        parent = await files.read_volume(image_id, parent_id)
        if parent.role is not VolumeRole.INTERNAL or await files.children(image_id, parent_id):
            return False
    except (VolumeNotFound, *DAMAGED):
        return False
    await files.write_volume(image_id, parent_id, replace(parent, role=VolumeRole.LEAF))
    return True


async def delete_image(files: DomainFiles, image_id: str) -> None:
    """Raises `ImageNotFound`, `VolumeShared` while another image uses a template of this one.

    One that was cut off after the renaming is gone on with by `purge_image`.
    """
    files.check_writable()
    volumes = await files.image_volumes(image_id)
    for volume_id in volumes:
        if await _is_own_template(files, image_id, volume_id, alone=len(volumes) == 1):
            users = [i for i, v in (await files.list_volumes()).items() if i != image_id and volume_id in v]
            if users:
                raise VolumeShared(volume_id)
    removed = files.place(IMAGES, REMOVED_PREFIX + image_id)
    try:
        await files.io.discard(removed)  # of an earlier image of that name
        await files.io.rename(files.image(image_id), removed)
    except IoFailed as e:
        if e.error == "ENOENT":
            raise ImageNotFound(image_id, files.domain_id) from e
        raise
    IMAGE_RENAMED.reach()
    await files.io.discard(removed)


async def removed_images(files: DomainFiles) -> list[str]:
    names = await files.io.list_folder(files.place(IMAGES))
    return [name.removeprefix(REMOVED_PREFIX) for name in names if name.startswith(REMOVED_PREFIX)]


async def purge_image(files: DomainFiles, removed: str) -> bool:
    """False when nothing is left of it. ``removed``: as `removed_images` names it."""
    files.check_writable()
    if removed not in await removed_images(files):
        return False
    await files.io.discard(files.place(IMAGES, REMOVED_PREFIX + removed))
    return True


async def _is_own_template(files: DomainFiles, image_id: str, volume_id: str, *, alone: bool) -> bool:
    """A shared volume of this image, not a link to another's. ``alone``: it is the image's only volume."""
    try:
        metadata = await files.read_volume(image_id, volume_id)
    except DAMAGED as e:
        log.warning("image %s has damaged metadata: %s", image_id, e)
        return alone  # a clone has at least one volume beside the link to its template
    return metadata.role is VolumeRole.SHARED and metadata.image_id == image_id


async def _remove_files(files: DomainFiles, image_id: str, volume_id: str) -> None:
    for suffix in (LEASE, META + NEW):
        await files.io.remove(files.volume(image_id, volume_id, suffix))
