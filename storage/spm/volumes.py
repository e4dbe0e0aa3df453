# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of images and volumes, as bodies of SPM tasks.

The runner holds the locks that each names (`changing`, `Volumes.creating`) from before the first step until it is
done or undone. A body stores how to undo each step before it, then acts. What a body leaves behind when it
dies in the middle:

- create: payload without metadata, which no listing shows, or a volume that nobody was told of; undone by the
  stored steps;
- delete of a volume: an illegal volume, which can be deleted again, or a payload without metadata, which is
  removed by the stored steps;
- delete of an image: the whole image, or a folder ``_remove_me_<image>``, which the same deletion, done again, or the
  next SPM removes.

Nothing that is in use on this host is removed: the agent is asked, and lets nobody begin to use it meanwhile. Nor is
a volume whose lease a host holds (`volume_leases`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from storage import locks
from storage.domain import Domain
from storage.domains import Domains
from storage.errors import DAMAGED, ImageNotFound, StorageError, VolumeExists
from storage.locks import Lock, LockTable, Mode
from storage.new_volume import NewVolume
from storage.ondisk.values import Legality, VolumeFormat, VolumeRole
from storage.ondisk.volume_metadata import VolumeMetadata
from storage.spm.agent import Agent
from storage.spm.volume_leases import refuse_held
from storage.tasks.record import Recovery
from storage.tasks.runner import Task
from storage.tasks.steps import HALFBAKED, SENTINEL, parent_rollback, size_finalize
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError

CREATE_MADE = crash_point("spm.volume.made", "the volume is complete, its task still runs")
DELETE_REMOVED = crash_point("spm.volume.removed", "the volume is removed, its task still runs")
IMAGE_DELETED = crash_point("spm.image.removed", "the image is removed, its task still runs")
EXTEND_SIZED = crash_point("spm.volume.sized", "the payload is larger, the metadata has the old capacity")


class VolumeShrinkRefused(StorageError):
    volume_id: str
    size: int
    wanted: int
    msg = "Volume {self.volume_id} has {self.size} bytes: it cannot be made smaller ({self.wanted})"


class VolumeNotExtendable(StorageError):
    volume_id: str
    reason: str
    msg = "Volume {self.volume_id} cannot be extended: {self.reason}"


def changing(domain_id: str, image_id: str) -> list[Lock]:
    """Locks of a change in one image."""
    return [locks.domain(domain_id, Mode.SHARED), locks.image(domain_id, image_id)]


class Volumes:
    def __init__(self, domains: Domains, held: LockTable, agent: Agent) -> None:
        self._domains = domains
        self._locks = held
        self._agent = agent

    async def creating(self, domain_id: str, wanted: NewVolume) -> list[Lock]:
        """Locks of `create`. A template must not be removed meanwhile; a base that becomes one is changed itself."""
        source = wanted.source_image_id
        also = []
        if source not in ("", wanted.image_id):
            try:
                template = await (await self._domains.get(domain_id)).volumes.read(source, wanted.parent_id)
                mode = Mode.SHARED if template.role is VolumeRole.SHARED else Mode.EXCLUSIVE
            except AgentError:  # said by the task, which reads it again
                mode = Mode.EXCLUSIVE
            also = [locks.image(domain_id, source, mode)]
        return [*changing(domain_id, wanted.image_id), *also]

    async def create(self, task: Task, domain_id: str, wanted: NewVolume, pool_folder: str) -> str:
        """Make a volume. ``pool_folder``: ``<repository>/<pool>``, for the stored way back."""
        volumes = (await self._domains.get(domain_id)).volumes
        try:
            created = await volumes.create(wanted, task.will_undo, task.advance)
        except VolumeExists:
            if any(recovery.name == HALFBAKED for recovery in task.record.recoveries):
                task.replace_recoveries(HALFBAKED)  # the payload is somebody else's
            raise
        CREATE_MADE.reach()
        made = volumes.undo_created(pool_folder, wanted.image_id, wanted.volume_id, created.ctime)
        task.replace_recoveries(SENTINEL, made)
        return wanted.volume_id

    async def delete(self, task: Task, domain_id: str, image_id: str, volume_ids: Sequence[str], *, force: bool) -> str:
        """Remove volumes of an image, in the given order."""
        domain = await self._domains.get(domain_id)
        async with self._agent.removing(domain_id, image_id, volume_ids):
            await refuse_held(domain, domain.leases, image_id, volume_ids)
            for volume_id in volume_ids:
                await self._delete_one(task, domain, image_id, volume_id, force=force)
        task.drop_recoveries()
        return ""

    async def delete_image(self, task: Task, domain_id: str, image_id: str) -> str:
        """Remove the whole image, or what is left of it when an earlier deletion was cut off.

        Raises `ImageNotFound`, `VolumeShared` when others are based on it.
        """
        domain = await self._domains.get(domain_id)
        if image_id not in await domain.volumes.images():
            if await domain.volumes.purge(image_id):
                return ""
            raise ImageNotFound(image_id, domain_id)
        own = await _own_volumes(domain, image_id)
        async with self._agent.removing(domain_id, image_id, own):
            await refuse_held(domain, domain.leases, image_id, own)
            await domain.volumes.delete_image(image_id)
        IMAGE_DELETED.reach()
        return ""

    async def extend_size(self, task: Task, domain_id: str, image_id: str, volume_id: str, size: int) -> str:
        """Grow a raw volume. A sparse qcow2 volume needs nothing here: it grows with its data."""
        volumes = (await self._domains.get(domain_id)).volumes
        metadata = await volumes.read(image_id, volume_id)
        if metadata.role is VolumeRole.SHARED:
            raise VolumeNotExtendable(volume_id, "it is shared")
        if metadata.role is VolumeRole.INTERNAL and metadata.has_parent:
            raise VolumeNotExtendable(volume_id, "it is neither the base nor a leaf of its chain")
        if size < metadata.capacity:
            raise VolumeShrinkRefused(volume_id, metadata.capacity, size)
        if metadata.format is VolumeFormat.RAW:
            real = (await volumes.sizes(image_id, volume_id)).apparent
            if size < real:  # whatever its metadata says: what is behind the new end would be lost
                raise VolumeShrinkRefused(volume_id, real, size)
            await task.will_undo(size_finalize(domain_id, image_id, volume_id))
            larger = replace(metadata, capacity=await volumes.extend(image_id, volume_id, size))
            EXTEND_SIZED.reach()
            await volumes.write(image_id, volume_id, larger, expect_generation=metadata.generation)
            task.drop_recoveries()
        return str(size)

    async def describe(self, domain_id: str, image_id: str, volume_id: str, description: str) -> None:
        await self._change(
            "Volume.setDescription",
            domain_id,
            image_id,
            volume_id,
            lambda metadata: replace(metadata, description=description),
        )

    async def set_legality(self, domain_id: str, image_id: str, volume_id: str, legality: Legality) -> None:
        await self._change(
            "Volume.setLegality", domain_id, image_id, volume_id, lambda metadata: replace(metadata, legality=legality)
        )

    async def _change(
        self,
        who: str,
        domain_id: str,
        image_id: str,
        volume_id: str,
        change: Callable[[VolumeMetadata], VolumeMetadata],
    ) -> None:
        volumes = (await self._domains.get(domain_id)).volumes
        async with self._locks.hold(changing(domain_id, image_id), who=who):
            found = await volumes.read(image_id, volume_id)
            await volumes.write(image_id, volume_id, change(found), expect_generation=found.generation)

    async def _delete_one(self, task: Task, domain: Domain, image_id: str, volume_id: str, *, force: bool) -> None:
        task.drop_recoveries()  # of the volume before: it is gone
        await task.will_undo(*await _undo_delete(domain, image_id, volume_id))
        await domain.volumes.delete(image_id, volume_id, force=force)
        DELETE_REMOVED.reach()


async def _undo_delete(domain: Domain, image_id: str, volume_id: str) -> list[Recovery]:
    """What removes the rest once no listing shows the volume, and does nothing before."""
    steps = []
    read = domain.volumes.read
    try:
        metadata = await read(image_id, volume_id)
        if metadata.has_parent and (await read(image_id, metadata.parent_id)).role is not VolumeRole.SHARED:
            steps.append(parent_rollback(domain.domain_id, image_id, metadata.parent_id))
    except DAMAGED:  # which does not keep a volume from being deleted; the parent is mended at the next start
        pass
    return [*steps, *domain.volumes.undo_deleted(image_id, volume_id)]


async def _own_volumes(domain: Domain, image_id: str) -> list[str]:
    """Those that go with the image: not the template that is linked into it."""
    own = []
    for volume_id in await domain.volumes.of_image(image_id):
        try:
            if (await domain.volumes.read(image_id, volume_id)).image_id != image_id:
                continue
        except DAMAGED:
            pass
        own.append(volume_id)
    return own
