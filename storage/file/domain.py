# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain on a mounted file system: `storage.domain.Domain` made of this folder's parts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from storage.domain import Before, ChangeFields, CreateStep, Domain, Garbage, NewVolume, Progress, Space, VolumeSizes
from storage.errors import DomainMismatch, DomainNotFound, DomainUnsupported, IoFailed
from storage.file import garbage, volumes
from storage.file.create import (
    NewDomain,
    find_domains,
    finish_removal,
    is_half_removed,
    remove_domain,
    write_domain,
)
from storage.file.files import LIMIT_READ, MASTER, METADATA, DomainFiles
from storage.file.host_ids import read_owner, read_owners
from storage.file.io import FileIo
from storage.leases import HostIdOwner, Lease, Leases
from storage.ondisk import domain_fields
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.values import DomainKind
from storage.ondisk.volume_metadata import VolumeMetadata

__all__ = [
    "FileDomain",
    "LeasesOf",
    "NewDomain",
    "create_file_domain",
    "find_file_domains",
    "finish_format",
    "is_half_formatted",
    "open_file_domain",
    "remove_file_domain",
]

LeasesOf = Callable[[DomainKind], Leases]
"""The lease edge for a kind of domain: flock for LOCALFS, sanlock for all others."""

FILE_KINDS = frozenset({DomainKind.LOCALFS, DomainKind.POSIXFS, DomainKind.NFS})
MASTER_FOLDERS = ("vms", "tasks")

find_file_domains = find_domains


async def create_file_domain(wanted: NewDomain, io: FileIo, leases: Leases, *, io_timeout_s: int) -> Domain:
    """Write a new domain of format V5; it becomes visible by its metadata, written last."""
    return FileDomain(await write_domain(wanted, io, leases, io_timeout_s=io_timeout_s))


async def open_file_domain(
    mount_path: str, domain_id: str, io: FileIo, leases_of: LeasesOf, *, io_timeout_s: int
) -> Domain:
    """Read the metadata.

    Raises `DomainNotFound`, `ChecksumMismatch`, `InvalidContent`, `DomainMismatch`, `DomainUnsupported`.
    """
    path = os.path.join(mount_path, domain_id)
    metadata_path = os.path.join(path, METADATA)
    try:
        metadata = domain_fields.decode(await io.read_direct(metadata_path, size=LIMIT_READ), metadata_path)
    except IoFailed as e:
        if e.error in ("ENOENT", "ENOTDIR"):
            raise DomainNotFound(domain_id) from e
        raise
    if metadata.domain_id != domain_id:
        raise DomainMismatch(path, domain_id, metadata.domain_id)
    metadata.check_geometry()
    if metadata.kind not in FILE_KINDS:
        raise DomainUnsupported(domain_id, f"its type {metadata.kind} is not built")
    return FileDomain(
        DomainFiles(
            domain_id=domain_id,
            kind=metadata.kind,
            path=path,
            block_size=metadata.block_size,
            alignment=metadata.alignment,
            version=metadata.version,
            io_timeout_s=io_timeout_s,
            io=io,
            leases=leases_of(metadata.kind),
        )
    )


async def remove_file_domain(domain: Domain) -> None:
    """Format: remove the domain's whole folder. Metadata first, so that a crash leaves no domain.

    Raises `FormatCutOff`: the rest is for `finish_format`.
    """
    assert isinstance(domain, FileDomain)
    await remove_domain(domain.files)


async def is_half_formatted(mount_path: str, domain_id: str, *, timeout_s: float) -> bool:
    path = os.path.join(mount_path, domain_id)
    io = FileIo(path, mount=mount_path, timeout_s=timeout_s)
    try:
        return await is_half_removed(path, io)
    finally:
        await io.close()


async def finish_format(mount_path: str, domain_id: str) -> None:
    """Remove what a format that was cut off left. Raises `FormatCutOff`."""
    path = os.path.join(mount_path, domain_id)
    io = FileIo(path, mount=mount_path)
    try:
        await finish_removal(domain_id, path, io)
    finally:
        await io.close()


