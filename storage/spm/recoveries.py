# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps back of a task, by the names, orders and parameters that stand in stored tasks (storage.md 11.3).

What is stored is what the field's own callables take, so that whichever program becomes SPM next can
undo our half-made volume, and we its. A stored task comes from shared storage, perhaps from another
program: only the callables below are known, and their paths are not followed. Each path's last parts must
be ids; the path that is used is built from them and this host's own mount.

Every step back may run twice or for nothing, and none removes what is in use here. Which locks they need
follows from their parameters; they are held by the runner.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from storage import locks
from storage.domain import Domain
from storage.domains import Domains
from storage.errors import DAMAGED, ImageNotFound, IoFailed, VolumeHasChildren, VolumeNotFound
from storage.locks import Lock
from storage.ondisk.values import VolumeFormat, VolumeRole
from storage.spm.agent import Agent
from storage.spm.volume_leases import refuse_held
from storage.tasks.record import Recovery
from storage.tasks.runner import StepInvalid
from vdsm.common.ids import BLANK_UUID, is_uuid

log = logging.getLogger("vdsm.storage.tasks")

FILE_VOLUMES = ("fileVolume.FileVolume", "glusterVolume.GlusterVolume")
SENTINEL = "rollback sentinel"
HALFBAKED = "Halfbaked volume rollback"


# What our own tasks store


def parent_rollback(domain: Domain, image_id: str, parent_id: str) -> Recovery:
    """Not for a shared parent: there is nothing to undo, and the field's own callable refuses one."""
    params = (domain.domain_id, image_id, parent_id)
    return Recovery(f"parent volume rollback: {parent_id}", "volume", "Volume", "parentVolumeRollback", params)


def image_rollback(domain: Domain, image_id: str) -> Recovery:
    params = (domain.image_path(image_id),)
    return Recovery(f"create image rollback: {image_id}", "sd", "StorageDomain", "create_image_rollback", params)


def share_rollback(domain: Domain, image_id: str, volume_id: str) -> Recovery:
    path = domain.volume_path(image_id, volume_id)
    return Recovery(f"Share volume rollback: {path}", "fileVolume", "FileVolume", "shareVolumeRollback", (path,))


def sentinel(domain: Domain, image_id: str, volume_id: str) -> Recovery:
    params = (domain.domain_id, image_id, volume_id)
    return Recovery(SENTINEL, "fileVolume", "FileVolume", "startCreateVolumeRollback", params)


def halfbaked_rollback(domain: Domain, image_id: str, volume_id: str) -> Recovery:
    params = (domain.domain_id, volume_id, domain.volume_path(image_id, volume_id))
    return Recovery(HALFBAKED, "fileVolume", "FileVolume", "halfbakedVolumeRollback", params)


def metadata_rollback(domain: Domain, image_id: str, volume_id: str) -> Recovery:
    params = (domain.volume_path(image_id, volume_id),)
    name = "Create volume metadata rollback"
    return Recovery(name, "fileVolume", "FileVolume", "createVolumeMetadataRollback", params)


def volume_rollback(domain: Domain, pool_folder: str, image_id: str, volume_id: str, ctime: int) -> Recovery:
    """``pool_folder``: ``<repository>/<pool>``. ``ctime``: the volume's: a later one of this id is another volume."""
    params = (pool_folder, domain.domain_id, image_id, volume_id, domain.image_path(image_id))
    name = "Create volume rollback"
    return Recovery(name, "fileVolume", "FileVolume", "createVolumeRollback", params, made=str(ctime))


def size_finalize(domain: Domain, image_id: str, volume_id: str) -> Recovery:
    params = (domain.domain_id, image_id, volume_id)
    return Recovery(f"Extend size for volume: {volume_id}", "volume", "Volume", "extendSizeFinalize", params)


# Reading what is stored


@dataclass(frozen=True)
class Target:
    domain_id: str
    image_id: str
    volume_id: str = ""
    made: str = ""
    """Of the volume that the task made; empty when it is not known."""


Read = Callable[[Recovery], Target]


