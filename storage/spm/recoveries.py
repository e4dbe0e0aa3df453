# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps back of a task, by the names that stand in stored tasks (storage.md 11.3).

A stored task comes from shared storage, perhaps from another program: only the callables below are
known, and their paths are not followed. Each path's last parts must be ids; the path that is used is
built from them and this host's own mount. Every step back may run twice or for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from storage.domain import Domain
from storage.domains import Domains
from storage.errors import ImageNotFound, IoFailed, StorageError, VolumeNotFound
from storage.ondisk.values import VolumeRole
from storage.tasks.record import Recovery
from vdsm.common.ids import is_uuid

log = logging.getLogger("vdsm.storage.tasks")

FILE_VOLUMES = ("fileVolume.FileVolume", "glusterVolume.GlusterVolume")


class RecoveryInvalid(StorageError):
    call: str
    reason: str
    msg = "Stored step back {self.call} cannot be done: {self.reason}"


# What our own tasks store


def parent_rollback(domain: Domain, image_id: str, parent_id: str) -> Recovery:
    params = (domain.domain_id, image_id, parent_id)
    return Recovery(f"parent volume {parent_id}", "volume", "Volume", "parentVolumeRollback", params)


def image_rollback(domain: Domain, image_id: str) -> Recovery:
    params = (domain.image_path(image_id),)
    return Recovery(f"image folder {image_id}", "sd", "StorageDomain", "create_image_rollback", params)


def share_rollback(domain: Domain, image_id: str, volume_id: str) -> Recovery:
    params = (domain.volume_path(image_id, volume_id),)
    return Recovery(f"shared link {volume_id}", "fileVolume", "FileVolume", "shareVolumeRollback", params)


def sentinel() -> Recovery:
    return Recovery("rollback sentinel", "fileVolume", "FileVolume", "startCreateVolumeRollback")


def halfbaked_rollback(domain: Domain, image_id: str, volume_id: str) -> Recovery:
    params = (domain.domain_id, volume_id, domain.volume_path(image_id, volume_id))
    return Recovery(f"half made volume {volume_id}", "fileVolume", "FileVolume", "halfbakedVolumeRollback", params)


def metadata_rollback(domain: Domain, image_id: str, volume_id: str) -> Recovery:
    params = (domain.volume_path(image_id, volume_id),)
    return Recovery(f"metadata of {volume_id}", "fileVolume", "FileVolume", "createVolumeMetadataRollback", params)


def volume_rollback(domain: Domain, repository: str, image_id: str, volume_id: str) -> Recovery:
    params = (repository, domain.domain_id, image_id, volume_id, domain.image_path(image_id))
    return Recovery(f"volume {volume_id}", "fileVolume", "FileVolume", "createVolumeRollback", params)


def size_finalize(domain: Domain, image_id: str, volume_id: str) -> Recovery:
    params = (domain.domain_id, image_id, volume_id)
    return Recovery(f"size of {volume_id}", "volume", "Volume", "extendSizeFinalize", params)


