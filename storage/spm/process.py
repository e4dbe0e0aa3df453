# SPDX-License-Identifier: GPL-2.0-or-later
"""A leased process as the agent sees it: a process of ours that holds a lease, with its writers.

Whoever holds a lease is killed by the lock daemon when it is lost, so the agent never does. Of these processes there
are two kinds: the SPM process, which holds its master's lease for as long as the role lasts, and one for each change
that needs another domain's lease (`storage.spm.once`). They are children that die with the agent (PDEATHSIG, and the
end of their socket). The other way round nothing happens to the agent: a process that was killed is noticed here, and
its group killed.

The lease outlives the process: it is free when the last of the process's writers is gone, too, each of which has a
copy of the descriptor that it was taken by (`storage.leases.kept`). Those are waited for, for a moment:

    0 ms        the process is killed; the kernel kills its children (PDEATHSIG)
    some ms     idle writers are gone, the lock daemon sees the last copy close and writes that the lease is free
    1 s         whoever is left hangs in the kernel and keeps the lease: said in the log, not waited for any more
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
WRITERS_S = 1.0
LOOK_S = 0.02
PASSED_ON = ("VDSM_", "SANLOCK_", "PYTHON")

Ended = Callable[[str], Awaitable[None]]


class LeasedProcess:
    """Made by `spawn`. ``ended`` is awaited once, when process, group and writers that do not hang are gone."""

    def __init__(self, pool_id: str, process: asyncio.subprocess.Process, link: Link) -> None:
        self.pool_id = pool_id
        self.pid = process.pid
        self._process = process
        self._link = link
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted_end = False

    @classmethod
    async def spawn(
        cls, what: str, pool_id: str, *, settings: Mapping[str, Json], serve: Serve, notified: Notified, ended: Ended
    ) -> LeasedProcess:
        """``what``: ``spm`` or ``once`` (`storage.spm.program`)."""
        ours, theirs = socket.socketpair()
        try:
            process = await commands.start(
                [sys.executable, "-m", "storage.spm", what, str(theirs.fileno())],
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
        link = Link(reader, writer, serve=serve, notified=notified, name=f"the process {process.pid} ({what})")
        spawned = cls(pool_id, process, link)
        loop = asyncio.get_running_loop()
        spawned._tasks = [
            loop.create_task(spawned._link.run(), name=f"{what} link {process.pid}", context=masking.outside()),
            loop.create_task(spawned._watch(ended), name=f"{what} process {process.pid}", context=masking.outside()),
        ]
        return spawned

    def when_link_ended(self, tell: Callable[[], None]) -> None:
        """Before the process has ended, which may take long when it hangs."""
        self._tasks[0].add_done_callback(lambda _: tell())

    async def call(self, verb: str, params: Mapping[str, Json], *, timeout_s: float) -> Any:
        """The answer of the process. Raises its error, or `SpmEnded`."""
        try:
            return await self._link.call(verb, params, timeout_s=timeout_s)
        except LinkClosed:
            raise SpmEnded(self.pool_id, f"process {self.pid} ended during the call") from None

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
            log.error("what process %d did for pool %s is cut off: %s", self.pid, self.pool_id, reason)
        await self._see_writers_off()
        await ended(reason)

    async def _see_writers_off(self) -> None:
        """Until none is left, `WRITERS_S` at most."""
        give_up = asyncio.get_running_loop().time() + WRITERS_S
        while left := await asyncio.to_thread(groups.session_members, self.pid):
            if asyncio.get_running_loop().time() > give_up:
                names = ", ".join(map(str, left))
                log.error("process %d is gone, its writers are not: %s: they keep its lease", self.pid, names)
                return
            await asyncio.sleep(LOOK_S)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    return {"PATH": commands.PATH, "LC_ALL": "C.UTF-8", **kept}
