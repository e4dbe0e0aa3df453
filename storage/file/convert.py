# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of `storage.conversion` on files."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from storage import conversion
from storage.conversion import Step
from storage.domain import ChangeFields
from storage.errors import DAMAGED, StorageError
from storage.file.create import FILE_MODE, write_index
from storage.file.files import DomainFiles
from storage.file.volumes import FileVolumes
from storage.ondisk import volume_metadata
from storage.ondisk.domain_fields import geometry_fields
from storage.ondisk.volume_metadata import VolumeMetadata

log = logging.getLogger("vdsm.storage.convert")

XLEASES = "dom_md/xleases"

Change = Callable[[ChangeFields], Awaitable[object]]


async def take_step(step: Step, files: DomainFiles, store: FileVolumes, change: Change) -> None:
    """``change``: of the domain's metadata, in one write."""
    if step is Step.EXTERNAL_LEASES:
        if files.leases.on_storage:
            await _make_index(files)
        conversion.LEASES_MADE.reach()
    elif step is Step.VERSION_4:
        await change(lambda _: {"VERSION": "4"})
        conversion.VERSION_4.reach()
    elif step is Step.BOTH_CAPACITIES:
        async for image_id, volume_id, metadata in _own_volumes(store):
            await store.replace(image_id, volume_id, metadata.role, volume_metadata.encode_between(metadata))
        conversion.BOTH_STATED.reach()
    elif step is Step.VERSION_5:
        await change(lambda _: _version_5(files))
        conversion.VERSION_5.reach()
    else:
        await _tidy(files, store)
        conversion.DONE.reach()


def _version_5(files: DomainFiles) -> dict[str, str | None]:
    geometry = geometry_fields(files.block_size, files.alignment)
    return {"VERSION": "5", **geometry, "LOGBLKSIZE": None, "PHYBLKSIZE": None}


async def _make_index(files: DomainFiles) -> None:
    """No lease of a later version can be in it yet, so what an earlier conversion left goes: a write of that one which
    the server carries out late lands in a file that nobody has any more, never over leases."""
    path = files.place(XLEASES)
    await files.io.remove(path)
    await files.io.create(path, mode=FILE_MODE)
    await write_index(files)


async def _tidy(files: DomainFiles, store: FileVolumes) -> None:
    try:
        async for image_id, volume_id, metadata in _own_volumes(store):
            await store.write(image_id, volume_id, metadata)
    except StorageError as e:  # what is left is as readable
        log.warning("domain %s: some volumes go on stating their size in two ways: %s", files.domain_id, e)


async def _own_volumes(store: FileVolumes) -> AsyncIterator[tuple[str, str, VolumeMetadata]]:
    """Each volume once: a template by its own image. Damaged ones are told and passed over."""
    by_image = await store.by_image()
    for image_id, volume_ids in sorted(by_image.items()):
        for volume_id in volume_ids:
            try:
                metadata = await store.read(image_id, volume_id)
            except DAMAGED as e:
                log.warning("volume %s of image %s stays as it is: %s", volume_id, image_id, e)
                continue
            if metadata.image_id == image_id or volume_id not in by_image.get(metadata.image_id, ()):
                yield image_id, volume_id, metadata
