# SPDX-License-Identifier: GPL-2.0-or-later
"""What any host may ask about volumes: metadata, sizes, the image as qemu sees it.

Reading never changes anything. Metadata that cannot be read makes a volume INVALID instead of
failing the question, so that the engine can show and remove it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from storage import layers, qemu_img
from storage.domain import Domain, VolumeSizes
from storage.domains import Domains
from storage.errors import (
    ContentTooLong,
    ImageNotFound,
    InvalidContent,
    IoFailed,
    LeaseError,
    LeaseNotFormatted,
    MetadataCleared,
    NotTheParent,
    UnsafeImage,
    VolumeNotFound,
)
from storage.leases import Lease
from storage.ondisk.values import VolumeFormat
from storage.ondisk.volume_metadata import VolumeMetadata


@dataclass(frozen=True)
class LeaseReport:
    lease: Lease
    version: int
    owners: list[int]


@dataclass(frozen=True)
class VolumeReport:
    domain_id: str
    image_id: str
    volume_id: str
    metadata: VolumeMetadata | None
    """None when it cannot be read, or its payload is missing: the volume is invalid."""
    sizes: VolumeSizes
    lease: LeaseReport | None


class VolumeReader:
    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    async def report(self, domain_id: str, image_id: str, volume_id: str) -> VolumeReport:
        """Raises `VolumeNotFound`."""
        domain = await self._domains.get(domain_id)
        if volume_id not in await domain.image_volumes(image_id):
            raise VolumeNotFound(volume_id, domain_id)
        try:
            metadata = await domain.read_volume(image_id, volume_id)
            sizes = await domain.volume_sizes(image_id, volume_id)
            metadata = await _with_true_capacity(domain, image_id, volume_id, metadata)
        except (InvalidContent, ContentTooLong, MetadataCleared):
            return _invalid(domain_id, image_id, volume_id)
        except IoFailed as e:
            if e.error == "ENOENT":  # metadata without payload
                return _invalid(domain_id, image_id, volume_id)
            raise
        lease = await self._lease(domain_id, image_id, volume_id)
        return VolumeReport(domain_id, image_id, volume_id, metadata, sizes, lease)

    async def sizes(self, domain_id: str, image_id: str, volume_id: str) -> VolumeSizes:
        return await (await self._domains.get(domain_id)).volume_sizes(image_id, volume_id)

    async def images(self, domain_id: str) -> list[str]:
        return await (await self._domains.get(domain_id)).list_images()

    async def of_image(self, domain_id: str, image_id: str) -> list[str]:
        return list(await (await self._domains.get(domain_id)).image_volumes(image_id))

    async def of_domain(self, domain_id: str) -> list[str]:
        listed = await (await self._domains.get(domain_id)).list_volumes()
        return sorted({volume_id for volumes in listed.values() for volume_id in volumes})

    async def domains_with_image(self, image_id: str, domain_ids: list[str]) -> list[str]:
        found = []
        for domain_id in domain_ids:
            with contextlib.suppress(ImageNotFound):
                await (await self._domains.get(domain_id)).image_volumes(image_id)
                found.append(domain_id)
        return found

    async def qemu_info(self, domain_id: str, image_id: str, volume_id: str) -> qemu_img.ImageInfo:
        """Of this volume; those below it are not opened. Raises `UnsafeImage`."""
        domain = await self._domains.get(domain_id)
        metadata = await domain.read_volume(image_id, volume_id)
        layer = await layers.examine_alone(domain, image_id, volume_id, metadata)
        return await qemu_img.info(layer.path, metadata.format, mount=domain.io.mount)

    async def measure(
        self, domain_id: str, image_id: str, volume_id: str, target: VolumeFormat, *, backing_chain: bool, base_id: str
    ) -> qemu_img.Measure:
        """A copy of the volume with all below it; with ``base_id`` of the volume and its parent, which that must be;
        without ``backing_chain`` of the volume alone, whatever ``base_id`` is (storage.md 16.8).

        Raises `NotTheParent`, `UnsafeImage`, `InvalidChain`.
        """
        domain = await self._domains.get(domain_id)
        if not backing_chain:
            metadata = await domain.read_volume(image_id, volume_id)
            alone = [await layers.examine_alone(domain, image_id, volume_id, metadata)]
            return await qemu_img.measure(alone, target, mount=domain.io.mount)
        chain = await domain.chain(image_id, volume_id)
        if base_id and base_id not in [v for v, _ in chain[-2:-1]]:
            raise NotTheParent(base_id, volume_id)
        found = await layers.examine(domain, image_id, chain)
        return await qemu_img.measure(found[-2:] if base_id else found, target, mount=domain.io.mount)

    async def _lease(self, domain_id: str, image_id: str, volume_id: str) -> LeaseReport | None:
        domain, leases = await self._domains.with_leases(domain_id)
        lease = domain.volume_lease(image_id, volume_id)
        if lease is None:
            return None
        try:
            record = await leases.read_lease(lease)
            owners = await leases.owners(lease)
        except (LeaseError, LeaseNotFormatted):
            return None
        return LeaseReport(lease, record.version, [owner.host_id for owner in owners])


async def _with_true_capacity(
    domain: Domain, image_id: str, volume_id: str, metadata: VolumeMetadata
) -> VolumeMetadata:
    try:
        return layers.with_true_capacity(await layers.examine_alone(domain, image_id, volume_id, metadata))
    except UnsafeImage:  # said by whoever is about to open it
        return metadata


def _invalid(domain_id: str, image_id: str, volume_id: str) -> VolumeReport:
    return VolumeReport(domain_id, image_id, volume_id, None, VolumeSizes(0, 0), None)
