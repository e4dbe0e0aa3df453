# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process that the agent started holds of the agent's lock table: the agent's side of `storage.lock_link`.

The end of the link, and of the process, frees nothing by itself: a command or an I/O helper that it started
may hang in the kernel and write later (`groups.left_by`). So a grant is given back when no writer is left that works on
the storage of its domains; one of which it is not known where it works counts for all. Until then who waits is
told which process that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Mapping
from typing import Any

from storage.lock_link import GIVE_BACK, TAKE
from storage.lock_table import Grant, Locks
from storage.locks import Lock, Mode
from storage.source import Places
from vdsm.common import ends, groups, masking
from vdsm.common.errors import RemoteError
from vdsm.common.groups import Left
from vdsm.common.types import Json

log = logging.getLogger("vdsm.storage.locks")

AGAIN_S = 1.0
TELL_S = 2.0
"""What was killed with its process takes a moment to die: that is worth no word."""


class Grants:
    """Of one process, ``what`` for people."""

    def __init__(self, table: Locks, places: Places, what: str) -> None:
        self._table = table
        self._places = places
        self._what = what
        self._held: dict[int, tuple[Grant, str]] = {}  # with the name that it was taken under
        self._taking: dict[int, asyncio.Task[None]] = {}
        self._lent = itertools.count(-1, -1)
        self._closed = False
        self._outliving: asyncio.Task[None] | None = None

    async def serve(self, verb: str, params: Mapping[str, Any]) -> Json:
        if verb == GIVE_BACK:
            self._give_back(params["number"])
        elif verb == TAKE and not self._closed:
            await self._take(params)
        else:
            raise RemoteError("agent", f"The agent does not serve {verb!r}")
        return None

    def lend(self, grant: Grant) -> int:
        """The number under which the process gives back what a verb of the agent holds while it asks it."""
        number = next(self._lent)
        if not self._closed:  # it will not hear the call either
            self._table.share(grant)
            self._held[number] = grant, grant.who
        return number

    def link_ended(self) -> None:
        """Nobody waits there any more; what is held stays so."""
        self._closed = True
        for taking in self._taking.values():
            taking.cancel()

    def end(self, pid: int) -> None:
        """The process is gone. What it held is given back after the last writer."""
        self.link_ended()
        with contextlib.suppress(OSError):  # told below, where it is asked again
            if not self._free_unwritten(groups.left_by(pid)):
                return
        loop = asyncio.get_running_loop()
        self._outliving = loop.create_task(
            self._until_nobody_writes(pid), name=f"writers of process {pid}", context=masking.outside()
        )

    async def _take(self, params: Mapping[str, Any]) -> None:
        number = params["number"]
        wanted = [Lock(namespace, name, Mode(mode)) for namespace, name, mode in params["locks"]]

        async def take() -> None:
            grant = await self._table.take(wanted, who=params["who"], wait_s=params["wait_s"])
            self._held[number] = grant, grant.who

        taking = self._taking[number] = asyncio.ensure_future(take())
        try:
            await taking
        finally:
            del self._taking[number]

    def _give_back(self, number: int) -> None:
        if number in self._taking:
            self._taking[number].cancel()
        if number in self._held:
            self._table.give_back(self._held.pop(number)[0])

    async def _until_nobody_writes(self, pid: int) -> None:
        told = asyncio.get_running_loop().call_later(TELL_S, self._tell)
        try:
            while True:
                try:
                    if not self._free_unwritten(left := groups.left_by(pid)):
                        return
                    await ends.first_end(writer.pid for writer in left)
                except OSError as e:  # for want of descriptors, mostly: what can't be looked at may write still
                    log.error("it is not known which writers process %d left: %s", pid, e)
                    await asyncio.sleep(AGAIN_S)
        finally:
            told.cancel()

    def _free_unwritten(self, left: list[Left]) -> bool:
        """Give back what none of these can write to; whether something is kept."""
        for number, (grant, who) in list(self._held.items()):
            domain_ids = {lock.domain_id for lock in grant.locks}
            known = self._places(domain_ids)
            writing = [w.pid for w in left if not w.place or len(known) < len(domain_ids) or w.place in known.values()]
            if writing:
                grant.who = f"{who} of {self._what} that ended, whose writer {writing[0]} still runs"
            else:
                self._give_back(number)
        return bool(self._held)

    def _tell(self) -> None:
        for grant, _ in self._held.values():
            log.warning("%s is kept: %s", ", ".join(map(str, grant.locks)), grant.who)