class FileDomain:
    def __init__(self, files: DomainFiles) -> None:
        self.files = files
        self.domain_id = files.domain_id
        self.kind = files.kind
        self.path = files.path
        self.block_size = files.block_size
        self.alignment = files.alignment
        self.version = files.version
        self.lockspace = files.lockspace
        self.sdm_lease = files.sdm_lease
        self.has_volume_leases = files.leases.on_storage
        self._changing = asyncio.Lock()

    @property
    def io(self) -> FileIo:
        return self.files.io

    @property
    def master_path(self) -> str:
        return self.files.place(MASTER)

    def image_path(self, image_id: str) -> str:
        return self.files.image(image_id)

    def volume_path(self, image_id: str, volume_id: str) -> str:
        return self.files.volume(image_id, volume_id)

    def volume_lease(self, image_id: str, volume_id: str) -> Lease | None:
        return self.files.volume_lease(image_id, volume_id) if self.has_volume_leases else None

    # Reading

    async def host_id_owner(self, host_id: int) -> HostIdOwner | None:
        return await read_owner(self.io, self.lockspace, host_id) if self.files.leases.on_storage else None

    async def host_id_owners(self) -> Mapping[int, HostIdOwner]:
        return await read_owners(self.io, self.lockspace) if self.files.leases.on_storage else {}

    async def read_metadata(self) -> DomainMetadata:
        return await self.files.read_metadata()

    async def list_images(self) -> list[str]:
        return sorted(await self.files.list_volumes())

    async def list_volumes(self) -> dict[str, tuple[str, ...]]:
        return await self.files.list_volumes()

    async def image_volumes(self, image_id: str) -> tuple[str, ...]:
        return await self.files.image_volumes(image_id)

    async def read_volume(self, image_id: str, volume_id: str) -> VolumeMetadata:
        return await self.files.read_volume(image_id, volume_id)

    async def chain(self, image_id: str, volume_id: str) -> list[tuple[str, VolumeMetadata]]:
        return await self.files.chain(image_id, volume_id)

    async def children(self, image_id: str, volume_id: str) -> list[str]:
        return await self.files.children(image_id, volume_id)

    async def volume_sizes(self, image_id: str, volume_id: str) -> VolumeSizes:
        return await self.files.sizes(image_id, volume_id)

    # Changes

    async def change_metadata(self, change: ChangeFields) -> DomainMetadata:
        async with self._changing:
            found = await self.files.read_metadata()
            changed = found.with_fields(change(found))
            if changed.fields != found.fields:
                await self.files.write_metadata(changed)
            return changed

    async def write_volume(self, image_id: str, volume_id: str, metadata: VolumeMetadata) -> None:
        await self.files.write_volume(image_id, volume_id, metadata)

    async def create_volume(
        self, wanted: NewVolume, before: Before | None = None, progress: Progress | None = None
    ) -> VolumeMetadata:
        return await volumes.create(self.files, wanted, before or _untold, progress)

    async def share_volume(self, source_image_id: str, volume_id: str, target_image_id: str) -> None:
        await volumes.share(self.files, source_image_id, volume_id, target_image_id)

    async def delete_volume(self, image_id: str, volume_id: str, *, force: bool = False) -> None:
        await volumes.delete(self.files, image_id, volume_id, force=force)

    async def delete_image(self, image_id: str) -> None:
        await volumes.delete_image(self.files, image_id)

    async def removed_images(self) -> list[str]:
        return await volumes.removed_images(self.files)

    async def purge_image(self, removed: str) -> bool:
        return await volumes.purge_image(self.files, removed)

    async def remove_payload(self, image_id: str, volume_id: str) -> None:
        await self.files.remove_payload(image_id, volume_id)

    async def collect_garbage(self) -> Garbage:
        return await garbage.collect(self.files)

    async def make_master(self) -> None:
        for name in MASTER_FOLDERS:
            await self.io.make_folders(os.path.join(self.master_path, name))

    # Health

    async def probe(self) -> float:
        return await self.io.read_timed(self.files.place(METADATA))

    async def space(self) -> Space:
        found = await self.io.space(self.path)
        return Space(found.total, found.free)

    async def close(self) -> None:
        await self.io.close()


async def _untold(_step: CreateStep) -> None:
    return
