# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of VMs: prepared before the start, torn down when the last VM that uses one has ended.

An image may be shown to several VMs at once (a CD, a shared disk): tearing it down for one must not
take it away from another. Who uses an image is counted here, for all VMs of the host.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from vdsm.common.errors import AgentError
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.ports import Images, Prepared

log = logging.getLogger("vdsm.virt")

_Key = tuple[str, str]


class SharedImages:
    def __init__(self, storage: Images) -> None:
        self._storage = storage
        self._users: dict[_Key, set[str]] = {}

    async def prepare(self, vm_id: str, image: ImageId) -> Prepared:
        self._users.setdefault(_key(image), set()).add(vm_id)
        return await self._storage.prepare_image(image.pool_id, image.domain_id, image.image_id, image.volume_id)

    def claim(self, vm_id: str, images: Iterable[ImageId]) -> None:
        """After a restart of the agent: a running VM uses these. To be said of all VMs before any image is released."""
        for image in images:
            self._users.setdefault(_key(image), set()).add(vm_id)

    async def resume(self, images: Iterable[ImageId]) -> None:
        """Storage is told that claimed images, which are prepared, are in use."""
        wanted = list(images)
        if wanted:
            await self._storage.resume_prepared(
                [(image.pool_id, image.domain_id, image.image_id, image.volume_id) for image in wanted]
            )

    async def release(self, vm_id: str, images: Iterable[ImageId]) -> list[ImageId]:
        """Tear down what nobody else uses; the images for which that failed."""
        last = []
        for image in dict.fromkeys(images):
            users = self._users.get(_key(image), set())
            users.discard(vm_id)
            if not users:
                self._users.pop(_key(image), None)
                last.append(image)
        results = await asyncio.gather(*(self._tear_down(vm_id, image) for image in last))
        return [image for image, done in zip(last, results, strict=True) if not done]

    async def _tear_down(self, vm_id: str, image: ImageId) -> bool:
        try:
            await self._storage.teardown_image(image.pool_id, image.domain_id, image.image_id)
        except (AgentError, OSError) as e:
            log.error("VM %s: image %s of domain %s stays prepared: %s", vm_id, image.image_id, image.domain_id, e)
            return False
        return True


def _key(image: ImageId) -> _Key:
    return image.domain_id, image.image_id
