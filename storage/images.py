# SPDX-License-Identifier: GPL-2.0-or-later
"""Prepared images of this host: the volume chain reachable for consumers, until the last one is done.

A consumer is a name (`storage.holders`). Two consumers of one image (two VMs, a VM and a transfer) do not
take it from each other: the image stays prepared until each has torn it down.

The chain is read -> who uses which volumes is on record (`storage.in_use`) -> they are attached, the consumer is the
holder -> the layers are examined -> the run link is made. Back in the other order: link, attachment, record.

The run link ``/run/vdsm/storage/<domain>/<image>`` is the contract (storage.md 17); its presence means
prepared.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from storage import holders, layers, locks
from storage.attached import AttachedChain
from storage.domain import Chain, Domain
from storage.errors import IoFailed, StorageError
from storage.holders import PREPARE
from storage.in_use import InUse
from storage.links import replace_link
from storage.locks import LockTable
from storage.ondisk.values import Legality, VolumeFormat
from vdsm.common.ids import new_uuid

log = logging.getLogger("vdsm.storage.images")

PREPARE_WAIT_S = 600.0
API_WAIT_S = 60.0
"""Of who waits for the answer: a VM's start is answered before its disks are prepared."""


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
    """``file`` or ``block``, as `Chains.kind`."""
    format: str
    """``raw`` or ``cow``."""
    chain: tuple[VolumePath, ...]
    """From the base to the leaf."""


class Images:
    def __init__(self, links: str, in_use: InUse, held: LockTable, opened: Callable[[str], Domain | None]) -> None:
        """``opened``: a domain by its id, when it is open here: a teardown opens none."""
        self._links = links
        self._opened = opened
        self._in_use = in_use
        self._locks = held

    async def prepare(
        self,
        domain: Domain,
        image_id: str,
        volume_id: str,
        *,
        consumer: str = PREPARE,
        allow_illegal: bool = False,
    ) -> PreparedImage:
        """Raises `VolumeNotFound`, `InvalidChain`, `VolumeIllegal`, `UnsafeImage`, `BeingRemoved`; then nothing more
        is prepared."""
        domain_id = domain.domain_id
        async with self._image_locked(domain, image_id, consumer):
            chain = await domain.volumes.chain(image_id, volume_id)
            if not allow_illegal:
                _check_legal(domain, chain)
            before = self._in_use.users(domain_id, image_id)
            self._in_use.add(domain_id, image_id, consumer, [volume for volume, _ in chain])
            try:
                attached = await domain.chains.attach(image_id, [volume for volume, _ in chain], consumer)
                _examine(attached, chain)
                self._link(domain, image_id, attached.folder)
                return await _prepared(domain, image_id, chain, attached)
            except BaseException:
                try:
                    if consumer not in before:
                        await domain.chains.detach(image_id, consumer)
                finally:
                    self._in_use.restore(domain_id, image_id, before)
                raise

    async def teardown(self, domain_id: str, image_id: str, *, consumer: str = PREPARE) -> None:
        """Nothing happens when this consumer had not prepared the image. Needs no storage: what is attached of a domain
        that is not open here is given back when it is opened (`storage.domain.Chains`)."""
        alone = [locks.prepared(domain_id, image_id)]
        wait_s = API_WAIT_S if consumer == PREPARE else PREPARE_WAIT_S
        async with self._locks.hold(alone, who=_who("teardown", consumer), wait_s=wait_s):
            left = self._in_use.without(domain_id, image_id, consumer)
            if left:
                log.info("image %s of %s stays prepared for %s", image_id, domain_id, ", ".join(sorted(left)))
            else:
                self._unlink(domain_id, image_id)
            if (domain := self._opened(domain_id)) is not None:
                await domain.chains.detach(image_id, consumer)
            self._in_use.restore(domain_id, image_id, left)

    def prepared(self) -> list[tuple[str, str]]:
        """(domain, image) of every record."""
        return self._in_use.images()

    def users_below(self, mount: str) -> list[str]:
        """Who uses images of the domains on that mount. Asks records alone: the storage may be dead."""
        found: set[str] = set()
        for domain_id, image_id in self._in_use.images():
            with contextlib.suppress(OSError):  # no link: not prepared yet
                if os.readlink(os.path.join(self._links, domain_id, image_id)).startswith(f"{mount}/"):
                    found |= set(self._in_use.users(domain_id, image_id))
        return sorted(found)

    def _image_locked(
        self, domain: Domain, image_id: str, consumer: str
    ) -> contextlib.AbstractAsyncContextManager[object]:
        domain_id = domain.domain_id
        wanted = [locks.domain(domain_id), locks.image(domain_id, image_id), locks.prepared(domain_id, image_id)]
        wait_s = API_WAIT_S if consumer == PREPARE else PREPARE_WAIT_S
        return self._locks.hold(wanted, who=_who("prepare", consumer), wait_s=wait_s)

    def _link(self, domain: Domain, image_id: str, target: str) -> None:
        folder = os.path.join(self._links, domain.domain_id)
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)
            replace_link(target, os.path.join(folder, image_id))
        except OSError as e:
            raise IoFailed.of("link", self._links, e) from e

    def _unlink(self, domain_id: str, image_id: str) -> None:
        folder = os.path.join(self._links, domain_id)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, image_id))
        with contextlib.suppress(OSError):  # not empty: other images are prepared
            os.rmdir(folder)


def _who(verb: str, consumer: str) -> str:
    """As who waits for it is told."""
    return f"Image.{verb}" if consumer == PREPARE else f"{verb} for {consumer}"


@contextlib.asynccontextmanager
async def attached_for_a_while(
    domain: Domain, image_id: str, volume_ids: Sequence[str]
) -> AsyncIterator[AttachedChain]:
    """For a look at payloads by another program. Nobody's record: it ends with this agent."""
    holder = holders.job(new_uuid())
    try:
        yield await domain.chains.attach(image_id, volume_ids, holder)
    finally:
        await domain.chains.detach(image_id, holder)


def _check_legal(domain: Domain, chain: Chain) -> None:
    for volume_id, metadata in chain:
        if metadata.legality is not Legality.LEGAL:
            raise VolumeIllegal(volume_id, domain.domain_id)


def _examine(attached: AttachedChain, chain: Chain) -> None:
    """Refuse what QEMU must not open.

    A capacity below the image's own size is told only, here and by `storage.volumes`: this host may not be the SPM, and
    what it writes could take back what the SPM writes meanwhile. QEMU goes by the header.
    """
    for layer in layers.examine(attached.payloads, chain):
        known, metadata = layer.metadata.capacity, layers.with_true_capacity(layer)
        if metadata.capacity != known:
            log.warning("volume %s: its capacity is %d, not %d", layer.volume_id, metadata.capacity, known)


async def _prepared(domain: Domain, image_id: str, chain: Chain, attached: AttachedChain) -> PreparedImage:
    leaf_id, leaf = chain[-1]
    return PreparedImage(
        path=attached.payloads[leaf_id].path,
        kind=domain.chains.kind,
        format="cow" if leaf.format is VolumeFormat.COW else "raw",
        chain=tuple([await _volume_path(domain, image_id, volume_id, attached) for volume_id, _ in chain]),
    )


async def _volume_path(domain: Domain, image_id: str, volume_id: str, attached: AttachedChain) -> VolumePath:
    lease = await domain.volumes.lease(image_id, volume_id)
    return VolumePath(
        domain.domain_id,
        image_id,
        volume_id,
        attached.payloads[volume_id].path,
        lease.path if lease is not None else None,
        lease.offset if lease is not None else None,
    )
