# SPDX-License-Identifier: GPL-2.0-or-later
"""Lockspaces that the lock daemon holds for this host, and that nobody here needs any more: left.

A joined lockspace outlives whoever joined it. A process that was killed in the middle of making a pool or of
attaching a domain leaves one behind, and so does an agent that was killed and is told to stop watching a domain
that it did not open since. Such a host can't join with its own id, and other hosts count it as alive there.

Only lockspaces of domains on our own mounts are touched, by what the daemon itself says of them, without the storage.
None is left while leases in it are in use. One leaving at a time of each: who is about to join it waits until it has
ended, and storage that is dead, which takes `LEAVE_S`, keeps no other one from being left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from storage.edges import LeasesOf
from storage.errors import HostIdInUse
from storage.leases import Leases, Membership
from storage.leases.daemon import socket_path
from storage.ondisk.layout import RESERVED_HOST_ID
from storage.ondisk.values import DomainKind
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.storage.lockspaces")

LEAVE_S = 30.0
"""For all that are left together. The daemon goes on leaving what takes longer."""

ASK_S = 5.0
FREED_S = 5.0
"""A process that died holds its leases until the daemon has written that they are free."""

TRY_AGAIN_S = 0.1

Which = Callable[[Membership], bool]


class Lockspaces:
    def __init__(self, mounts: str, leases_of: LeasesOf) -> None:
        self._mounts = os.path.join(mounts, "")
        self._leases_of = leases_of
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def leave_reserved(self) -> None:
        """Whatever is joined with the id that is for a moment only: nothing of this host lasts under it."""
        await self._leave(lambda member: member.host_id == RESERVED_HOST_ID)

    async def leave_domain(self, domain_id: str) -> None:
        turn = self._turns.setdefault(domain_id, asyncio.Lock())
        await self._leave(lambda member: member.name == domain_id, [turn])

    async def keep_only(self, domain_ids: Collection[str], host_id: int) -> None:
        """Leave all others, and these when they are joined with another host id."""
        await self._leave(lambda member: member.name not in domain_ids or member.host_id != host_id)

    async def is_joined(self, domain_id: str) -> bool:
        """With whatever id, also while joining is under way, and when the daemon does not say."""
        leases = self._daemon()
        if leases is None:
            return False
        found = await self._ours(leases)
        return found is None or any(member.name == domain_id for member in found)

    @contextlib.asynccontextmanager
    async def joined_for_once(self, domain_id: str) -> AsyncIterator[None]:
        """What a change joins of a domain is left again, also when its process died in the middle."""
        was_joined = await self.is_joined(domain_id)
        try:
            yield
        finally:
            if not was_joined:
                await self.leave_domain(domain_id)

    async def _leave(self, which: Which, turns: Sequence[asyncio.Lock] | None = None) -> None:
        """What can't be left is told, and found again the next time. None: it waits for all that are being left."""
        leases = self._daemon()
        if leases is None:
            return
        async with contextlib.AsyncExitStack() as taken:
            for turn in [turn for _, turn in sorted(self._turns.items())] if turns is None else turns:
                await taken.enter_async_context(turn)
            found = await self._ours(leases) or []
            await asyncio.gather(*(_leave_one(leases, member) for member in found if which(member)))

    async def _ours(self, leases: Leases) -> list[Membership] | None:
        """None when the daemon does not say; it is not waited for, since local domains need none."""
        try:
            async with asyncio.timeout(ASK_S):
                members = await leases.memberships()
        except (AgentError, TimeoutError) as e:
            log.warning("it is not known which lockspaces are joined: %s", e or "no answer")
            return None
        return [
            member for member in members if member.path.startswith(self._mounts) and f"/{member.name}/" in member.path
        ]

    def _daemon(self) -> Leases | None:
        """None when it does not run: then nothing is joined."""
        if not os.path.exists(socket_path()):
            return None
        try:
            return self._leases_of(DomainKind.POSIXFS)
        except ImportError as e:  # without the binding this host uses local domains only
            log.warning("sanlock runs, but its Python binding is missing: %s", e)
            return None


async def _leave_when_free(leases: Leases, member: Membership) -> None:
    give_up = time.monotonic() + FREED_S
    while True:
        try:
            return await leases.leave(member, member.host_id)
        except HostIdInUse:
            if time.monotonic() > give_up:
                raise
        await asyncio.sleep(TRY_AGAIN_S)


async def _leave_one(leases: Leases, member: Membership) -> None:
    try:
        async with asyncio.timeout(LEAVE_S):
            await _leave_when_free(leases, member)
        log.info("domain %s: host id %d is given back, nobody needs it here", member.name, member.host_id)
    except (AgentError, TimeoutError) as e:
        log.warning("domain %s: host id %d stays joined: %s", member.name, member.host_id, e or "no answer")
