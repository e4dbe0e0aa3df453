# SPDX-License-Identifier: GPL-2.0-or-later
"""Who last held a host id, as the lockspace on the storage says: the lock daemon answers only about joined ones.

Read as all of a shared mount is, by an I/O helper: what hangs there holds no thread of ours.
"""

from __future__ import annotations

from storage.errors import StorageError
from storage.file.io import FileIo
from storage.leases import HostIdOwner, Lockspace
from storage.ondisk.sanlock_area import decode_leader


async def read_owner(io: FileIo, space: Lockspace, host_id: int) -> HostIdOwner | None:
    """None when nobody can tell."""
    where = space.offset + (host_id - 1) * space.sector
    try:
        leader = decode_leader(await io.read_direct(space.path, offset=where, size=space.sector), space.path)
    except StorageError:  # only a sentence gets shorter by it
        return None
    return HostIdOwner(leader.resource, leader.owner_generation, leader.timestamp)
