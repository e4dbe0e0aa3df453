# SPDX-License-Identifier: GPL-2.0-or-later
"""What a storage domain offers to pools, tasks and the monitor, whatever it is made of.

Who may call what: reading is for every host. Everything that writes is for the process that holds
the domain's SDM lease (and, within it, one change of an image at a time): a domain does not lock.

A volume is *visible* when its metadata is. Making one puts its metadata last, removing one takes
that away first, so a crash leaves at most files that no listing shows; `collect_garbage` removes them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from storage.leases import HostIdOwner, Lease, Lockspace
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.values import Allocation, DomainKind, FormatVersion, VolumeFormat
from storage.ondisk.volume_metadata import VolumeMetadata

if TYPE_CHECKING:
    from storage.file.io import FileIo

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


class CreateStep(StrEnum):
    """What `Domain.create_volume` does that must be undone when the volume does not come to be, in its order."""

    FOLDER = "folder"
    """The image's folder is made: the image is new."""
    SHARE = "share"
    """The template is linked into the image."""
    PAYLOAD = "payload"
    PARENT = "parent"
    """The parent, of the same image, is made internal."""
    METADATA = "metadata"
    """The volume becomes visible."""


Before = Callable[[CreateStep], Awaitable[None]]
"""Awaited before each step: how to undo it is stored then."""

ChangeFields = Callable[[DomainMetadata], Mapping[str, str | None]]
"""From the metadata as it is to the lines that change; None removes one. May refuse by an error."""


@dataclass(frozen=True)
class NewVolume:
    """A wanted volume. Sizes in bytes; ``capacity`` is rounded up to 4 KiB by `Domain.create_volume`."""

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


@dataclass(frozen=True)
class VolumeSizes:
    apparent: int
    true: int


@dataclass(frozen=True)
class Space:
    total: int
    free: int


@dataclass(frozen=True)
class Garbage:
    """What `collect_garbage` removed or mended, for the log: paths relative to the domain."""

    removed: tuple[str, ...]
    mended: tuple[str, ...]


class Domain(Protocol):
    domain_id: str
    kind: DomainKind
    path: str
    """The domain's folder: ``<mount>/<domain id>``."""
    block_size: int
    alignment: int
    version: FormatVersion
    lockspace: Lockspace
    sdm_lease: Lease
    has_volume_leases: bool

    @property
    def io(self) -> FileIo:
        """The domain's I/O helper: also for files under `master_path`."""

    @property
    def master_path(self) -> str:
        """``<domain>/master``: the tasks' store on the master."""

    def image_path(self, image_id: str) -> str: ...
    def volume_path(self, image_id: str, volume_id: str) -> str: ...
    def volume_lease(self, image_id: str, volume_id: str) -> Lease | None:
        """None when this kind of domain has no volume leases."""

    async def host_id_owner(self, host_id: int) -> HostIdOwner | None:
        """Read from storage, also by a host that has not joined. None when nobody can tell."""

    async def host_id_owners(self) -> Mapping[int, HostIdOwner]:
        """As `host_id_owner`, of all host ids that are not free. Raises `StorageError` when they can't be read."""

    # Metadata of the domain

    async def read_metadata(self) -> DomainMetadata: ...
    async def change_metadata(self, change: ChangeFields) -> DomainMetadata:
        """Read, changed, written by one at a time; what it is then. Nothing is written when nothing changes."""

    # Reading

    async def list_images(self) -> list[str]: ...
    async def list_volumes(self) -> dict[str, tuple[str, ...]]:
        """Images with the ids of their visible volumes, shared ones in every image that has them."""

    async def image_volumes(self, image_id: str) -> tuple[str, ...]:
        """Raises `ImageNotFound`."""

    async def read_volume(self, image_id: str, volume_id: str) -> VolumeMetadata:
        """Raises `VolumeNotFound`."""

    async def chain(self, image_id: str, volume_id: str) -> list[tuple[str, VolumeMetadata]]:
        """From the base to ``volume_id``. Raises `VolumeNotFound`, `InvalidChain`."""

    async def children(self, image_id: str, volume_id: str) -> list[str]: ...
    async def volume_sizes(self, image_id: str, volume_id: str) -> VolumeSizes: ...

    # Changes: for the holder of the SDM lease

    async def write_volume(self, image_id: str, volume_id: str, metadata: VolumeMetadata) -> None:
        """Replace a volume's metadata, in every image that shares it."""

    async def create_volume(
        self, wanted: NewVolume, before: Before | None = None, progress: Progress | None = None
    ) -> VolumeMetadata:
        """Make the volume and make its parent internal; ``before`` is told of each step.

        Raises `VolumeExists`, `InvalidVolume`, `DescriptionTooLong`. After an error the steps that were told of may
        be done, or half done: whoever was told undoes them.
        """

    async def share_volume(self, source_image_id: str, volume_id: str, target_image_id: str) -> None:
        """Link a shared volume into another image. Raises `VolumeNotShared`."""

    async def delete_volume(self, image_id: str, volume_id: str, *, force: bool = False) -> None:
        """Raises `VolumeShared`, `VolumeHasChildren` unless ``force``."""

    async def delete_image(self, image_id: str) -> None:
        """The whole image with its volumes. Raises `ImageNotFound`, `VolumeShared` when others are based on it."""

    async def removed_images(self) -> list[str]:
        """Images whose deletion was cut off: no listing shows them, they take space. For `purge_image`."""

    async def purge_image(self, removed: str) -> bool:
        """Remove what is left of a deleted image; False when nothing is."""

    async def remove_payload(self, image_id: str, volume_id: str) -> None:
        """The volume's content alone; nothing happens when it is not there."""

    async def collect_garbage(self) -> Garbage:
        """Remove what a crash left of volumes, put a parent without children back to leaf.

        Never while a change runs.
        """

    async def make_master(self) -> None:
        """Make the folders of a master: ``master/vms``, ``master/tasks``."""

    # Health

    async def probe(self) -> float:
        """Seconds that one direct read of the metadata took."""

    async def space(self) -> Space: ...
    async def close(self) -> None:
        """End the I/O helper."""
