# SPDX-License-Identifier: GPL-2.0-or-later
"""Prepared images of this host: the volume chain reachable for consumers, until the last one is done.

A consumer is a name: ``vm-<id>``, ``api``. Two consumers of one image (a VM and a transfer) do not
take it from each other: the image stays prepared until each has torn it down. Who uses what is
written under ``/run/vdsm``, before the run link is made and until it is gone, so a restarted
agent knows it; both vanish at boot.

The run link ``/run/vdsm/storage/<domain>/<image>`` is the contract (storage.md 17); its presence means
prepared.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass, replace

from storage import layers, locks
from storage.domain import Domain
from storage.errors import StorageError
from storage.links import replace_link
from storage.locks import Locks, Mode
from storage.ondisk.values import Legality, VolumeFormat, VolumeRole
from storage.ondisk.volume_metadata import VolumeMetadata
from vdsm.common.atomic import remove_durably, write_atomic

log = logging.getLogger("vdsm.storage.images")

PREPARE_WAIT_S = 600.0
API = "api"


class VolumeIllegal(StorageError):
    volume_id: str
    domain_id: str
    msg = "Volume {self.volume_id} of domain {self.domain_id} is illegal: it must not be used"


@dataclass(frozen=True)
class VolumePath:
    domain_id: str
    image_id: str
    volume_id: str
    path: str
    lease_path: str | None
    lease_offset: int | None


@dataclass(frozen=True)
class PreparedImage:
    path: str
    kind: str
    """``file`` or ``block``."""
    format: str
    """``raw`` or ``cow``."""
    chain: tuple[VolumePath, ...]
    """From the base to the leaf."""


class Images:
    def __init__(self, links: str, records: str, held: Locks) -> None:
        self._links = links
        self._records = records
        self._locks = held

    async def prepare(
        self, domain: Domain, image_id: str, volume_id: str, *, consumer: str = API, allow_illegal: bool = False
    ) -> PreparedImage:
        """Raises `VolumeNotFound`, `InvalidChain`, `VolumeIllegal`, `UnsafeImage`; then nothing more is prepared."""
        async with self._image_locked(domain, image_id):
            chain = await domain.chain(image_id, volume_id)
            if not allow_illegal:
                _check_legal(domain, chain)
            await _inspect(domain, image_id, chain)
            users = self._users(domain.domain_id, image_id)
            self._record(domain.domain_id, image_id, users | {consumer})
            try:
                self._link(domain, image_id)
            except OSError:
                self._record(domain.domain_id, image_id, users)
                raise
            return _prepared(domain, image_id, chain)

    async def teardown(self, domain_id: str, image_id: str, *, consumer: str = API) -> None:
        """Nothing happens when this consumer had not prepared the image. Needs no storage."""
        async with self._locks.hold([locks.image(domain_id, image_id)], wait_s=PREPARE_WAIT_S):
            users = self._users(domain_id, image_id)
            left = users - {consumer}
            if left:
                log.info("image %s of %s stays prepared for %s", image_id, domain_id, ", ".join(sorted(left)))
                self._record(domain_id, image_id, left)
                return
            self._unlink(domain_id, image_id)
            self._record(domain_id, image_id, frozenset())

    def adopt(self, domain_id: str, image_id: str, *, consumer: str) -> None:
        """Put on record that ``consumer`` uses an image that is prepared."""
        self._record(domain_id, image_id, self._users(domain_id, image_id) | {consumer})

    def prepared(self) -> list[tuple[str, str]]:
        """(domain, image) of every record."""
        with contextlib.suppress(FileNotFoundError):
            names = [name.partition("_") for name in os.listdir(self._records) if not name.startswith(".")]
            return sorted((domain_id, image_id) for domain_id, _, image_id in names)
        return []

    def users(self, domain_id: str, image_id: str) -> frozenset[str]:
        return self._users(domain_id, image_id)

    def _image_locked(self, domain: Domain, image_id: str) -> contextlib.AbstractAsyncContextManager[None]:
        wanted = [locks.domain(domain.domain_id, Mode.SHARED), locks.image(domain.domain_id, image_id)]
        return self._locks.hold(wanted, wait_s=PREPARE_WAIT_S)

    def _link(self, domain: Domain, image_id: str) -> None:
        folder = os.path.join(self._links, domain.domain_id)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        replace_link(domain.image_path(image_id), os.path.join(folder, image_id))

    def _unlink(self, domain_id: str, image_id: str) -> None:
        folder = os.path.join(self._links, domain_id)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, image_id))
        with contextlib.suppress(OSError):  # not empty: other images are prepared
            os.rmdir(folder)

    def _users(self, domain_id: str, image_id: str) -> frozenset[str]:
        try:
            with open(self._record_path(domain_id, image_id), "rb") as f:
                return frozenset(json.loads(f.read()))
        except FileNotFoundError:
            return frozenset()
        except ValueError:
            log.error("%s is no list of consumers: ignored", self._record_path(domain_id, image_id))
            return frozenset()

    def _record(self, domain_id: str, image_id: str, consumers: frozenset[str]) -> None:
        path = self._record_path(domain_id, image_id)
        if not consumers:
            remove_durably(path)
            return
        os.makedirs(self._records, mode=0o755, exist_ok=True)
        write_atomic(path, json.dumps(sorted(consumers)).encode())

    def _record_path(self, domain_id: str, image_id: str) -> str:
        return os.path.join(self._records, f"{domain_id}_{image_id}")


def _check_legal(domain: Domain, chain: list[tuple[str, VolumeMetadata]]) -> None:
    for volume_id, metadata in chain:
        if metadata.legality is not Legality.LEGAL:
            raise VolumeIllegal(volume_id, domain.domain_id)


async def _inspect(domain: Domain, image_id: str, chain: list[tuple[str, VolumeMetadata]]) -> None:
    """Refuse what QEMU must not open, let its group open the rest, and mend capacities.

    A resize that was cut off leaves a capacity of 0, or below the image's own size: writes past it would be lost. Not
    of what is still being written to, whose header is not ours yet, nor of what is shared. A raw file shorter
    than its capacity is normal (storage.md 16.10).
    """
    for layer in await layers.examine(domain, image_id, chain):
        metadata = layer.metadata
        if layer.mode | (layer.mode & 0o700) >> 3 != layer.mode:
            await domain.io.chmod(layer.path, layer.mode | (layer.mode & 0o700) >> 3)
        if metadata.role is VolumeRole.SHARED or metadata.legality is not Legality.LEGAL:
            continue
        if metadata.capacity < layer.virtual_size:
            log.warning("volume %s: capacity %d becomes %d", layer.volume_id, metadata.capacity, layer.virtual_size)
            await domain.write_volume(image_id, layer.volume_id, replace(metadata, capacity=layer.virtual_size))


def _prepared(domain: Domain, image_id: str, chain: list[tuple[str, VolumeMetadata]]) -> PreparedImage:
    leaf = chain[-1][1]
    return PreparedImage(
        path=domain.volume_path(image_id, chain[-1][0]),
        kind="file",
        format="cow" if leaf.format is VolumeFormat.COW else "raw",
        chain=tuple(_volume_path(domain, image_id, volume_id) for volume_id, _ in chain),
    )


def _volume_path(domain: Domain, image_id: str, volume_id: str) -> VolumePath:
    lease = domain.volume_lease(image_id, volume_id)
    return VolumePath(
        domain.domain_id,
        image_id,
        volume_id,
        domain.volume_path(image_id, volume_id),
        lease.path if lease is not None else None,
        lease.offset if lease is not None else None,
    )