class Recoveries:
    """Runs stored steps back on the domains of this process."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._calls: dict[str, Callable[[Recovery], Awaitable[None]]] = {
            "sd.StorageDomain.create_image_rollback": self._image,
            "volume.Volume.parentVolumeRollback": self._parent,
            "volume.Volume.extendSizeFinalize": self._size,
            "volume.Volume.killProcRollback": self._nothing,
        }
        for owner in FILE_VOLUMES:
            self._calls |= {
                f"{owner}.startCreateVolumeRollback": self._nothing,
                f"{owner}.shareVolumeRollback": self._share,
                f"{owner}.halfbakedVolumeRollback": self._halfbaked,
                f"{owner}.createVolumeMetadataRollback": self._metadata,
                f"{owner}.createVolumeRollback": self._volume,
            }

    async def run(self, recovery: Recovery) -> None:
        """Raises `RecoveryInvalid`, or what the storage refused."""
        call = self._calls.get(recovery.call)
        if call is None:
            raise RecoveryInvalid(recovery.call, "it is not known here")
        log.info("stepping back: %s %s", recovery.call, " ".join(recovery.params))
        await call(recovery)

    async def _nothing(self, recovery: Recovery) -> None:
        pass

    async def _image(self, recovery: Recovery) -> None:
        domain_id, image_id = _ids_of_path(recovery, 0, ("images", None))
        domain = await self._domains.get(domain_id)
        try:
            await domain.io.remove_folder(domain.image_path(image_id))
        except IoFailed as e:
            if e.error not in ("ENOENT", "ENOTEMPTY", "EEXIST"):
                raise

    async def _parent(self, recovery: Recovery) -> None:
        domain_id, image_id, volume_id = _ids(recovery, 3)
        domain = await self._domains.get(domain_id)
        try:
            parent = await domain.read_volume(image_id, volume_id)
            if parent.role is VolumeRole.INTERNAL and not await domain.children(image_id, volume_id):
                await domain.write_volume(image_id, volume_id, replace(parent, role=VolumeRole.LEAF))
        except (VolumeNotFound, ImageNotFound):
            pass

    async def _size(self, recovery: Recovery) -> None:
        domain_id, image_id, volume_id = _ids(recovery, 3)
        domain = await self._domains.get(domain_id)
        metadata = await domain.read_volume(image_id, volume_id)
        real = (await domain.volume_sizes(image_id, volume_id)).apparent
        if metadata.format.value == "RAW" and metadata.capacity != real:
            await domain.write_volume(image_id, volume_id, replace(metadata, capacity=real))

    async def _share(self, recovery: Recovery) -> None:
        domain_id, image_id, volume_id = _ids_of_path(recovery, 0, ("images", None, None))
        await self._remove_files(domain_id, image_id, volume_id)

    async def _halfbaked(self, recovery: Recovery) -> None:
        domain_id, image_id, volume_id = _ids_of_path(recovery, 2, ("images", None, None))
        domain = await self._domains.get(domain_id)
        if not await domain.io.exists(domain.volume_path(image_id, volume_id) + ".meta"):
            await self._remove_files(domain_id, image_id, volume_id)

    async def _metadata(self, recovery: Recovery) -> None:
        domain_id, image_id, volume_id = _ids_of_path(recovery, 0, ("images", None, None))
        domain = await self._domains.get(domain_id)
        await domain.io.remove(domain.volume_path(image_id, volume_id) + ".meta")

    async def _volume(self, recovery: Recovery) -> None:
        _, domain_id, image_id, volume_id, *_ = (*recovery.params, "", "", "", "", "")
        if not (is_uuid(domain_id) and is_uuid(image_id) and is_uuid(volume_id)):
            raise RecoveryInvalid(recovery.call, "its parameters are no ids")
        await self._remove_files(domain_id, image_id, volume_id)
        domain = await self._domains.get(domain_id)
        await self._image(image_rollback(domain, image_id))

    async def _remove_files(self, domain_id: str, image_id: str, volume_id: str) -> None:
        domain = await self._domains.get(domain_id)
        path = domain.volume_path(image_id, volume_id)
        for suffix in (".meta", "", ".lease"):
            await domain.io.remove(path + suffix)


def _ids(recovery: Recovery, count: int) -> tuple[str, ...]:
    if len(recovery.params) != count or not all(is_uuid(param) for param in recovery.params):
        raise RecoveryInvalid(recovery.call, f"expected {count} ids")
    return recovery.params


def _ids_of_path(recovery: Recovery, index: int, shape: tuple[str | None, ...]) -> tuple[str, ...]:
    """Ids in the last parts of a path parameter: the domain's, then one for each None in ``shape``."""
    if len(recovery.params) <= index:
        raise RecoveryInvalid(recovery.call, "its path is missing")
    parts = recovery.params[index].split("/")[-len(shape) - 1 :]
    expected = (None, *shape)
    if len(parts) != len(expected):
        raise RecoveryInvalid(recovery.call, f"{recovery.params[index]!r} is no path in a domain")
    ids = []
    for part, fixed in zip(parts, expected, strict=True):
        if (fixed is not None and part != fixed) or (fixed is None and not is_uuid(part)):
            raise RecoveryInvalid(recovery.call, f"{recovery.params[index]!r} is no path in a domain")
        if fixed is None:
            ids.append(part)
    return tuple(ids)
