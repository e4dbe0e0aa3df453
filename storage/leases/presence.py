# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that are alive in a lockspace, told by one that has not joined it.

The lock daemon answers only about joined lockspaces, and a record does not say by whose clock its time is. But a live
host renews its record every 2 I/O timeouts, and one that could not for 8 has lost its leases. So records that are not
free are looked at again and again: the first change is proof of life; none within 8 I/O timeouts is proof of none.
Where every record is free, as in a lockspace that all have left, one look is enough.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from storage.leases.model import HostIdOwner, Lockspace

LIMIT_IN_IO_TIMEOUTS = 8
LOOK_S = 1.0


class Records(Protocol):
    @property
    def lockspace(self) -> Lockspace: ...
    async def host_id_owners(self) -> Mapping[int, HostIdOwner]:
        """All records that are not free, by host id. Raises `StorageError` when they can't be read."""


async def alive(place: Records) -> dict[int, HostIdOwner]:
    """Whoever renewed first, at once; empty when nobody did within the time that a host may be silent."""
    first = await place.host_id_owners()
    give_up = time.monotonic() + LIMIT_IN_IO_TIMEOUTS * place.lockspace.io_timeout_s
    watched = dict(first)
    while watched and time.monotonic() < give_up:
        await asyncio.sleep(LOOK_S)
        now = await place.host_id_owners()
        renewed = {host_id: owner for host_id, owner in now.items() if owner != first.get(host_id)}
        if renewed:
            return renewed
        watched = {host_id: owner for host_id, owner in watched.items() if host_id in now}
    return {}
