# SPDX-License-Identifier: GPL-2.0-or-later
"""An SPM "process" in the test's own loop, over a real link to a real agent: a test can stop it at any call."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

from local_world import mounted_domains

from storage.file.iopool import IoPools
from storage.lock_link import LocksByLink
from storage.spm.agent import AgentByLink
from storage.spm.errors import SpmEnded
from storage.spm.process import Ended
from storage.spm.serving import Server
from vdsm.common.link import Link, LinkClosed, Notified, Serve
from vdsm.common.types import Json

NOBODY = 1 << 30
"""No process has this id; a record of its children can be made."""


class LinkedSpm:
    """Stands for `storage.spm.process.SpmProcess`."""

    pid = NOBODY

    def __init__(self, pool_id: str, settings: Mapping[str, Any], ended: Ended) -> None:
        self.pool_id = pool_id
        self._ended = ended
        self.pools = IoPools()
        self.domains = mounted_domains(settings["mounts"], self.pools)
        self.agent, self.held = AgentByLink(), LocksByLink()
        self.server = Server(
            self.domains, self.agent, self.held, repository=settings["repository"], codes=settings["codes"]
        )

    @classmethod
    async def spawn(
        cls, pool_id: str, *, settings: Mapping[str, Json], serve: Serve, notified: Notified, ended: Ended
    ) -> LinkedSpm:
        spm = cls(pool_id, settings, ended)
        ours, theirs = socket.socketpair()
        served = spm.held.under_grants(spm.server.serve)
        there = Link(*await asyncio.open_connection(sock=theirs), serve=served, name="the agent")
        spm.agent.link = spm.held.link = spm.there = there
        spm.ours = Link(*await asyncio.open_connection(sock=ours), serve=serve, notified=notified, name="the SPM")
        spm.runs = [asyncio.create_task(link.run()) for link in (there, spm.ours)]
        return spm

    async def call(self, verb: str, params: Mapping[str, Json], *, timeout_s: float) -> Any:
        try:
            return await self.ours.call(verb, params, timeout_s=timeout_s)
        except LinkClosed:
            raise SpmEnded(self.pool_id, "its process ended during the call") from None

    async def end(self) -> None:
        await self.ours.close()
        await asyncio.gather(*self.runs)
        await self.server.stop()
        await self.domains.close()
        await self.pools.close()
        await self._ended("it was asked to")
