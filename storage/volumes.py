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
    LeaseError,
    LeaseNotFormatted,
    MetadataCleared,
    NotTheParent,
    UnsafeImage,
    VolumeNotFound,
)
from storage.images import attached_for_a_while
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
        if volume_id not in await domain.volumes.of_image(image_id):
            raise VolumeNotFound(volume_id, domain_id)
        try:
            metadata = await domain.volumes.read(image_id, volume_id)
        except (InvalidContent, ContentTooLong, MetadataCleared):
            return _invalid(domain_id, image_id, volume_id)
        try:
            sizes = await domain.volumes.sizes(image_id, volume_id)
            metadata = await _with_true_capacity(domain, image_id, volume_id, metadata)
        except VolumeNotFound:  # metadata without payload
            return _invalid(domain_id, image_id, volume_id)
        lease = await self._lease(domain_id, image_id, volume_id)
        return VolumeReport(domain_id, image_id, volume_id, metadata, sizes, lease)

    async def sizes(self, domain_id: str, image_id: str, volume_id: str) -> VolumeSizes:
        return await (await self._domains.get(domain_id)).volumes.sizes(image_id, volume_id)

    async def images(self, domain_id: str) -> list[str]:
        return await (await self._domains.get(domain_id)).volumes.images()

    async def of_image(self, domain_id: str, image_id: str) -> list[str]:
        return list(await (await self._domains.get(domain_id)).volumes.of_image(image_id))

    async def of_domain(self, domain_id: str) -> list[str]:
        listed = await (await self._domains.get(domain_id)).volumes.by_image()
        return sorted({volume_id for volumes in listed.values() for volume_id in volumes})

    async def domains_with_image(self, image_id: str, domain_ids: list[str]) -> list[str]:
        found = []
        for domain_id in domain_ids:
            with contextlib.suppress(ImageNotFound):
                await (await self._domains.get(domain_id)).volumes.of_image(image_id)
                found.append(domain_id)
        return found

    async def qemu_info(self, domain_id: str, image_id: str, volume_id: str) -> qemu_img.ImageInfo:
        """Of this volume; those below it are not opened. Raises `UnsafeImage`."""
        domain = await self._domains.get(domain_id)
        metadata = await domain.volumes.read(image_id, volume_id)
        async with attached_for_a_while(domain, image_id, [volume_id]) as attached:
            layer = layers.examine_alone(attached.payloads[volume_id], volume_id, metadata)
            return await qemu_img.info(layer.path, metadata.format, mount=domain.place)

    async def measure(
        self, domain_id: str, image_id: str, volume_id: str, target: VolumeFormat, *, backing_chain: bool, base_id: str
    ) -> qemu_img.Measure:
        """A copy of the volume with all below it; with ``base_id`` of the volume and its parent, which that must be;
        without ``backing_chain`` of the volume alone, whatever ``base_id`` is (storage.md 16.8).

        Raises `NotTheParent`, `UnsafeImage`, `InvalidChain`.
        """
        domain = await self._domains.get(domain_id)
        if not backing_chain:
            chain = [(volume_id, await domain.volumes.read(image_id, volume_id))]
        else:
            chain = await domain.volumes.chain(image_id, volume_id)
            if base_id and base_id not in [v for v, _ in chain[-2:-1]]:
                raise NotTheParent(base_id, volume_id)
        async with attached_for_a_while(domain, image_id, [v for v, _ in chain]) as attached:
            if not backing_chain:
                found = [layers.examine_alone(attached.payloads[v], v, m) for v, m in chain]
            else:
                found = layers.examine(attached.payloads, chain)[-2 if base_id else 0 :]
            return await qemu_img.measure(found, target, mount=domain.place)

    async def _lease(self, domain_id: str, image_id: str, volume_id: str) -> LeaseReport | None:
        domain, leases = await self._domains.with_leases(domain_id)
        lease = await domain.volumes.lease(image_id, volume_id)
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
        payload = await domain.chains.look(image_id, volume_id)
        if payload is None:
            return metadata
        return layers.with_true_capacity(layers.examine_alone(payload, volume_id, metadata))
    except UnsafeImage:  # said by whoever is about to open it
        return metadata


def _invalid(domain_id: str, image_id: str, volume_id: str) -> VolumeReport:
    return VolumeReport(domain_id, image_id, volume_id, None, VolumeSizes(0, 0), None)
