# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of VMs: prepared before the start, torn down when the last VM that uses one has ended.

An image may be shown to several VMs at once (a CD, a shared disk): tearing it down for one must not
take it away from another. So each VM is a user of its own name, ``vm:<id>``; storage counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from vdsm.common.errors import AgentError
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.ports import Images, Prepared

log = logging.getLogger("vdsm.virt")


class SharedImages:
    def __init__(self, storage: Images) -> None:
        self._storage = storage

    async def prepare(self, vm_id: str, image: ImageId) -> Prepared:
        return await self._storage.prepare_image(
            image.pool_id, image.domain_id, image.image_id, image.volume_id, consumer=_user(vm_id)
        )

    async def resume(self, vm_id: str, images: Iterable[ImageId]) -> list[ImageId]:
        """After a restart of the agent: a running VM uses these. Those that nobody knows as prepared."""
        wanted = [(image.pool_id, image.domain_id, image.image_id, image.volume_id) for image in images]
        if not wanted:
            return []
        return [ImageId(*lost) for lost in await self._storage.resume_prepared(wanted, consumer=_user(vm_id))]

    async def release(self, vm_id: str, images: Iterable[ImageId]) -> list[ImageId]:
        """Give up the VM's use of them; the images for which that failed."""
        wanted = list(dict.fromkeys(images))
        results = await asyncio.gather(*(self._tear_down(vm_id, image) for image in wanted))
        return [image for image, done in zip(wanted, results, strict=True) if not done]

    async def _tear_down(self, vm_id: str, image: ImageId) -> bool:
        try:
            await self._storage.teardown_image(image.pool_id, image.domain_id, image.image_id, consumer=_user(vm_id))
        except (AgentError, OSError) as e:
            log.error("VM %s: image %s of domain %s stays prepared: %s", vm_id, image.image_id, image.domain_id, e)
            return False
        return True


def _user(vm_id: str) -> str:
    return f"vm:{vm_id}"
