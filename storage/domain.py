# SPDX-License-Identifier: GPL-2.0-or-later
"""What a storage domain offers to pools, tasks, VMs and the monitor, whatever it is made of: three contracts.

- `Domain`: who it is, its metadata, its health;
- `VolumeStore`: its images and volumes, read and changed;
- `Chains`: volumes made usable on this host, for a holder.

`storage.file` is one half below them; block domains are to be another. Nothing above them knows where a thing lies or
by what it is read: paths are answers (what QEMU opens, what a link points to), never questions.

Who may call what: reading and attaching is for every host. Everything that writes is for the process that holds
the domain's SDM lease (and, within it, one change of an image at a time): a domain does not lock.

A volume is *visible* when a listing shows it. Making one makes it visible last, removing one takes
that away first, so a crash leaves at most what no listing shows; `VolumeStore.collect_garbage` removes that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from storage.attached import AttachedChain, Payload
from storage.leases import HostIdOwner, Lease, Leases, Lockspace
from storage.new_volume import Before, CreateStep, NewVolume, Progress
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.values import DomainClass, DomainKind, FormatVersion
from storage.ondisk.volume_metadata import VolumeMetadata
from storage.tasks.files import MasterFolders
from storage.tasks.record import Recovery

ChangeFields = Callable[[DomainMetadata], Mapping[str, str | None]]
"""From the metadata as it is to the lines that change; None removes one. May refuse by an error."""

Chain = list[tuple[str, VolumeMetadata]]
"""From the base up: volume ids and their metadata."""

Claims = Collection[tuple[str, str]]
"""(image, volume) that stored tasks name, with an empty volume for the image itself."""


@dataclass(frozen=True)
class VolumeSizes:
    apparent: int
    true: int


@dataclass(frozen=True)
class Space:
    total: int
    free: int
    write_refused: str = ""
    """What the storage says to who would write; empty when it lets us."""


@dataclass(frozen=True)
class Garbage:
    """What `VolumeStore.collect_garbage` removed or mended, for the log."""

    removed: tuple[str, ...]
    mended: tuple[str, ...]


@dataclass(frozen=True)
class PeoplesFile:
    """A file of an ISO domain. ``changed``: seconds since 1970, with a fraction."""

    size: int
    changed: float
    mode: int
    uid: int
    gid: int


class VolumeStore(Protocol):
    """Images and volumes of one domain. Every call may raise `StorageNotResponding` and `IoFailed`."""

    # Reading

    async def images(self) -> list[str]: ...
    async def by_image(self) -> dict[str, tuple[str, ...]]:
        """Images with the ids of their visible volumes, shared ones in every image that has them."""

    async def of_image(self, image_id: str) -> tuple[str, ...]:
        """Raises `ImageNotFound`."""

    async def read(self, image_id: str, volume_id: str) -> VolumeMetadata:
        """Of a shared volume what its own image says, in every image. Raises `VolumeNotFound`, `DAMAGED`."""

    async def chain(self, image_id: str, volume_id: str) -> Chain:
        """From the base to ``volume_id``. Raises `VolumeNotFound`, `InvalidChain`."""

    async def children(self, image_id: str, volume_id: str) -> list[str]:
        """Volumes on top of this one: in the image, and for a shared one in those that share it."""

    async def sizes(self, image_id: str, volume_id: str) -> VolumeSizes:
        """Of the payload. Raises `VolumeNotFound` where there is none, whatever a listing shows."""

    async def lease(self, image_id: str, volume_id: str) -> Lease | None:
        """None where volumes have no leases, or this one has no place for one."""

    # Changes: for the holder of the SDM lease

    async def write(
        self, image_id: str, volume_id: str, metadata: VolumeMetadata, *, expect_generation: int | None = None
    ) -> None:
        """Replace a volume's metadata, in every image that shares it.

        Raises `GenerationMismatch`, and nothing is written, when the stored generation is not the expected one: a
        job of another host ended since the metadata was read.
        """

    async def create(
        self, wanted: NewVolume, before: Before | None = None, progress: Progress | None = None
    ) -> VolumeMetadata:
        """Make the volume and make its parent internal; ``before`` is told of each step.

        Raises `VolumeExists`, `InvalidVolume`, `VolumeNotFound` (of the parent), `VolumeNotShared`,
        `DescriptionTooLong`: before the first step, but for a volume that appears meanwhile. After an error the steps
        that were told of may be done, or half done: whoever was told undoes them.
        """

    async def share(self, source_image_id: str, volume_id: str, target_image_id: str) -> None:
        """Link a shared volume into another image. Raises `VolumeNotShared`."""

    async def unshare(self, image_id: str, volume_id: str) -> None:
        """Remove that link; what else has the volume keeps it. Nothing happens when it is not there."""

    async def extend(self, image_id: str, volume_id: str, size: int) -> int:
        """Make the payload larger, of a preallocated volume with its space; the size that it has then. The metadata
        is not changed, what the payload holds is never written over."""

    async def set_parent(self, image_id: str, volume_id: str, parent_id: str) -> None:
        """The parent by id, blank for none; the payload's own header is not looked at."""

    async def delete(self, image_id: str, volume_id: str, *, force: bool = False) -> None:
        """Raises `VolumeNotFound`; `VolumeShared`, `VolumeHasChildren` unless ``force``. Damaged metadata does not
        keep a volume."""

    async def hide(self, image_id: str, volume_id: str) -> None:
        """No listing shows the volume from here on. Nothing happens when none does."""

    async def remove_rest(self, image_id: str, volume_id: str) -> None:
        """What is left of a volume that no listing shows; a visible one is left alone."""

    async def delete_image(self, image_id: str) -> None:
        """The whole image with its volumes. Raises `ImageNotFound`, `VolumeShared` when others are based on it."""

    async def drop_image(self, image_id: str) -> None:
        """An image without anything in it; one that holds something is left alone."""

    async def removed(self) -> list[str]:
        """Images whose deletion was cut off: no listing shows them, they take space. For `purge`."""

    async def purge(self, removed: str) -> bool:
        """Remove what is left of a deleted image; False when nothing is."""

    async def collect_garbage(self, claimed: Claims) -> Garbage:
        """Remove what a crash left of volumes, put a parent without children back to leaf.

        What a stored task names is no garbage: its steps back may still need it, and no metadata speaks for it. Never
        while a change runs.
        """

    # How to undo, as tasks store it for whoever becomes SPM next (storage.md 11.3)

    async def undo(self, step: CreateStep, wanted: NewVolume) -> tuple[Recovery, ...]:
        """What undoes a step of a creation."""

    def undo_created(self, pool_folder: str, image_id: str, volume_id: str, ctime: int) -> Recovery:
        """What undoes a finished creation. ``pool_folder``: ``<repository>/<pool>``, which the field stores."""

    def undo_deleted(self, image_id: str, volume_id: str) -> tuple[Recovery, ...]:
        """What removes the rest of a deletion that got as far as `hide`."""


