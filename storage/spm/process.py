# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM process as the agent sees it: started, called, noticed when it is gone.

The process is a child that dies with the agent (PDEATHSIG, and the end of its socket). The other
way round nothing happens to the agent: a process that was killed, by sanlock because the lease
was lost or by anybody, is noticed here, its group is killed, and the role is free.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from storage.spm.errors import SpmEnded, SpmHangs
from vdsm.common import commands, groups, masking
from vdsm.common.link import Link, LinkClosed, Notified, Serve
from vdsm.common.types import Json

log = logging.getLogger("vdsm.storage.spm")

END_S = 10.0
DEATH_S = 5.0
PASSED_ON = ("VDSM_", "SANLOCK_", "PYTHON")

Ended = Callable[[str], Awaitable[None]]


class SpmProcess:
    """Made by `spawn`. ``ended`` is awaited once, after the process and its group are gone."""

    def __init__(self, pool_id: str, process: asyncio.subprocess.Process, link: Link) -> None:
        self.pool_id = pool_id
        self.pid = process.pid
        self._process = process
        self._link = link
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted_end = False

    @classmethod
    async def spawn(
        cls, pool_id: str, *, settings: Mapping[str, Json], serve: Serve, notified: Notified, ended: Ended
    ) -> SpmProcess:
        ours, theirs = socket.socketpair()
        try:
            process = await commands.start(
                [sys.executable, "-m", "storage.spm", str(theirs.fileno())],
                stdin=asyncio.subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env=_environment(),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        assert process.stdin is not None
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        link = Link(reader, writer, serve=serve, notified=notified, name="the SPM process")
        spawned = cls(pool_id, process, link)
        loop = asyncio.get_running_loop()
        spawned._tasks = [
            loop.create_task(spawned._link.run(), name=f"SPM link {process.pid}", context=masking.outside()),
            loop.create_task(spawned._watch(ended), name=f"SPM process {process.pid}", context=masking.outside()),
        ]
        return spawned

    async def call(self, verb: str, params: Mapping[str, Json], *, timeout_s: float) -> Any:
        """The answer of the SPM process. Raises its error, or `SpmEnded`."""
        try:
            return await self._link.call(verb, params, timeout_s=timeout_s)
        except LinkClosed:
            raise SpmEnded(self.pool_id, "its process ended during the call") from None

    async def end(self) -> None:
        """Let the process end, kill it when it does not; returns when it is gone and ``ended`` has run.

        Raises `SpmHangs` when it does not die: ``ended`` runs when it has ended at last.
        """
        self._wanted_end = True
        await self._link.close()
        _, left = await asyncio.wait(self._tasks, timeout=END_S)
        if left:
            groups.kill_group(self.pid)
            _, left = await asyncio.wait(self._tasks, timeout=DEATH_S)
        if left:
            raise SpmHangs(self.pool_id, self.pid)
        await asyncio.gather(*self._tasks)

    async def _watch(self, ended: Ended) -> None:
        code = await self._process.wait()
        groups.kill_group(self.pid)
        groups.forget(self.pid)
        await self._link.close()
        reason = (
            f"process {self.pid} was killed by signal {-code}" if code < 0 else f"process {self.pid} ended ({code})"
        )
        if not self._wanted_end:
            log.error("the SPM role of pool %s is lost: %s", self.pool_id, reason)
        await ended(reason)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    return {"PATH": commands.PATH, "LC_ALL": "C.UTF-8", **kept}
