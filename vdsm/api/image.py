# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of Image: whole chains of volumes."""

from __future__ import annotations

from typing import Any

from msgspec import field

from storage.holders import PREPARE
from storage.images import VolumePath
from vdsm.api import storage_types as wire
from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, Params, TaskId, Uuid, WireBool


class ImageId(Params):
    image_id: Uuid = field(name="imageID")
    pool_id: Uuid = field(name="storagepoolID")
    domain_id: Uuid = field(name="storagedomainID")


class ImageDelete(Params):
    image_id: Uuid = field(name="imageID")
    pool_id: Uuid = field(name="storagepoolID")
    domain_id: Uuid = field(name="storagedomainID")
    post_zero: WireBool = field(name="postZero", default=False)
    force: WireBool = False
    discard: WireBool = False


@verb("Image.delete", role=Role.ADMIN, kind="task")
async def image_delete(call: Call, params: ImageDelete) -> TaskId:
    """Remove an image with all its volumes. ``postZero`` means nothing on files. For the SPM."""
    ids = {"domain_id": params.domain_id, "image_id": params.image_id}
    wire.refuse_discard(params.domain_id, params.discard)
    call.agent.storage.pool.require(params.pool_id)
    answer: str = await call.agent.storage.pool.call_spm("image.delete", {**ids, "force": params.force})
    return answer


class VolumesDelete(Params):
    image_id: Uuid = field(name="imageID")
    pool_id: Uuid = field(name="storagepoolID")
    domain_id: Uuid = field(name="storagedomainID")
    volume_ids: list[Uuid] = field(name="volumeList")
    post_zero: WireBool = field(name="postZero", default=False)
    force: WireBool = False
    discard: WireBool = False


@verb("Image.deleteVolumes", role=Role.ADMIN, kind="task")
async def image_delete_volumes(call: Call, params: VolumesDelete) -> TaskId:
    """Remove the listed volumes of an image, in this order. For the SPM."""
    wire.refuse_discard(params.domain_id, params.discard)
    call.agent.storage.pool.require(params.pool_id)
    answer: str = await call.agent.storage.pool.call_spm(
        "volume.delete",
        {
            "domain_id": params.domain_id,
            "image_id": params.image_id,
            "volume_ids": params.volume_ids,
            "force": params.force,
        },
    )
    return answer


@verb("Image.getVolumes", role=Role.READER)
async def image_get_volumes(call: Call, params: ImageId) -> list[Uuid]:
    """Ids of the volumes of an image."""
    return await call.agent.storage.volumes.of_image(params.domain_id, params.image_id)


class ImagePrepare(Params):
    pool_id: Uuid = field(name="storagepoolID")
    domain_id: Uuid = field(name="storagedomainID")
    image_id: Uuid = field(name="imageID")
    volume_id: Uuid = field(name="volumeID")
    allow_illegal: WireBool = field(name="allowIllegal", default=False)


@verb("Image.prepare", role=Role.ADMIN)
async def image_prepare(call: Call, params: ImagePrepare) -> JsonDict:
    """Make a volume and all below it usable on this host until Image.teardown; ``path`` is the volume's."""
    prepared = await call.agent.storage.prepare_image(
        params.pool_id,
        params.domain_id,
        params.image_id,
        params.volume_id,
        allow_illegal=params.allow_illegal,
        consumer=PREPARE,
    )
    return {
        "path": prepared.path,
        "info": {"type": prepared.kind, "path": prepared.path},
        "imgVolumesInfo": [_shown(volume) for volume in prepared.chain],
    }


def _shown(volume: VolumePath) -> dict[str, Any]:
    told: dict[str, Any] = {
        "domainID": volume.domain_id,
        "imageID": volume.image_id,
        "volumeID": volume.volume_id,
        "path": volume.path,
    }
    if volume.lease_path is not None:
        told |= {"leasePath": volume.lease_path, "leaseOffset": volume.lease_offset}
    return told


class ImageTeardown(Params):
    pool_id: Uuid = field(name="storagepoolID")
    domain_id: Uuid = field(name="storagedomainID")
    image_id: Uuid = field(name="imageID")
    volume_id: Uuid | None = field(name="volumeID", default=None)
    leaf_id: Uuid | None = field(name="leafVolID", default=None)


@verb("Image.teardown", role=Role.ADMIN)
async def image_teardown(call: Call, params: ImageTeardown) -> None:
    """Undo Image.prepare. An image that a VM of this host uses stays prepared for it."""
    await call.agent.storage.teardown_image(params.pool_id, params.domain_id, params.image_id, consumer=PREPARE)
