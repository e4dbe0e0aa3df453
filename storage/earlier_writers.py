# SPDX-License-Identifier: GPL-2.0-or-later
"""Writers that an earlier run of the agent left, and that hang since: who works on an image waits for their end.

An agent that was killed took its lock table along, and its writers were killed with it. One that waits in the kernel
for its storage ends when that comes back, and its last system call lands then: on an image that somebody else has
changed meanwhile, if nothing kept him. They are known from two records that outlive an agent: process groups with the
mount they work on (`vdsm.common.groups`), and who took a lease (`storage.leases.records`), for what has no other.

Nobody knows which image such a writer works on, so it counts for all of its mount. Only locks of images are kept by it:
a pool is connected, and a domain given up, beside one that hangs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from storage.leases import records
from storage.locks import DOMAINS, PREPARED, Lock
from storage.source import Places
from vdsm.common import ends, groups, masking

log = logging.getLogger("vdsm.storage.locks")

AGAIN_S = 1.0


@dataclass(frozen=True)
class Writer:
    pid: int
    place: str
    """Of `Places`; empty when only the domain is known."""
    domain_id: str = ""
    since: float = 0.0

    @property
    def who(self) -> str:
        return f"a process of an earlier run of the agent, whose writer {self.pid} still runs"

    def counts_for(self, lock: Lock, places: Mapping[str, str]) -> bool:
        if lock.namespace == DOMAINS or lock.namespace.startswith(PREPARED):
            return False
        if not self.place:
            return self.domain_id == lock.domain_id
        return places.get(lock.domain_id, self.place) == self.place  # where a domain lies may not be known yet


class EarlierWriters:
    def __init__(self, places: Places) -> None:
        self._places = places
        self._left: list[Writer] = []
        self._changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    @property
    def all(self) -> list[Writer]:
        return list(self._left)

    def learn(self, leased: str) -> None:
        """At the start, before anything of this run works. ``leased``: the folder of `storage.leases.records`."""
        now = time.monotonic()
        found = [Writer(left.pid, left.place, since=now) for left in groups.left_by_earlier() if left.place]
        known = {writer.pid for writer in found}
        for domain_id, kept in records.all_left(leased).items():
            found += [Writer(m.pid, "", domain_id, now) for m in kept.members if m.pid not in known]
        self._left = found
        if found:
            for writer in found:
                log.warning("images on %s are kept: %s", writer.place or f"domain {writer.domain_id}", writer.who)
            self._watching = asyncio.get_running_loop().create_task(
                self._until_all_ended(), name="earlier writers", context=masking.outside()
            )

    def before(self, wanted: Iterable[Lock]) -> list[Writer]:
        """Those that must have ended first."""
        wanted = list(wanted)
        places = self._places({lock.domain_id for lock in wanted}) if self._left else {}
        return [writer for writer in self._left if any(writer.counts_for(lock, places) for lock in wanted)]

    async def ended(self, wanted: Iterable[Lock]) -> None:
        """Until none of `before` is left."""
        wanted = list(wanted)
        while self.before(wanted):
            self._changed.clear()
            await self._changed.wait()

    def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    async def _until_all_ended(self) -> None:
        while self._left:
            try:
                await ends.first_end(writer.pid for writer in self._left)
            except OSError as e:  # for want of descriptors, mostly
                log.error("it is not known which writers of an earlier run have ended: %s", e)
                await asyncio.sleep(AGAIN_S)
            for writer in [w for w in self._left if not groups.runs(w.pid)]:
                self._left.remove(writer)
                groups.forget(writer.pid)
                log.info("writer %d of an earlier run of the agent has ended", writer.pid)
            self._changed.set()
