# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of VMs: prepared before the start, torn down when the last VM that uses one has ended.

An image may be shown to several VMs at once (a CD, a shared disk): tearing it down for one must not
take it away from another. So each VM is a user of its own name, ``vm:<id>``; storage counts.

What could not be torn down is tried again later, maybe when a new life of the same VM begins: preparing waits until a
teardown of that VM that is under way has ended, and a later one asks once more whether it is still wanted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from weakref import WeakValueDictionary

from storage import holders
from vdsm.common.errors import AgentError
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.ports import Images, Prepared

log = logging.getLogger("vdsm.virt")


class SharedImages:
    def __init__(self, storage: Images) -> None:
        self._storage = storage
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def prepare(self, vm_id: str, image: ImageId) -> Prepared:
        async with self._turn(vm_id):
            return await self._storage.prepare_image(
                image.pool_id, image.domain_id, image.image_id, image.volume_id, consumer=holders.vm(vm_id)
            )

    async def resume(self, vm_id: str, images: Iterable[ImageId]) -> list[ImageId]:
        """After a restart of the agent: a running VM uses these. Those that nobody knows as prepared."""
        wanted = [(image.pool_id, image.domain_id, image.image_id, image.volume_id) for image in images]
        if not wanted:
            return []
        return [ImageId(*lost) for lost in await self._storage.resume_prepared(wanted, consumer=holders.vm(vm_id))]

    async def release(
        self, vm_id: str, images: Iterable[ImageId], *, wanted: Callable[[], bool] = lambda: True
    ) -> list[ImageId]:
        """Give up the VM's use of them; the images for which that failed, all when it is not ``wanted`` any more."""
        left = list(dict.fromkeys(images))
        async with self._turn(vm_id):
            if not wanted():
                return left
            results = await asyncio.gather(*(self._tear_down(vm_id, image) for image in left))
        return [image for image, done in zip(left, results, strict=True) if not done]

    def _turn(self, vm_id: str) -> asyncio.Lock:
        turn = self._turns.get(vm_id)
        if turn is None:
            turn = self._turns[vm_id] = asyncio.Lock()
        return turn

    async def _tear_down(self, vm_id: str, image: ImageId) -> bool:
        try:
            await self._storage.teardown_image(
                image.pool_id, image.domain_id, image.image_id, consumer=holders.vm(vm_id)
            )
        except (AgentError, OSError) as e:
            log.error("VM %s: image %s of domain %s stays prepared: %s", vm_id, image.image_id, image.domain_id, e)
            return False
        return True
