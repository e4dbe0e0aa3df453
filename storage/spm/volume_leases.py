# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether any host holds a volume's lease: asked before the volume goes.

The agent knows who uses a volume on this host only. Elsewhere a job, or a VM that takes volume leases, shows by the
lease on the storage; VMs of the field take none, so a lease that nobody holds proves nothing. What is damaged or
cannot be read is refused like what is held. A volume without lease (one that was half made, or half removed) has
nobody to ask for.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

from storage.domain import Domain
from storage.errors import InvalidContent, LeaseError, LeaseNotFormatted, StorageError
from storage.leases import Lease, LeaseOwner, Leases
from storage.ondisk.sanlock_area import Magic, decode_leader
from vdsm.common.errors import DeadlineExceeded


class VolumeLeased(StorageError):
    volume_id: str
    domain_id: str
    host_ids: list[int]
    msg = "Volume {self.volume_id} of domain {self.domain_id} is in use: hosts {self.host_ids} hold its lease"
    remedy = "Stop the VM or the job that uses it on these hosts"


class VolumeLeaseUnknown(StorageError):
    volume_id: str
    domain_id: str
    reason: str
    msg = (
        "Volume {self.volume_id} of domain {self.domain_id} is not removed: "
        "it is not known whether a host holds its lease: {self.reason}"
    )
    remedy = (
        "When no host uses the volume and its lease is damaged, make it anew: 'sanlock direct init -r "
        "<domain>:<volume>:<path of the .lease file>:0', with \\: for each colon of the path"
    )


async def refuse_held(domain: Domain, leases: Leases, image_id: str, volume_ids: Sequence[str]) -> None:
    """Raises `VolumeLeased`, `VolumeLeaseUnknown`."""
    for volume_id in volume_ids:
        lease = await domain.volumes.lease(image_id, volume_id)
        if lease is None:
            continue
        try:
            held_by = [
                owner.host_id
                for owner in await _owners(domain, leases, lease)
                if not await leases.is_gone(domain.lockspace, owner)
            ]
        except (StorageError, DeadlineExceeded) as e:
            raise VolumeLeaseUnknown(volume_id, domain.domain_id, str(e)) from e
        if held_by:
            raise VolumeLeased(volume_id, domain.domain_id, sorted(held_by))


async def _owners(domain: Domain, leases: Leases, lease: Lease) -> list[LeaseOwner]:
    """None where there is no lease, which only reading it tells from one that cannot be read.

    A merge of the field's may have left the lease under another volume's name: whoever holds it knows it by that.
    """
    try:
        record = await leases.read_lease(lease)
    except LeaseNotFormatted:
        await _check_blank(domain, lease)
        return []
    except LeaseError as e:
        if e.code == errno.ENOENT:
            return []
        raise
    if record.lockspace != lease.lockspace:
        raise InvalidContent(lease.path, f"it is a lease of {record.lockspace}")
    return await leases.owners(replace(lease, resource=record.resource))


async def _check_blank(domain: Domain, lease: Lease) -> None:
    """No record, or one that was cleared. Raises `InvalidContent`, `ChecksumMismatch`: it may have been a lease."""
    found = await domain.read_leader(lease)
    if any(found[: lease.sector]):
        leader = decode_leader(found, lease.path)
        if leader.magic is not Magic.CLEARED:
            raise InvalidContent(lease.path, "there is a lease that the lock daemon does not read")