def _by_ids(first: int, count: int) -> Read:
    """Ids of domain, image and volume from parameter ``first`` on, of ``count`` parameters in all."""

    def read(recovery: Recovery) -> Target:
        if len(recovery.params) != count or not all(is_uuid(p) for p in recovery.params[first : first + 3]):
            raise StepInvalid(recovery.call, f"{recovery.params!r} are not its {count} parameters")
        domain_id, image_id, volume_id = recovery.params[first : first + 3]
        return Target(domain_id, image_id, volume_id, recovery.made)

    return read


def _by_path(*counts: int, parts: int) -> Read:
    """From the last parameter: a path that ends in ``<domain>/images/<image>[/<volume>]``."""

    def read(recovery: Recovery) -> Target:
        if len(recovery.params) not in counts:
            raise StepInvalid(recovery.call, f"it has {len(recovery.params)} parameters")
        ends = recovery.params[-1].split("/")[-parts - 1 :]
        domain_id, images, *ids = (*ends, "", "")
        ids = [part for part in ids if part]
        if images != "images" or len(ids) != parts - 1 or not all(is_uuid(part) for part in (domain_id, *ids)):
            raise StepInvalid(recovery.call, f"{recovery.params[-1]!r} is no path in a domain")
        return Target(domain_id, *ids)

    return read


