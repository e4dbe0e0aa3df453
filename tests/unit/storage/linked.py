# SPDX-License-Identifier: GPL-2.0-or-later
"""Leased "processes" in the test's own loop, over a real link to a real agent: a test can stop one at any call."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

from local_world import mounted_domains

from storage.file.iopool import IoPools
from storage.halves import STEPS_BACK
from storage.leases.kept import Kept
from storage.lock_link import LocksByLink
from storage.spm.agent import AgentByLink
from storage.spm.errors import SpmEnded
from storage.spm.once import Once
from storage.spm.own_lease import OwnLease
from storage.spm.process import Ended
from storage.spm.program import Serving
from storage.spm.serving import Server
from vdsm.common.link import Link, LinkClosed, Notified, Serve
from vdsm.common.types import Json

NOBODY = 1 << 30
"""No process has this id."""


class LinkedProcess:
    """Stands for `storage.spm.process.LeasedProcess`."""

    pid = NOBODY

    def __init__(self, what: str, pool_id: str, settings: Mapping[str, Any], ended: Ended) -> None:
        self.pool_id = pool_id
        self._ended = ended
        self._pools, kept = IoPools(), Kept()
        self._domains = mounted_domains(settings["mounts"], self._pools, kept)
        self.agent, self.held = AgentByLink(), LocksByLink()

        def new_lease() -> OwnLease:
            return OwnLease(self._domains, self._pools, kept, settings["leased"])

        self.server: Serving = Once(new_lease(), self._domains, self.agent.tell_step)
        if what == "spm":
            named = {name: settings[name] for name in ("repository", "codes")}
            self.server = Server(new_lease, self._domains, self.agent, self.held, readers=STEPS_BACK, **named)

    @classmethod
    async def spawn(
        cls, what: str, pool_id: str, *, settings: Mapping[str, Json], serve: Serve, notified: Notified, ended: Ended
    ) -> LinkedProcess:
        spawned = cls(what, pool_id, settings, ended)
        ours, theirs = socket.socketpair()
        served = spawned.held.under_grants(spawned.server.serve)
        there = Link(*await asyncio.open_connection(sock=theirs), serve=served, name="the agent")
        spawned.agent.link = spawned.held.link = spawned.there = there
        spawned.ours = Link(*await asyncio.open_connection(sock=ours), serve=serve, notified=notified, name=what)
        spawned.runs = [asyncio.create_task(link.run()) for link in (there, spawned.ours)]
        return spawned

    def when_link_ended(self, tell: Callable[[], None]) -> None:
        self.runs[1].add_done_callback(lambda _: tell())

    async def call(self, verb: str, params: Mapping[str, Json], *, timeout_s: float) -> Any:
        try:
            return await self.ours.call(verb, params, timeout_s=timeout_s)
        except LinkClosed:
            raise SpmEnded(self.pool_id, "its process ended during the call") from None

    async def end(self) -> None:
        await self.ours.close()
        await asyncio.gather(*self.runs)
        await self.server.stop()
        await self._domains.close()
        await self._pools.close()
        await self._ended("it was asked to")
