# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kind of domain does in its own way, so that volumes are made and removed in one order on all of them.

`storage.creation` and `storage.removal` are the order; a `VolumeStore` is these parts and calls those two.
"""

from __future__ import annotations

from typing import Protocol

from storage.domain import VolumeStore
from storage.new_volume import NewVolume, Progress
from storage.ondisk.values import FormatVersion
from storage.ondisk.volume_metadata import VolumeMetadata


class VolumeParts(VolumeStore, Protocol):
    domain_id: str

    @property
    def version(self) -> FormatVersion:
        """Of the domain: what is written follows from it."""

    def check_writable(self) -> None:
        """Raises `ImagesUnsupported` where there are none."""

    # Making

    def check_size(self, wanted: NewVolume, capacity: int) -> None:
        """Which initial sizes and allocations this kind takes. Raises `InvalidParameter`, `InvalidVolume`."""

    async def has_image(self, image_id: str) -> bool:
        """Also one that no listing shows volumes of."""

    async def make_image(self, image_id: str) -> None: ...
    async def is_free(self, image_id: str, volume_id: str) -> bool:
        """Nothing lies there under that name which an undone creation would remove."""

    async def make_payload(self, image_id: str, volume_id: str) -> None:
        """Empty; what a crash left of a volume of that id is removed first. Raises `VolumeExists`."""

    async def format_payload(
        self, volume_id: str, metadata: VolumeMetadata, parent: VolumeMetadata | None, progress: Progress | None
    ) -> None:
        """Raw or qcow2, with the space that its allocation says. From here on `undo` can name all steps."""

    async def make_lease(self, image_id: str, volume_id: str) -> None:
        """Nothing happens where volumes have none."""

    # Removing

    async def remove_lease(self, image_id: str, volume_id: str) -> None:
        """Nothing happens where there is none."""

    async def hide_image(self, image_id: str) -> None:
        """No listing shows the image from here on, `removed` does. Raises `ImageNotFound`."""
