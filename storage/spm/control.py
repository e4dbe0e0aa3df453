# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's end of the SPM role: Free, Contend, SPM, and the one process that has it.

Whatever ends that process (a stop, its lease, kill -9) makes the role free here; the agent, its
calls and its VMs go on. The role is never taken again by itself: the engine decides who is SPM.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from storage.grants import Grants
from storage.in_use import InUse
from storage.lock_link import GIVE_BACK, LENT, TAKE
from storage.lock_table import Grant, Locks
from storage.source import Places
from storage.spm.errors import ChangeEnded, NotSpm, SpmBusy, SpmEnded, SpmStartFailed
from storage.spm.process import Ended, LeasedProcess
from storage.spm.removals import Moved, Removals, Told
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError
from vdsm.common.types import Json

log = logging.getLogger("vdsm.storage.spm")

START_S = 480.0
CALL_S = 130.0
"""Over the 60 s that a call waits for a lock, and the 60 s of a request to storage: those say more."""

CHANGE_S = 600.0
"""Of a change under a lease, which may wait for its owner's death: longer than all of its own deadlines."""

SPAWNED = crash_point("spm.start.spawned", "the SPM process runs, it was asked for nothing (agent)")
TOLD = crash_point("spm.start.told", "the role is ours, nobody was told (agent)")
STOP_ASKED = crash_point("spm.stop.asked", "a stop was asked for, the process has the role (agent)")
STOP_ENDED = crash_point("spm.stop.ended", "the SPM process is gone, nobody was told (agent)")


PROCESSES = {"spm": "an SPM process", "once": "a process for one change"}
"""By the program's word, for people."""


class SpmStatus(StrEnum):
    FREE = "Free"
    CONTEND = "Contend"
    SPM = "SPM"


class SpmControl:
    def __init__(
        self, in_use: InUse, held: Locks, places: Places, told: Told, moved: Moved, settings: Mapping[str, Json]
    ) -> None:
        self._in_use = in_use
        self._locks = held
        self._places = places
        self._told = told
        self._moved = moved
        self._settings = settings
        self._process: LeasedProcess | None = None
        self._grants: Grants | None = None
        self.pool_id = ""
        """Of the role that was wanted last."""
        self.status = SpmStatus.FREE
        self.lease_version = -1
        self.ended_because = ""
        self._ends_late = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self, pool_id: str, params: Mapping[str, Json]) -> None:
        """Take the role; nothing happens when it is ours. Raises `SpmBusy` and what the start met."""
        if self.status is SpmStatus.SPM:
            return
        if self.status is SpmStatus.CONTEND:
            raise SpmBusy(pool_id)
        self.status, self.ended_because, self.pool_id = SpmStatus.CONTEND, "", pool_id
        process: LeasedProcess | None = None
        try:
            process, self._grants = await self._spawn("spm", pool_id, self._ended)
            self._process = process
            SPAWNED.reach()
            self.lease_version = await process.call("start", params, timeout_s=START_S)
            if self._process is not process:
                raise SpmStartFailed(pool_id, self.ended_because)
            self.status = SpmStatus.SPM
            TOLD.reach()
        except SpmEnded:
            raise SpmStartFailed(pool_id, self.ended_because or "its process ended") from None
        finally:
            if self.status is not SpmStatus.SPM:
                try:
                    if process is not None:
                        await process.end()
                finally:  # also when a second stop cuts the end short
                    self._free()

    async def stop(self, pool_id: str) -> None:
        """Give the role up and return when its process is gone. Raises `NotSpm`, `SpmBusy`."""
        if self.status is SpmStatus.CONTEND:
            raise SpmBusy(pool_id)
        if self._process is None:
            raise NotSpm(pool_id)
        STOP_ASKED.reach()
        self.status = SpmStatus.CONTEND  # no new call meanwhile, and no second start
        try:
            await self._process.end()
        finally:
            self._free()
        STOP_ENDED.reach()

    def require(self, pool_id: str) -> None:
        """Raises `NotSpm` when this host is not SPM."""
        if self.status is not SpmStatus.SPM:
            raise NotSpm(pool_id)

    async def call(self, pool_id: str, verb: str, params: Mapping[str, Json], *, timeout_s: float = CALL_S) -> Any:
        """Ask the SPM process. Raises `NotSpm` when this host is not SPM."""
        if self.status is not SpmStatus.SPM or self._process is None:
            raise NotSpm(pool_id)
        return await self._process.call(verb, params, timeout_s=timeout_s)

    async def call_under(
        self, grant: Grant, pool_id: str, verb: str, params: Mapping[str, Json], *, timeout_s: float = CALL_S
    ) -> Any:
        """The same for a verb that acts under locks of its caller; the process keeps them until it has served it."""
        if self.status is not SpmStatus.SPM or self._grants is None:
            raise NotSpm(pool_id)
        return await self.call(pool_id, verb, {**params, LENT: self._grants.lend(grant)}, timeout_s=timeout_s)

    async def once(
        self,
        grant: Grant,
        domain_id: str,
        pool_id: str,
        verb: str,
        params: Mapping[str, Json],
        *,
        step: Callable[[str], None],
    ) -> Any:
        """One change under the lease of a domain that is taken for it (`storage.spm.once`), also while this host is
        SPM. ``step`` is told what it is at.

        Raises `ChangeEnded` when its process was killed, as by the lock daemon when that lease was lost.
        """
        process, grants = await self._spawn("once", pool_id, _nothing, about=domain_id, step=step)
        try:
            return await process.call(verb, {**params, LENT: grants.lend(grant)}, timeout_s=CHANGE_S)
        except SpmEnded as e:
            raise ChangeEnded(pool_id, verb, e.reason) from None
        finally:
            await process.end()

    async def end(self) -> None:
        """The agent ends: give the role up if we have it."""
        if self._process is not None:
            try:
                await self._process.end()
            except AgentError as e:  # the process is a child that dies with us anyway
                log.error("the SPM process did not end in order: %s", e)

    async def _spawn(
        self, what: str, pool_id: str, ended: Ended, *, about: str = "", step: Callable[[str], None] | None = None
    ) -> tuple[LeasedProcess, Grants]:
        """Its removals end with it, its grants with its last writer. ``about``: the domain whose lease it takes; there
        is one process for each at a time."""
        removals = Removals(self._in_use, self._told, self._moved, step)
        grants = Grants(self._locks, self._places, PROCESSES[what])

        async def serve(verb: str, params: dict[str, Any]) -> Json:
            return await (grants if verb in (TAKE, GIVE_BACK) else removals).serve(verb, params)

        async def ended_too(reason: str) -> None:
            removals.end_all()
            grants.end(process.pid)
            await ended(reason)

        process = await LeasedProcess.spawn(
            what,
            pool_id,
            settings={**self._settings, "about": about},
            serve=serve,
            notified=removals.notified,
            ended=ended_too,
        )
        process.when_link_ended(grants.link_ended)
        return process, grants

    def _free(self) -> None:
        """The role is free when its process is gone; that of one that hangs is, once it has ended."""
        self._ends_late = self._process is not None
        self.status = SpmStatus.CONTEND if self._ends_late else SpmStatus.FREE

    async def _ended(self, reason: str) -> None:
        self._process = self._grants = None
        self.ended_because = reason
        if self.status is SpmStatus.SPM or self._ends_late:
            self._free()
        self.lease_version = -1


async def _nothing(_: str) -> None:
    return
