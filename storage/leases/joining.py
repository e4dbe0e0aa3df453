# SPDX-License-Identifier: GPL-2.0-or-later
"""Joining a lockspace, seen through: begun without waiting, looked at, its failure told.

sanlock joins in the background. When the host id belongs to another host it waits for 8 I/O
timeouts and 60 s before it gives up, and tells its log alone. So each step here looks at how it goes:

- no longer under way and not joined: it failed. Who holds the id stands on the storage. What another process began
  is no failure of ours: that joining may have met storage that was away then, or it was the daemon leaving a
  lockspace that it had lost meanwhile. So ours is begun.
- under way, and the owner who stood there before it began renews its record: another host is alive with
  our id. That is told at its first renewal (20 s), not after 140 s. Where the joining was begun by
  another process, the record may be our own, which sanlock writes once or twice more while the
  joining ends: there it takes `SURE` renewals.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from storage.errors import HostIdNotAcquired
from storage.leases.model import HostIdOwner, Leases, Lockspace

STEP_S = 0.5
SURE = 3


class Place(Protocol):
    """What is joined: of a domain, its lockspace and who stands in it."""

    @property
    def lockspace(self) -> Lockspace: ...
    async def host_id_owner(self, host_id: int) -> HostIdOwner | None:
        """Read from storage, with a deadline, also by a host that has not joined. None when nobody can tell."""


class Joining:
    """One host's way into one lockspace; steps are taken until one answers True, and after a failure anew."""

    def __init__(self, leases: Leases, place: Place, host_id: int) -> None:
        self.space = place.lockspace
        self._place = place
        self.leases = leases
        self.host_id = host_id
        self._begun = False
        self._seen: HostIdOwner | None = None
        self._renewals_left = SURE

    async def step(self) -> bool:
        """True when joined, False while it is under way. Raises `HostIdNotAcquired` and what `Leases` raises."""
        state = await self.leases.joined(self.space, self.host_id)
        if state is False:
            if self._begun:
                self._begun = False
                raise self._failed(await self._why())
            self._seen, self._renewals_left = await self._place.host_id_owner(self.host_id), 1
            await self.leases.start_join(self.space, self.host_id)
            self._begun = True
            state = await self.leases.joined(self.space, self.host_id)
        if state is True:
            self._begun, self._seen, self._renewals_left = False, None, SURE
            return True
        await self._look_for_a_twin()
        return False

    async def _look_for_a_twin(self) -> None:
        seen = await self._place.host_id_owner(self.host_id)
        if seen is None:
            return
        before, self._seen = self._seen, seen
        if before is None or (before.name, before.generation) != (seen.name, seen.generation):
            self._renewals_left = SURE
        elif seen.timestamp != before.timestamp and not seen.free:
            self._renewals_left -= 1
        if self._renewals_left <= 0:
            raise self._failed(f"host {seen.name!r} holds it and renews it: two hosts have the same id")

    async def _why(self) -> str:
        owner = await self._place.host_id_owner(self.host_id)
        if owner is None or owner.free:
            return "sanlock gave up joining; its log says why"
        return f"host {owner.name!r} holds it"

    def _failed(self, reason: str) -> HostIdNotAcquired:
        return HostIdNotAcquired(self.space.name, self.host_id, reason)


async def join(leases: Leases, place: Place, host_id: int, *, timeout_s: float) -> None:
    """Steps until joined. Raises `HostIdNotAcquired`, which names who holds the id."""
    joining = Joining(leases, place, host_id)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                if await joining.step():
                    return
                await asyncio.sleep(STEP_S)
    except TimeoutError:
        raise HostIdNotAcquired(joining.space.name, host_id, f"joining did not end within {timeout_s:g} s") from None
