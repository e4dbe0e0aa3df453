# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a file domain's parts lie, and its metadata read and replaced whole."""

from __future__ import annotations

import os
from dataclasses import dataclass

from storage.errors import ImagesUnsupported, IoFailed
from storage.file.io import FileIo
from storage.leases import Lease, Leases, Lockspace
from storage.ondisk import domain_fields
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.domain_metadata import MAX_SIZE
from storage.ondisk.layout import sdm_offset
from storage.ondisk.values import DomainClass, DomainKind, FormatVersion
from vdsm.common.units import round_up

METADATA = "dom_md/metadata"
IMAGES = "images"
MASTER = "master"
META = ".meta"
LEASE = ".lease"
NEW = ".new"
REMOVED_PREFIX = "_remove_me_"

DIRECT_READ = 4096
LIMIT_READ = round_up(MAX_SIZE + 1, DIRECT_READ)


@dataclass
class DomainFiles:
    """One domain's paths and small files. Does not lock; see `storage.domain` on who may write.

    All parts of a domain share one, and nothing of it changes but ``version``, by a conversion.
    """

    domain_id: str
    kind: DomainKind
    domain_class: DomainClass
    path: str
    block_size: int
    alignment: int
    version: FormatVersion
    io_timeout_s: int
    io: FileIo
    leases: Leases

    # Places

    def place(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def image(self, image_id: str) -> str:
        return os.path.join(self.path, IMAGES, image_id)

    def volume(self, image_id: str, volume_id: str, suffix: str = "") -> str:
        return os.path.join(self.path, IMAGES, image_id, volume_id + suffix)

    @property
    def lockspace(self) -> Lockspace:
        return Lockspace(self.domain_id, self.place("dom_md/ids"), self.alignment, self.block_size, self.io_timeout_s)

    @property
    def sdm_lease(self) -> Lease:
        return self._lease("SDM", self.place("dom_md/leases"), sdm_offset(self.alignment))

    def volume_lease(self, image_id: str, volume_id: str) -> Lease:
        return self._lease(volume_id, self.volume(image_id, volume_id, LEASE), 0)

    def _lease(self, resource: str, path: str, offset: int) -> Lease:
        return Lease(self.domain_id, resource, path, offset, self.alignment, self.block_size)

    # The domain's metadata

    async def read_metadata(self) -> DomainMetadata:
        path = self.place(METADATA)
        return domain_fields.decode(await self.io.read_direct(path, size=LIMIT_READ), path)

    async def write_metadata(self, metadata: DomainMetadata) -> None:
        data = domain_fields.encode(metadata)
        try:
            await self.io.write_atomic(self.place(METADATA), data)
        except IoFailed as e:
            if e.error != "ESTALE":  # the server replaced the folder under our handle: once more finds it
                raise
            await self.io.write_atomic(self.place(METADATA), data)

    @property
    def has_external_leases(self) -> bool:
        return self.leases.on_storage and self.version.has_external_leases

    def check_writable(self) -> None:
        """Raises `ImagesUnsupported`."""
        if self.domain_class is DomainClass.ISO:
            raise ImagesUnsupported(self.domain_id)
