# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes and images removed, on whatever kind of domain, so that no crash leaves half a volume in a listing.

A volume: marked illegal, lease, hidden, parent back to leaf, the rest. Until it is hidden it is an illegal volume
that can be deleted again; from then on nothing but what no listing shows, which `collect_garbage` removes.

An image: hidden as a whole, then purged.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from storage.domain import VolumeStore
from storage.errors import DAMAGED, VolumeHasChildren, VolumeNotFound, VolumeShared
from storage.ondisk.values import Legality, VolumeRole
from storage.ondisk.volume_metadata import VolumeMetadata
from storage.volume_parts import VolumeParts
from vdsm.common.crashpoints import crash_point

log = logging.getLogger("vdsm.storage.volumes")

MARKED_ILLEGAL = crash_point("volume.delete.illegal", "the volume is marked illegal, still there")
LEASE_REMOVED = crash_point("volume.delete.lease", "the volume is illegal and has no lease")
METADATA_REMOVED = crash_point("volume.delete.metadata", "the volume is gone, the parent is unchanged")
PARENT_FREED = crash_point("volume.delete.parent", "the parent is a leaf, the payload is left")
PAYLOAD_REMOVED = crash_point("volume.delete.payload", "nothing is left")

IMAGE_RENAMED = crash_point("image.delete.rename", "the image is gone, its files are left")


async def delete(parts: VolumeParts, image_id: str, volume_id: str, *, force: bool) -> None:
    """See `VolumeStore.delete`."""
    parts.check_writable()
    try:
        metadata: VolumeMetadata | None = await parts.read(image_id, volume_id)
    except DAMAGED as e:
        log.warning("deleting volume %s whose metadata is damaged: %s", volume_id, e)
        metadata = None
    if not force:
        await _check_deletable(parts, image_id, volume_id, metadata)
    if metadata is not None and metadata.role is not VolumeRole.SHARED:
        illegal = replace(metadata, legality=Legality.ILLEGAL)
        await parts.write(image_id, volume_id, illegal, expect_generation=metadata.generation)
    MARKED_ILLEGAL.reach()
    await parts.remove_lease(image_id, volume_id)
    LEASE_REMOVED.reach()
    await parts.hide(image_id, volume_id)
    METADATA_REMOVED.reach()
    if metadata is not None and metadata.has_parent:
        await free_parent(parts, image_id, metadata.parent_id)
    PARENT_FREED.reach()
    await parts.remove_rest(image_id, volume_id)
    PAYLOAD_REMOVED.reach()


async def _check_deletable(parts: VolumeParts, image_id: str, volume_id: str, metadata: VolumeMetadata | None) -> None:
    """Also of a volume with damaged metadata: who is based on it stands in the metadata of the others."""
    if metadata is not None and metadata.role is VolumeRole.SHARED:
        raise VolumeShared(volume_id)
    children = await parts.children(image_id, volume_id)
    if children:
        raise VolumeHasChildren(volume_id, children)


async def free_parent(store: VolumeStore, image_id: str, parent_id: str) -> bool:
    """Make an internal volume without children a leaf again; True when it was one."""
    try:
        parent = await store.read(image_id, parent_id)
        if parent.role is not VolumeRole.INTERNAL or await store.children(image_id, parent_id):
            return False
    except (VolumeNotFound, *DAMAGED):
        return False
    await store.write(image_id, parent_id, replace(parent, role=VolumeRole.LEAF), expect_generation=parent.generation)
    return True


async def delete_image(parts: VolumeParts, image_id: str) -> None:
    """See `VolumeStore.delete_image`. One that was cut off after the hiding is gone on with by `purge`."""
    parts.check_writable()
    volumes = await parts.of_image(image_id)
    for volume_id in volumes:
        if await _is_own_template(parts, image_id, volume_id, alone=len(volumes) == 1):
            users = [i for i, v in (await parts.by_image()).items() if i != image_id and volume_id in v]
            if users:
                raise VolumeShared(volume_id)
    await parts.hide_image(image_id)
    IMAGE_RENAMED.reach()
    await parts.purge(image_id)


async def _is_own_template(parts: VolumeParts, image_id: str, volume_id: str, *, alone: bool) -> bool:
    """A shared volume of this image, not a link to another's. ``alone``: it is the image's only volume."""
    try:
        metadata = await parts.read(image_id, volume_id)
    except DAMAGED as e:
        log.warning("image %s has damaged metadata: %s", image_id, e)
        return alone  # a clone has at least one volume beside the link to its template
    return metadata.role is VolumeRole.SHARED and metadata.image_id == image_id


async def mend_parents(store: VolumeStore, image_id: str) -> list[str]:
    """Internal volumes of an image that have no children any more, made leaves."""
    mended = []
    for volume_id in await store.of_image(image_id):
        if await free_parent(store, image_id, volume_id):
            mended.append(volume_id)
    return mended
