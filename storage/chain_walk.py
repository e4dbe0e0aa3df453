# SPDX-License-Identifier: GPL-2.0-or-later
"""A volume's chain found from its metadata: each names its parent, also where something else names another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from storage.domain import Chain
from storage.errors import InvalidChain, VolumeNotFound
from storage.ondisk.volume_metadata import VolumeMetadata

Read = Callable[[str, str], Awaitable[VolumeMetadata]]


async def down(read: Read, image_id: str, volume_id: str) -> Chain:
    """From the base to ``volume_id``. Raises `VolumeNotFound` of the volume itself, `InvalidChain`."""
    found: Chain = []
    current = volume_id
    while True:
        if current in [known for known, _ in found]:
            raise InvalidChain(image_id, f"volume {current} is its own ancestor")
        try:
            metadata = await read(image_id, current)
        except VolumeNotFound:
            if not found:
                raise
            raise InvalidChain(image_id, f"volume {current}, the parent of {found[-1][0]}, is missing") from None
        found.append((current, metadata))
        if not metadata.has_parent:
            return found[::-1]
        current = metadata.parent_id
