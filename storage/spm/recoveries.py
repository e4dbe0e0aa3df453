# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps back of a task, by the names, orders and parameters that stand in stored tasks (storage.md 11.3).

What is stored is what the field's own callables take, so that whichever program becomes SPM next can
undo our half-made volume, and we its. A stored task comes from shared storage, perhaps from another
program: only callables whose form is known (`storage.tasks.steps`, a table for each kind of domain) are run, and of
their paths only the ids count.

Every step back may run twice or for nothing, and none removes what is in use here. Which locks they need
follows from their parameters; they are held by the runner.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from storage import locks
from storage.domain import Domain, VolumeStore
from storage.domains import Domains
from storage.errors import DAMAGED, ImageNotFound, VolumeHasChildren, VolumeNotFound
from storage.locks import Lock
from storage.ondisk.values import VolumeFormat, VolumeRole
from storage.spm.agent import Agent
from storage.spm.volume_leases import refuse_held
from storage.tasks.record import Recovery
from storage.tasks.runner import StepInvalid
from storage.tasks.steps import Read, Target
from vdsm.common.ids import BLANK_UUID

log = logging.getLogger("vdsm.storage.tasks")


class Recoveries:
    """Runs stored steps back on the domains of this process: `storage.tasks.runner.StepsBack`."""

    def __init__(self, domains: Domains, agent: Agent, readers: Mapping[str, Read]) -> None:
        """``readers``: by the name of the callable, as it is stored."""
        self._domains = domains
        self._agent = agent
        self._readers = readers
        self._calls: dict[str, Callable[[Domain, Target], Awaitable[None]]] = {
            "create_image_rollback": self._image,
            "parentVolumeRollback": self._parent,
            "extendSizeFinalize": self._size,
            "shareVolumeRollback": self._share,
            "halfbakedVolumeRollback": self._halfbaked,
            "createVolumeMetadataRollback": self._metadata,
            "createVolumeRollback": self._volume,
        }

    def locks(self, recoveries: Sequence[Recovery]) -> list[Lock]:
        """Of the images that they touch, alone. A step that cannot be read touches nothing."""
        wanted: dict[Lock, None] = {}
        for target in self._targets(recoveries):
            wanted[locks.domain(target.domain_id)] = None
            wanted[locks.image(target.domain_id, target.image_id)] = None
        return list(wanted)

    def claims(self, stored: Iterable[Sequence[Recovery]]) -> dict[str, set[tuple[str, str]]]:
        """What these tasks may still need, by domain: see `storage.domain.Claims`."""
        claimed: dict[str, set[tuple[str, str]]] = {}
        for recoveries in stored:
            for target in self._targets(recoveries):
                claimed.setdefault(target.domain_id, set()).add((target.image_id, target.volume_id))
        return claimed

    async def run(self, recovery: Recovery) -> None:
        """Raises `StepInvalid`, or what the storage refused."""
        target = self._read(recovery)
        if target is None:
            return
        log.info("stepping back: %s %s", recovery.call, " ".join(recovery.params))
        await self._calls[recovery.function](await self._domains.get(target.domain_id), target)

    def _read(self, recovery: Recovery) -> Target | None:
        """None for what does nothing. Raises `StepInvalid`."""
        if recovery.function in ("startCreateVolumeRollback", "killProcRollback"):
            return None  # a marker; and a program that is gone with its host
        if recovery.function == "parentVolumeRollback" and BLANK_UUID in recovery.params:
            return None
        read = self._readers.get(recovery.call)
        if read is None:
            raise StepInvalid(recovery.call, "it is not known here")
        return read(recovery)

    def _targets(self, recoveries: Sequence[Recovery]) -> list[Target]:
        found = []
        for recovery in recoveries:
            try:
                target = self._read(recovery)
            except StepInvalid:
                continue
            if target is not None:
                found.append(target)
        return found

    async def _image(self, domain: Domain, target: Target) -> None:
        """Only an empty one goes: a template's links or a file of somebody else keep it."""
        await domain.volumes.drop_image(target.image_id)

    async def _parent(self, domain: Domain, target: Target) -> None:
        try:
            parent = await domain.volumes.read(target.image_id, target.volume_id)
            if parent.role is VolumeRole.SHARED:
                return
            has_child = bool(await domain.volumes.children(target.image_id, target.volume_id))
        except (VolumeNotFound, ImageNotFound):
            return
        except DAMAGED as e:  # the other steps back must not wait for who repairs it; garbage collection looks again
            log.warning("the role of volume %s stays as it is: %s", target.volume_id, e)
            return
        role = VolumeRole.INTERNAL if has_child else VolumeRole.LEAF
        if parent.role is not role:
            await domain.volumes.write(
                target.image_id, target.volume_id, replace(parent, role=role), expect_generation=parent.generation
            )

    async def _size(self, domain: Domain, target: Target) -> None:
        image_id, volume_id = target.image_id, target.volume_id
        metadata = await domain.volumes.read(image_id, volume_id)
        real = (await domain.volumes.sizes(image_id, volume_id)).apparent
        if metadata.format is VolumeFormat.RAW and metadata.capacity != real:
            true = replace(metadata, capacity=real)
            await domain.volumes.write(image_id, volume_id, true, expect_generation=metadata.generation)

    async def _share(self, domain: Domain, target: Target) -> None:
        await domain.volumes.unshare(target.image_id, target.volume_id)

    async def _halfbaked(self, domain: Domain, target: Target) -> None:
        await domain.volumes.remove_rest(target.image_id, target.volume_id)

    async def _metadata(self, domain: Domain, target: Target) -> None:
        image_id, volume_id = target.image_id, target.volume_id
        async with self._agent.removing(domain.domain_id, image_id, [volume_id]):
            await domain.volumes.hide(image_id, volume_id)

    async def _volume(self, domain: Domain, target: Target) -> None:
        """A finished volume, and its image's folder when no volume of the image is left in it."""
        image_id, volume_id = target.image_id, target.volume_id
        volumes = domain.volumes
        try:
            listed = await volumes.of_image(image_id)
        except ImageNotFound:
            return
        async with self._agent.removing(domain.domain_id, image_id, [volume_id]):
            if volume_id not in listed:  # its metadata went first, an earlier time
                await volumes.remove_rest(image_id, volume_id)
            elif not await _is_made_then(volumes, target):
                raise StepInvalid("createVolumeRollback", f"volume {volume_id} is not the one that the task made")
            elif children := await volumes.children(image_id, volume_id):
                raise VolumeHasChildren(volume_id, children)
            else:
                await refuse_held(domain, domain.leases, image_id, [volume_id])
                await volumes.delete(image_id, volume_id, force=True)
        await _drop_image_without_own(volumes, image_id)


async def _drop_image_without_own(volumes: VolumeStore, image_id: str) -> None:
    try:
        found = await _readable(volumes, image_id)
    except ImageNotFound:
        return
    if all(shared_from not in (None, image_id) for shared_from in found.values()):
        for volume_id in found:
            await volumes.unshare(image_id, volume_id)
        await volumes.drop_image(image_id)


async def _readable(volumes: VolumeStore, image_id: str) -> Mapping[str, str | None]:
    """Volumes of an image with the image that they belong to; None where damaged metadata does not say."""
    found: dict[str, str | None] = {}
    for volume_id in await volumes.of_image(image_id):
        try:
            metadata = await volumes.read(image_id, volume_id)
        except DAMAGED:
            found[volume_id] = None
        else:
            found[volume_id] = metadata.image_id if metadata.role is VolumeRole.SHARED else image_id
    return found


async def _is_made_then(volumes: VolumeStore, target: Target) -> bool:
    """Its task ended with whole metadata: what can't be read since says nothing, so it is no proof."""
    if not target.made:
        return True
    try:
        return str((await volumes.read(target.image_id, target.volume_id)).ctime) == target.made
    except DAMAGED:
        return False
