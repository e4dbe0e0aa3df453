# SPDX-License-Identifier: GPL-2.0-or-later
"""Stored steps back of volumes on files: their parameters are paths (storage.md 11.3)."""

from __future__ import annotations

from collections.abc import Mapping

from storage.file.files import DomainFiles
from storage.new_volume import CreateStep, NewVolume
from storage.tasks.record import Recovery
from storage.tasks.steps import HALFBAKED, SENTINEL, Read, by_ids, by_path, parent_rollback

OWNERS = ("fileVolume.FileVolume", "glusterVolume.GlusterVolume")


def undo(files: DomainFiles, step: CreateStep, wanted: NewVolume) -> tuple[Recovery, ...]:
    image_id, volume_id = wanted.image_id, wanted.volume_id
    match step:
        case CreateStep.FOLDER:
            name, params = f"create image rollback: {image_id}", (files.image(image_id),)
            return (Recovery(name, "sd", "StorageDomain", "create_image_rollback", params),)
        case CreateStep.SHARE:
            link = files.volume(image_id, wanted.parent_id)
            return (_step(f"Share volume rollback: {link}", "shareVolumeRollback", link),)
        case CreateStep.PAYLOAD:
            marker = _step(SENTINEL, "startCreateVolumeRollback", files.domain_id, image_id, volume_id)
            return marker, halfbaked(files, image_id, volume_id)
        case CreateStep.PARENT:
            return (parent_rollback(files.domain_id, image_id, wanted.parent_id),)
        case CreateStep.METADATA:
            path = files.volume(image_id, volume_id)
            return (_step("Create volume metadata rollback", "createVolumeMetadataRollback", path),)


def halfbaked(files: DomainFiles, image_id: str, volume_id: str) -> Recovery:
    path = files.volume(image_id, volume_id)
    return _step(HALFBAKED, "halfbakedVolumeRollback", files.domain_id, volume_id, path)


def created(files: DomainFiles, pool_folder: str, image_id: str, volume_id: str, ctime: int) -> Recovery:
    """``ctime``: the volume's: a later one of this id is another volume."""
    params = (pool_folder, files.domain_id, image_id, volume_id, files.image(image_id))
    name = "Create volume rollback"
    return Recovery(name, "fileVolume", "FileVolume", "createVolumeRollback", params, made=str(ctime))


def _step(name: str, function: str, *params: str) -> Recovery:
    return Recovery(name, "fileVolume", "FileVolume", function, params)


def _readers() -> Mapping[str, Read]:
    of_volume = by_path(1, parts=3)
    functions = {
        "shareVolumeRollback": of_volume,
        "halfbakedVolumeRollback": by_path(1, 3, parts=3),
        "createVolumeMetadataRollback": of_volume,
        "createVolumeRollback": by_ids(1, 5),
    }
    return {f"{owner}.{function}": read for owner in OWNERS for function, read in functions.items()}


READERS = _readers()