class Recoveries:
    """Runs stored steps back on the domains of this process: `storage.tasks.runner.StepsBack`."""

    def __init__(self, domains: Domains, agent: Agent) -> None:
        self._domains = domains
        self._agent = agent
        volume_path = _by_path(1, parts=3)
        self._calls: dict[str, tuple[Read, Callable[[Domain, Target], Awaitable[None]]]] = {
            "sd.StorageDomain.create_image_rollback": (_by_path(1, parts=2), self._image),
            "volume.Volume.parentVolumeRollback": (_by_ids(0, 3), self._parent),
            "volume.Volume.extendSizeFinalize": (_by_ids(0, 3), self._size),
        }
        for owner in FILE_VOLUMES:
            self._calls |= {
                f"{owner}.shareVolumeRollback": (volume_path, self._share),
                f"{owner}.halfbakedVolumeRollback": (_by_path(1, 3, parts=3), self._halfbaked),
                f"{owner}.createVolumeMetadataRollback": (volume_path, self._metadata),
                f"{owner}.createVolumeRollback": (_by_ids(1, 5), self._volume),
            }

    def locks(self, recoveries: Sequence[Recovery]) -> list[Lock]:
        """Of the images that they touch, alone. A step that cannot be read touches nothing."""
        wanted: dict[Lock, None] = {}
        for recovery in recoveries:
            try:
                target = self._read(recovery)[0]
            except StepInvalid:
                continue
            if target is not None:
                wanted[locks.domain(target.domain_id)] = None
                wanted[locks.image(target.domain_id, target.image_id)] = None
        return list(wanted)

    async def run(self, recovery: Recovery) -> None:
        """Raises `StepInvalid`, or what the storage refused."""
        target, call = self._read(recovery)
        if target is None:
            return
        log.info("stepping back: %s %s", recovery.call, " ".join(recovery.params))
        await call(await self._domains.get(target.domain_id), target)

    def _read(self, recovery: Recovery) -> tuple[Target | None, Callable[[Domain, Target], Awaitable[None]]]:
        if recovery.function in ("startCreateVolumeRollback", "killProcRollback"):
            return None, _nothing  # a marker; and a program that is gone with its host
        if recovery.function == "parentVolumeRollback" and BLANK_UUID in recovery.params:
            return None, _nothing
        known = self._calls.get(recovery.call)
        if known is None:
            raise StepInvalid(recovery.call, "it is not known here")
        read, call = known
        return read(recovery), call

    async def _image(self, domain: Domain, target: Target) -> None:
        """Only an empty one goes: a template's links or a file of somebody else keep it."""
        try:
            await domain.io.remove_folder(domain.image_path(target.image_id))
        except IoFailed as e:
            if e.error not in ("ENOENT", "ENOTEMPTY", "EEXIST"):
                raise

    async def _parent(self, domain: Domain, target: Target) -> None:
        try:
            parent = await domain.read_volume(target.image_id, target.volume_id)
            if parent.role is VolumeRole.SHARED:
                return
            has_child = bool(await domain.children(target.image_id, target.volume_id))
        except (VolumeNotFound, ImageNotFound):
            return
        except DAMAGED as e:  # the other steps back must not wait for who repairs it; garbage collection looks again
            log.warning("the role of volume %s stays as it is: %s", target.volume_id, e)
            return
        role = VolumeRole.INTERNAL if has_child else VolumeRole.LEAF
        if parent.role is not role:
            await domain.write_volume(target.image_id, target.volume_id, replace(parent, role=role))

    async def _size(self, domain: Domain, target: Target) -> None:
        metadata = await domain.read_volume(target.image_id, target.volume_id)
        real = (await domain.volume_sizes(target.image_id, target.volume_id)).apparent
        if metadata.format is VolumeFormat.RAW and metadata.capacity != real:
            await domain.write_volume(target.image_id, target.volume_id, replace(metadata, capacity=real))

    async def _share(self, domain: Domain, target: Target) -> None:
        """The link only; what else has the same files keeps them."""
        await _remove_files(domain, target)

    async def _halfbaked(self, domain: Domain, target: Target) -> None:
        if not await domain.io.exists(domain.volume_path(target.image_id, target.volume_id) + ".meta"):
            await _remove_files(domain, target)

    async def _metadata(self, domain: Domain, target: Target) -> None:
        image_id, volume_id = target.image_id, target.volume_id
        async with self._agent.removing(domain.domain_id, image_id, [volume_id]):
            await domain.io.remove(domain.volume_path(image_id, volume_id) + ".meta")

    async def _volume(self, domain: Domain, target: Target) -> None:
        """A finished volume, and its image's folder when no volume of the image is left in it."""
        image_id, volume_id = target.image_id, target.volume_id
        try:
            listed = await domain.image_volumes(image_id)
        except ImageNotFound:
            return
        async with self._agent.removing(domain.domain_id, image_id, [volume_id]):
            if volume_id not in listed:  # its metadata went first, an earlier time
                await _remove_files(domain, target)
            elif not await _is_made_then(domain, target):
                raise StepInvalid("createVolumeRollback", f"volume {volume_id} is not the one that the task made")
            elif children := await domain.children(image_id, volume_id):
                raise VolumeHasChildren(volume_id, children)
            else:
                await refuse_held(domain, self._domains.leases(domain), image_id, [volume_id])
                await domain.delete_volume(image_id, volume_id, force=True)
        await self._drop_image_without_own(domain, image_id)

    async def _drop_image_without_own(self, domain: Domain, image_id: str) -> None:
        try:
            found = await _readable(domain, image_id)
        except ImageNotFound:
            return
        if all(shared_from not in (None, image_id) for shared_from in found.values()):
            for volume_id in found:
                await _remove_files(domain, Target(domain.domain_id, image_id, volume_id))
            await self._image(domain, Target(domain.domain_id, image_id))


async def _readable(domain: Domain, image_id: str) -> Mapping[str, str | None]:
    """Volumes of an image with the image that they belong to; None where damaged metadata does not say."""
    found: dict[str, str | None] = {}
    for volume_id in await domain.image_volumes(image_id):
        try:
            metadata = await domain.read_volume(image_id, volume_id)
        except DAMAGED:
            found[volume_id] = None
        else:
            found[volume_id] = metadata.image_id if metadata.role is VolumeRole.SHARED else image_id
    return found


async def _is_made_then(domain: Domain, target: Target) -> bool:
    """Its task ended with whole metadata: what can't be read since says nothing, so it is no proof."""
    if not target.made:
        return True
    try:
        return str((await domain.read_volume(target.image_id, target.volume_id)).ctime) == target.made
    except DAMAGED:
        return False


async def _remove_files(domain: Domain, target: Target) -> None:
    path = domain.volume_path(target.image_id, target.volume_id)
    await domain.io.remove(path + ".meta")
    await domain.remove_payload(target.image_id, target.volume_id)
    for suffix in (".lease", ".meta.new"):
        await domain.io.remove(path + suffix)


async def _nothing(_domain: Domain, _target: Target) -> None:
    return
