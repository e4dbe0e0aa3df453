# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of Volume."""

from __future__ import annotations

from typing import Any

from msgspec import field

from storage.ondisk.values import DiskType, Legality
from storage.ondisk.volume_metadata import check_description
from storage.volumes import VolumeReport
from vdsm.api import storage_types as wire
from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, Params, Size, TaskId, Text, Uuid, WireBool, WireInt
from vdsm.common.errors import InvalidParameter
from vdsm.common.ids import BLANK_UUID, shown

MAX_SEQUENCE = (1 << 32) - 1
LEGACY_DISK_TYPES = {"1": "DATA", "2": "DATA"}


class VolumeId(Params):
    volume_id: Uuid = field(name="volumeID")
    pool_id: Uuid = field(name="storagepoolID")
    domain_id: Uuid = field(name="storagedomainID")
    image_id: Uuid = field(name="imageID")


class VolumeCreate(Params):
    volume_id: Uuid = field(name="volumeID")
    pool_id: Uuid = field(name="storagepoolID")
    domain_id: Uuid = field(name="storagedomainID")
    image_id: Uuid = field(name="imageID")
    size: Size
    volume_format: WireInt = field(name="volFormat")
    preallocate: WireInt
    disk_type: Text = field(name="diskType")
    description: Text = field(name="desc")
    source_image_id: Uuid = field(name="srcImgUUID")
    source_volume_id: Uuid = field(name="srcVolUUID")
    initial_size: Size | None = field(name="initialSize", default=None)
    add_bitmaps: WireBool = field(name="addBitmaps", default=False)
    legal: WireBool = True
    sequence: WireInt = 0
    bitmap: Uuid | None = None


@verb("Volume.create", role=Role.ADMIN, kind="task", lacks="bitmaps")
async def volume_create(call: Call, params: VolumeCreate) -> TaskId:
    """Create a volume: a new image, a child of a volume of the same image, or a clone of a template. For the SPM."""
    volume = _checked_volume(params)
    answer: str = await _spm(
        call,
        params.pool_id,
        "volume.create",
        {"domain_id": params.domain_id, "source_image_id": _or_empty(params.source_image_id), "volume": volume},
    )
    return answer


def _checked_volume(params: VolumeCreate) -> dict[str, Any]:
    """`storage.domain.NewVolume` as JSON; every wrong value is refused by its parameter's name."""
    disk_type = LEGACY_DISK_TYPES.get(params.disk_type, params.disk_type)
    if disk_type not in list(DiskType):
        raise InvalidParameter("diskType", shown(params.disk_type), f"expected one of {', '.join(DiskType)}")
    if params.size == 0:
        raise InvalidParameter("size", "0", "a volume has at least one byte")
    if params.volume_id == BLANK_UUID or params.image_id == BLANK_UUID:
        raise InvalidParameter("volumeID", BLANK_UUID, "the blank id names nothing")
    if params.add_bitmaps or params.bitmap is not None:
        raise InvalidParameter("addBitmaps", "true", "bitmaps are not supported yet")
    if params.source_volume_id == BLANK_UUID != params.source_image_id:
        raise InvalidParameter("srcVolUUID", BLANK_UUID, "a source image needs a source volume")
    wire.check_range("sequence", params.sequence, 0, MAX_SEQUENCE)
    check_description(params.description)
    return {
        "image_id": params.image_id,
        "volume_id": params.volume_id,
        "capacity": params.size,
        "format": wire.format_of("volFormat", params.volume_format).value,
        "allocation": wire.allocation_of("preallocate", params.preallocate).value,
        "disk_type": disk_type,
        "description": params.description,
        "parent_id": _or_empty(params.source_volume_id),
        "initial_size": params.initial_size,
        "legal": params.legal,
        "sequence": params.sequence,
    }


class VolumeDelete(Params):
    volume_id: Uuid = field(name="volumeID")
    pool_id: Uuid = field(name="storagepoolID")
    domain_id: Uuid = field(name="storagedomainID")
    image_id: Uuid = field(name="imageID")
    post_zero: WireBool = field(name="postZero", default=False)
    force: WireBool = False
    discard: WireBool = False


@verb("Volume.delete", role=Role.ADMIN, kind="task")
async def volume_delete(call: Call, params: VolumeDelete) -> TaskId:
    """Remove one volume that has no children. ``postZero`` means nothing on files. For the SPM."""
    wire.refuse_discard(params.domain_id, params.discard)
    answer: str = await _spm(
        call,
        params.pool_id,
        "volume.delete",
        {
            "domain_id": params.domain_id,
            "image_id": params.image_id,
            "volume_ids": [params.volume_id],
            "force": params.force,
        },
    )
    return answer


class VolumeExtend(Params):
    pool_id: Uuid = field(name="storagepoolID")
    domain_id: Uuid = field(name="storagedomainID")
    image_id: Uuid = field(name="imageID")
    volume_id: Uuid = field(name="volumeID")
    new_size: Size = field(name="newSize")


@verb("Volume.extendSize", role=Role.ADMIN, kind="task", lacks="COW volumes")
async def volume_extend_size(call: Call, params: VolumeExtend) -> TaskId:
    """Grow the virtual size of a raw volume. For the SPM."""
    answer: str = await _spm(
        call,
        params.pool_id,
        "volume.extend_size",
        {
            "domain_id": params.domain_id,
            "image_id": params.image_id,
            "volume_id": params.volume_id,
            "size": params.new_size,
        },
    )
    return answer


