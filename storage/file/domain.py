# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain on a mounted file system, of format V3 to V5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from storage.domain import Domain
from storage.file.io import FileIo
from storage.leases import Leases
from storage.ondisk.values import DomainKind

LeasesOf = Callable[[DomainKind], Leases]
"""The lease edge for a kind of domain: flock for LOCALFS, sanlock for all others."""


@dataclass(frozen=True)
class NewDomain:
    domain_id: str
    kind: DomainKind
    mount_path: str
    """``<repository>/mnt/<transformed remote path>``."""
    remote_path: str
    description: str
    block_size: int = 512
    """Bytes; 0 takes what the storage works with (LOCALFS only)."""
    max_hosts: int = 250


async def create_file_domain(wanted: NewDomain, io: FileIo, leases: Leases, *, io_timeout_s: int) -> Domain:
    """Write a new domain of format V5; it becomes visible by its metadata, written last."""
    raise NotImplementedError


async def open_file_domain(
    mount_path: str, domain_id: str, io: FileIo, leases_of: LeasesOf, *, io_timeout_s: int
) -> Domain:
    """Read the metadata. Raises `DomainNotFound`, `ChecksumMismatch`, `DomainMismatch`."""
    raise NotImplementedError


async def find_file_domains(mount_path: str, io: FileIo) -> list[str]:
    """Ids of the domains on a mount: folders named by a UUID that hold ``dom_md/metadata``."""
    raise NotImplementedError


async def remove_file_domain(domain: Domain) -> None:
    """Format: remove the domain's whole folder. Metadata first, so that a crash leaves no domain."""
    raise NotImplementedError
