# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain on a mounted file system: `storage.domain.Domain` made of a folder's parts."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping

from storage import conversion
from storage.domain import Chains, ChangeFields, Domain, PeoplesFile, Space, VolumeStore
from storage.edges import LeasesOf
from storage.errors import DomainMismatch, DomainNotFound, DomainUnsupported, IoFailed, StorageError
from storage.file.chains import FileChains
from storage.file.convert import take_step
from storage.file.create import (
    find_domains,
    finish_removal,
    is_half_removed,
    remove_domain,
    write_domain,
)
from storage.file.files import DIRECT_READ, LIMIT_READ, MASTER, METADATA, DomainFiles
from storage.file.host_ids import read_owner, read_owners
from storage.file.io import FileIo
from storage.file.iopool import IoPools
from storage.file.master import make_folders
from storage.file.peoples_files import peoples_files
from storage.file.safelease import SafeLease
from storage.file.volumes import FileVolumes
from storage.leases import HostIdOwner, Lease, Leases
from storage.new_domain import NewDomain
from storage.ondisk import domain_fields
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.values import DomainClass, DomainKind, FormatVersion
from storage.tasks.files import MasterFolders

__all__ = [
    "FileDomain",
    "create_file_domain",
    "find_file_domains",
    "finish_format",
    "is_half_formatted",
    "open_file_domain",
]

FILE_KINDS = frozenset({DomainKind.LOCALFS, DomainKind.POSIXFS, DomainKind.NFS})
GONE = ("ENOENT", "ENOTDIR")

find_file_domains = find_domains


async def create_file_domain(wanted: NewDomain, mount: str, io: FileIo, leases: Leases, *, io_timeout_s: int) -> Domain:
    """Write a new domain; it becomes visible by its metadata, written last."""
    return FileDomain(await write_domain(wanted, mount, io, leases, io_timeout_s=io_timeout_s))


async def open_file_domain(
    mount_path: str, domain_id: str, io: FileIo, leases_of: LeasesOf, *, io_timeout_s: int
) -> Domain:
    """Read the metadata.

    Raises `DomainNotFound`, `ChecksumMismatch`, `InvalidContent`, `DomainMismatch`, `DomainUnsupported`,
    `UnsupportedVersion`.
    """
    path = os.path.join(mount_path, domain_id)
    metadata_path = os.path.join(path, METADATA)
    try:
        metadata = domain_fields.decode(await io.read_direct(metadata_path, size=LIMIT_READ), metadata_path)
    except IoFailed as e:
        if e.error in GONE:
            raise DomainNotFound(domain_id) from e
        raise
    if metadata.domain_id != domain_id:
        raise DomainMismatch(path, domain_id, metadata.domain_id)
    metadata.check_geometry()
    if metadata.kind not in FILE_KINDS:
        raise DomainUnsupported(domain_id, f"its type {metadata.kind} is not built")
    has_leases = metadata.version.has_leases
    domain = FileDomain(
        DomainFiles(
            domain_id=domain_id,
            kind=metadata.kind,
            domain_class=metadata.domain_class,
            path=path,
            block_size=metadata.block_size,
            alignment=metadata.alignment,
            version=metadata.version,
            io_timeout_s=io_timeout_s,
            io=io,
            leases=leases_of(metadata.kind) if has_leases else SafeLease(io, io_timeout_s=io_timeout_s),
        )
    )
    domain.seen = metadata
    return domain


async def is_half_formatted(mount_path: str, domain_id: str, pools: IoPools, *, timeout_s: float) -> bool:
    path = os.path.join(mount_path, domain_id)
    io = FileIo(path, mount=mount_path, timeout_s=timeout_s, pools=pools)
    try:
        return await is_half_removed(path, io)
    finally:
        await io.close()


async def finish_format(mount_path: str, domain_id: str, pools: IoPools) -> None:
    """Remove what a format that was cut off left. Raises `FormatCutOff`."""
    path = os.path.join(mount_path, domain_id)
    io = FileIo(path, mount=mount_path, pools=pools)
    try:
        await finish_removal(domain_id, path, io)
    finally:
        await io.close()


class FileDomain:
    def __init__(self, files: DomainFiles) -> None:
        self.files = files
        self.domain_id = files.domain_id
        self.kind = files.kind
        self.domain_class = files.domain_class
        self.leases = files.leases
        self.block_size = files.block_size
        self.alignment = files.alignment
        self.lockspace = files.lockspace
        self.sdm_lease = files.sdm_lease
        self.folder = files.path
        self.place = files.io.mount
        self._volumes = FileVolumes(files)
        self.volumes: VolumeStore = self._volumes
        self.chains: Chains = FileChains(files)
        self.seen: DomainMetadata | None = None
        self._changing = asyncio.Lock()

    @property
    def version(self) -> FormatVersion:
        return self.files.version

    # Host ids

    async def host_id_owner(self, host_id: int) -> HostIdOwner | None:
        return await read_owner(self.files.io, self.lockspace, host_id) if self.files.leases.on_storage else None

    async def host_id_owners(self) -> Mapping[int, HostIdOwner]:
        return await read_owners(self.files.io, self.lockspace) if self.files.leases.on_storage else {}

    async def read_leader(self, lease: Lease) -> bytes:
        return await self.files.io.read_direct(lease.path, offset=lease.offset, size=DIRECT_READ)

    # Metadata

    async def read_metadata(self) -> DomainMetadata:
        return self._followed(await self.files.read_metadata())

    async def change_metadata(self, change: ChangeFields) -> DomainMetadata:
        async with self._changing:
            found = await self.files.read_metadata()
            changed = found.with_fields(change(found))
            if changed.fields != found.fields:
                await self.files.write_metadata(changed)
            return self._followed(changed)

    def _followed(self, metadata: DomainMetadata) -> DomainMetadata:
        """An SPM, of whatever host, may have converted or renamed the domain since it was opened."""
        self.files.version = metadata.version
        self.seen = metadata
        return metadata

    async def convert(self, version: int) -> bool:
        found = (await self.read_metadata()).version
        steps = conversion.plan(self.domain_id, self.domain_class, found, version)
        for step in steps:
            await take_step(step, self.files, self._volumes, self.change_metadata)
        return bool(steps)

    @contextlib.asynccontextmanager
    async def master_files(self) -> AsyncIterator[MasterFolders]:
        yield await make_folders(self.files.io, self.files.place(MASTER))

    async def peoples_files(self) -> Mapping[str, PeoplesFile]:
        return await peoples_files(self.files)

    async def format(self) -> None:
        await remove_domain(self.files)

    # Health

    async def probe(self) -> float:
        path = self.files.place(METADATA)
        try:
            took_s, content = await self.files.io.read_timed(path, size=LIMIT_READ)
        except IoFailed as e:
            if e.error in GONE:  # removed under who has it open
                raise DomainNotFound(self.files.domain_id) from e
            raise
        with contextlib.suppress(StorageError):  # the storage answers; who needs what is damaged is told so
            self._followed(domain_fields.decode(content, path))
        return took_s

    async def space(self) -> Space:
        """Of what the lock daemon opens."""
        opened = (self.lockspace.path, self.sdm_lease.path)
        found = await self.files.io.space(self.folder, writes=opened if self.domain_class is DomainClass.DATA else ())
        return Space(found.total, found.free, found.refused)

    async def close(self) -> None:
        await self.files.io.close()
