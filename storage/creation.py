# SPDX-License-Identifier: GPL-2.0-or-later
"""A volume made, on whatever kind of domain, in the order that every SPM of the field can take up.

Image, link of the template, payload, parent made internal, format, metadata, which makes the volume visible, and last
the lease: the field's own steps back know payload and metadata only (storage.md 11.3). Who asked is told before
each step and undoes them when the volume does not come to be.
"""

from __future__ import annotations

from dataclasses import replace

from storage.errors import InvalidVolume, VolumeExists, VolumeNotShared
from storage.new_volume import Before, CreateStep, NewVolume, Progress
from storage.ondisk import volume_metadata
from storage.ondisk.values import Legality, VolumeFormat, VolumeRole
from storage.ondisk.volume_metadata import MAX_CAPACITY, VolumeMetadata
from storage.tasks.record import Recovery
from storage.volume_parts import VolumeParts
from vdsm.common.crashpoints import crash_point
from vdsm.common.ids import BLANK_UUID
from vdsm.common.units import round_up

CAPACITY_UNIT = 4096

FOLDER_MADE = crash_point("volume.create.folder", "the image's folder exists, the payload does not")
SHARED = crash_point("volume.create.share", "the template is linked into the image, no volume is made")
PAYLOAD_MADE = crash_point("volume.create.payload", "the payload exists, the parent is unchanged")
PARENT_MARKED = crash_point("volume.create.parent", "the parent is internal, the payload has no format")
FORMATTED = crash_point("volume.create.format", "the payload has its format, there is no metadata")
METADATA_WRITTEN = crash_point("volume.create.metadata", "the volume is visible, there is no lease")
LEASE_WRITTEN = crash_point("volume.create.lease", "the volume is there")


async def create(
    parts: VolumeParts, wanted: NewVolume, before: Before | None, progress: Progress | None
) -> VolumeMetadata:
    """See `VolumeStore.create`."""
    told = before or _nobody
    parts.check_writable()
    new_image = not await parts.has_image(wanted.image_id)
    if not new_image and not await parts.is_free(wanted.image_id, wanted.volume_id):
        raise VolumeExists(wanted.volume_id, parts.domain_id)
    parent = await _parent(parts, wanted)
    metadata = _metadata(parts, wanted, parent)
    volume_metadata.encode(metadata, parts.version)  # whatever it refuses is refused before anything is made
    if new_image:
        await told(*await parts.undo(CreateStep.FOLDER, wanted))
        await parts.make_image(wanted.image_id)
    FOLDER_MADE.reach()
    if parent is not None and wanted.is_clone:
        await _share_template(parts, wanted, parent, told)
        SHARED.reach()
    await _make(parts, wanted, metadata, parent, told, progress)
    return metadata


async def _make(
    parts: VolumeParts,
    wanted: NewVolume,
    metadata: VolumeMetadata,
    parent: VolumeMetadata | None,
    told: Before,
    progress: Progress | None,
) -> None:
    image_id, volume_id = wanted.image_id, wanted.volume_id
    await told(*await parts.undo(CreateStep.PAYLOAD, wanted))
    await parts.make_payload(image_id, volume_id)
    PAYLOAD_MADE.reach()
    if parent is not None and parent.role is not VolumeRole.SHARED and not wanted.is_clone:
        await told(*await parts.undo(CreateStep.PARENT, wanted))
        if parent.role is VolumeRole.LEAF:
            internal = replace(parent, role=VolumeRole.INTERNAL)
            await parts.write(image_id, wanted.parent_id, internal, expect_generation=parent.generation)
    PARENT_MARKED.reach()
    await parts.format_payload(volume_id, metadata, parent, progress)
    FORMATTED.reach()
    await told(*await parts.undo(CreateStep.METADATA, wanted))
    await parts.write(image_id, volume_id, metadata)
    METADATA_WRITTEN.reach()
    await parts.make_lease(image_id, volume_id)
    LEASE_WRITTEN.reach()


async def _share_template(parts: VolumeParts, wanted: NewVolume, template: VolumeMetadata, told: Before) -> None:
    """That a base becomes shared is not undone: it may be used by others from then on."""
    source_id, template_id = wanted.source_image_id, wanted.parent_id
    if template.role is not VolumeRole.SHARED:
        shared = replace(template, role=VolumeRole.SHARED)
        await parts.write(source_id, template_id, shared, expect_generation=template.generation)
    if template_id not in await parts.of_image(wanted.image_id):
        await told(*await parts.undo(CreateStep.SHARE, wanted))
        await parts.share(source_id, template_id, wanted.image_id)


async def _parent(parts: VolumeParts, wanted: NewVolume) -> VolumeMetadata | None:
    if wanted.parent_id in ("", BLANK_UUID):
        return None
    parent = await parts.read(wanted.source_image_id or wanted.image_id, wanted.parent_id)
    if parent.legality is Legality.ILLEGAL:
        raise InvalidVolume(wanted.volume_id, f"its parent {wanted.parent_id} is illegal")
    # A parent of the same image may have a child already: an image that is previewed has two leaves.
    if wanted.is_clone and parent.role is not VolumeRole.SHARED and parent.has_parent:
        raise VolumeNotShared(wanted.parent_id)
    return parent


def _metadata(parts: VolumeParts, wanted: NewVolume, parent: VolumeMetadata | None) -> VolumeMetadata:
    capacity = round_up(wanted.capacity, CAPACITY_UNIT)
    if not 0 < capacity <= MAX_CAPACITY:
        raise InvalidVolume(wanted.volume_id, f"its capacity is {wanted.capacity} bytes")
    if parent is not None and wanted.format is not VolumeFormat.COW:
        raise InvalidVolume(wanted.volume_id, "a volume on top of another must be COW")
    if parent is not None and capacity < parent.capacity:
        raise InvalidVolume(wanted.volume_id, f"its capacity {capacity} is below its parent's {parent.capacity}")
    parts.check_size(wanted, capacity)
    return VolumeMetadata(
        domain_id=parts.domain_id,
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


async def _nobody(*_steps_back: Recovery) -> None:
    return
