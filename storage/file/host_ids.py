# SPDX-License-Identifier: GPL-2.0-or-later
"""Who last held host ids, as the lockspace on the storage says: the lock daemon answers only about joined ones.

Read as all of a shared mount is, by an I/O helper: what hangs there holds no thread of ours.
"""

from __future__ import annotations

import zlib

from storage.errors import IoFailed, StorageError
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


async def read_owners(io: FileIo, space: Lockspace) -> dict[int, HostIdOwner]:
    """All records that are not free, by host id. Where there is no lockspace there are none.

    A record that cannot be read counts as one without a name: whoever writes it changes its content.
    """
    try:
        area = await io.read_direct(space.path, offset=space.offset, size=space.align)
    except IoFailed as e:
        if e.error == "ENOENT":
            return {}
        raise
    sectors = [area[start : start + space.sector] for start in range(0, len(area), space.sector)]
    found = {host_id: _owner(sector) for host_id, sector in enumerate(sectors, 1) if any(sector)}
    return {host_id: owner for host_id, owner in found.items() if not owner.free}


def _owner(sector: bytes) -> HostIdOwner:
    try:
        leader = decode_leader(sector, "")
    except StorageError:
        return HostIdOwner("", 0, zlib.crc32(sector) or 1)
    return HostIdOwner(leader.resource, leader.owner_generation, leader.timestamp)