class Chains(Protocol):
    """Volumes made usable on this host.

    A *holder* is a name (`storage.holders`). What one holder gives back, another keeps.
    What is attached outlives this object and the agent: who uses an image is on record (`storage.in_use`), and a
    domain that is opened again goes by what was attached, and gives back what nobody is on record for.
    """

    kind: str
    """``file`` or ``block``: how QEMU opens what is attached."""

    async def attach(self, image_id: str, volume_ids: Sequence[str], holder: str) -> AttachedChain:
        """These volumes, readable here, for us and for QEMU. The same again changes nothing.

        Raises `VolumeNotFound`, and `UnsafeImage` for what is no plain payload.
        """

    async def detach(self, image_id: str, holder: str) -> None:
        """All that this holder has of the image. Nothing happens when it has nothing."""

    async def look(self, image_id: str, volume_id: str) -> Payload | None:
        """A volume as it lies there, without attaching it; None where that shows nothing. Raises as `attach`."""


class Domain(Protocol):
    domain_id: str
    kind: DomainKind
    domain_class: DomainClass
    leases: Leases
    """How this domain is locked: of its kind, and of its version."""
    block_size: int
    alignment: int
    lockspace: Lockspace
    sdm_lease: Lease
    volumes: VolumeStore
    chains: Chains

    seen: DomainMetadata | None
    """As of the last look; None before the first. For people: what is decided by it is read anew."""
    folder: str
    """What the pool's link to the domain points to."""
    place: str
    """What hangs as one with the domain when it hangs (`vdsm.common.hanging`)."""

    @property
    def version(self) -> FormatVersion:
        """As of the last look at the metadata: an SPM may convert the domain."""

    # Host ids

    async def host_id_owner(self, host_id: int) -> HostIdOwner | None:
        """Read from storage, also by a host that has not joined. None when nobody can tell."""

    async def host_id_owners(self) -> Mapping[int, HostIdOwner]:
        """As `host_id_owner`, of all host ids that are not free. Raises `StorageError` when they can't be read."""

    async def read_leader(self, lease: Lease) -> bytes:
        """What stands at a lease's place: the lock daemon tells a blank place and a damaged lease alike."""

    # Metadata of the domain

    async def read_metadata(self) -> DomainMetadata: ...
    async def change_metadata(self, change: ChangeFields) -> DomainMetadata:
        """Read, changed, written by one at a time; what it is then. Nothing is written when nothing changes."""

    async def convert(self, version: int) -> bool:
        """Bring the domain to a later format version; False when it has it. Cut off anywhere, it is begun again.

        For the holder of the SDM lease, with nothing else under way on the domain. Raises `ConversionUnsupported`.
        """

    def master_files(self) -> AbstractAsyncContextManager[MasterFolders]:
        """Where tasks are stored on a master, there for as long as the context lasts; its folders are made.

        For the holder of the SDM lease: on block storage it is a file system that one host alone may mount.
        """

    async def peoples_files(self) -> Mapping[str, PeoplesFile]:
        """Files of an ISO domain by relative name."""

    async def format(self) -> None:
        """Remove the domain from its storage, volumes and all; nobody finds it from the first step on.

        For who knows that nobody uses it. Raises `FormatCutOff`: the rest is for `DomainSource.finish_format`.
        """

    # Health

    async def probe(self) -> float:
        """Seconds that one direct read of the metadata took. What other hosts changed of it is known then."""

    async def space(self) -> Space: ...
    async def close(self) -> None:
        """Give up what reads it here. What is attached stays so."""
