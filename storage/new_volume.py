# SPDX-License-Identifier: GPL-2.0-or-later
"""A wanted volume, and the steps of its creation that are told before they are done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from storage.ondisk.values import Allocation, VolumeFormat
from storage.tasks.record import Recovery

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


class CreateStep(StrEnum):
    """What must be undone when the volume does not come to be, in the order in which it is done."""

    FOLDER = "folder"
    """The image is made: it is new."""
    SHARE = "share"
    """The template is linked into the image."""
    PAYLOAD = "payload"
    PARENT = "parent"
    """The parent, of the same image, is made internal."""
    METADATA = "metadata"
    """The volume becomes visible."""


class Before(Protocol):
    """Awaited before each step with what undoes it, as tasks store it: `storage.tasks.runner.Task.will_undo`."""

    async def __call__(self, *steps_back: Recovery) -> None: ...


@dataclass(frozen=True)
class NewVolume:
    """Sizes in bytes; ``capacity`` is rounded up to 4 KiB."""

    image_id: str
    volume_id: str
    capacity: int
    format: VolumeFormat
    allocation: Allocation
    disk_type: str = "DATA"
    description: str = ""
    parent_id: str = ""
    """Empty for a volume without parent."""
    source_image_id: str = ""
    """The parent's image when it is another one: the volume is a clone of a template."""
    initial_size: int | None = None
    legal: bool = True
    sequence: int = 0

    @property
    def is_clone(self) -> bool:
        return self.source_image_id not in ("", self.image_id)