@verb("Volume.getInfo", role=Role.READER)
async def volume_get_info(call: Call, params: VolumeId) -> JsonDict:
    """Metadata, sizes and lease of a volume. One whose metadata cannot be read has the status INVALID."""
    return shown_volume(await call.agent.storage.volumes.report(params.domain_id, params.image_id, params.volume_id))


def shown_volume(report: VolumeReport) -> JsonDict:
    metadata = report.metadata
    identity: JsonDict = {
        "uuid": report.volume_id,
        "domain": report.domain_id,
        "image": report.image_id,
        "pool": "",
        "children": [],
    }
    if metadata is None:
        return identity | {"status": "INVALID", "apparentsize": "0", "truesize": "0", "capacity": "0"}
    lease: JsonDict = {}
    if report.lease is not None:
        known = report.lease
        lease["lease"] = {
            "path": known.lease.path,
            "offset": known.lease.offset,
            "owners": known.owners,
            "version": known.version,
        }
    return (
        identity
        | {
            "type": metadata.allocation.value,
            "format": metadata.format.value,
            "disktype": metadata.disk_type,
            "voltype": metadata.role.value,
            "capacity": str(metadata.capacity),
            "parent": metadata.parent_id,
            "description": metadata.description,
            "ctime": str(metadata.ctime),
            "mtime": "0",
            "legality": metadata.legality.value,
            "generation": metadata.generation,
            "sequence": metadata.sequence,
            "apparentsize": str(report.sizes.apparent),
            "truesize": str(report.sizes.true),
            "status": "OK" if metadata.legality is Legality.LEGAL else "ILLEGAL",
        }
        | lease
    )


@verb("Volume.getSize", role=Role.READER)
async def volume_get_size(call: Call, params: VolumeId) -> JsonDict:
    """Bytes that a volume shows and bytes that it takes."""
    sizes = await call.agent.storage.volumes.sizes(params.domain_id, params.image_id, params.volume_id)
    return {"apparentsize": str(sizes.apparent), "truesize": str(sizes.true)}


class VolumeDescription(VolumeId):
    description: Text


@verb("Volume.setDescription", role=Role.ADMIN)
async def volume_set_description(call: Call, params: VolumeDescription) -> None:
    """Set the description: at most 210 characters and bytes. For the SPM."""
    check_description(params.description)
    await _spm(call, params.pool_id, "volume.describe", {**_ids(params), "description": params.description})


class VolumeLegality(VolumeId):
    legality: Text


@verb("Volume.setLegality", role=Role.ADMIN)
async def volume_set_legality(call: Call, params: VolumeLegality) -> None:
    """Mark a volume LEGAL, or ILLEGAL so that no VM gets it. For the SPM."""
    if params.legality not in (Legality.LEGAL, Legality.ILLEGAL):
        raise InvalidParameter("legality", shown(params.legality), "expected LEGAL or ILLEGAL")
    await _spm(call, params.pool_id, "volume.set_legality", {**_ids(params), "legality": params.legality})


@verb("Volume.getQemuImageInfo", role=Role.READER)
async def volume_get_qemu_image_info(call: Call, params: VolumeId) -> JsonDict:
    """The volume as qemu sees it."""
    info = await call.agent.storage.volumes.qemu_info(params.domain_id, params.image_id, params.volume_id)
    optional = {"compat": info.compat, "backingfile": info.backing_file, "clustersize": info.cluster_size}
    return {
        "format": info.format,
        "virtualsize": info.virtual_size,
        **{key: value for key, value in optional.items() if value is not None},
    }


class VolumeMeasure(VolumeId):
    target_format: WireInt = field(name="dstVolFormat")
    backing_chain: WireBool = field(name="backing_chain", default=True)
    base_id: Uuid | None = field(name="baseID", default=None)


@verb("Volume.measure", role=Role.READER)
async def volume_measure(call: Call, params: VolumeMeasure) -> JsonDict:
    """Bytes that a copy of the volume, with all below it, would take.

    ``baseID``: of the volume and its parent, which that must be. Without ``backing_chain``: of the volume alone.
    """
    target = wire.format_of("dstVolFormat", params.target_format)
    base_id = _or_empty(params.base_id or "")
    measure = await call.agent.storage.volumes.measure(
        params.domain_id,
        params.image_id,
        params.volume_id,
        target,
        backing_chain=params.backing_chain,
        base_id=base_id,
    )
    return {"required": str(measure.required), "fully-allocated": str(measure.fully_allocated)}


@verb("Volume.refresh", role=Role.OPERATOR, lacks="block domains")
async def volume_refresh(call: Call, params: VolumeId) -> None:
    """Nothing to do for files: a file's size is what it is on every host."""


def _ids(params: VolumeId) -> dict[str, str]:
    return {"domain_id": params.domain_id, "image_id": params.image_id, "volume_id": params.volume_id}


def _or_empty(identifier: str) -> str:
    return "" if identifier == BLANK_UUID else identifier


async def _spm(call: Call, pool_id: str, spm_verb: str, params: dict[str, Any]) -> Any:
    call.agent.storage.pool.require(pool_id)
    return await call.agent.storage.pool.call_spm(spm_verb, params)
