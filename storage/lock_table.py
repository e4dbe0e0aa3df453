# SPDX-License-Identifier: GPL-2.0-or-later
"""The locks of a host: who holds which, who waits.

First in, first out for each lock: a shared request joins the holders only when nobody waits before it, so a stream of
readers cannot starve a writer. What one flow has is a `Grant`. It can be shared: a verb that asks another process
to act under it shares it with that process, and it is free when both have given it back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from storage.earlier_writers import EarlierWriters, Writer
from storage.locks import WAIT_S, Lock, LockTimeout, Mode, in_order

TOLD = 3


@dataclass(eq=False)
class Grant:
    """What one flow has of the table."""

    who: str
    """Told to those who wait in vain."""
    locks: list[Lock] = field(default_factory=list)
    shares: int = 1


@dataclass(frozen=True, eq=False)
class _Wait:
    mode: Mode
    grant: Grant
    turn: asyncio.Future[None]
    since: float


@dataclass(frozen=True)
class LockState:
    """One lock for people to read. Of holders and waiters: who, and for how many seconds."""

    lock: str
    mode: Mode
    holders: list[tuple[str, float]]
    waiting: list[tuple[str, Mode, float]]


@dataclass
class _Held:
    """One named lock: who shares it, or owns it alone, and who waits."""

    holders: dict[Grant, float] = field(default_factory=dict)
    mode: Mode = Mode.SHARED
    queue: deque[_Wait] = field(default_factory=deque)

    def free_for(self, mode: Mode) -> bool:
        return not self.holders or (self.mode is Mode.SHARED and mode is Mode.SHARED)

    def take(self, mode: Mode, grant: Grant) -> None:
        self.holders[grant] = time.monotonic()
        self.mode = mode

    def wake(self) -> None:
        while self.queue and self.free_for(self.queue[0].mode):
            first = self.queue.popleft()
            if not first.turn.done():
                self.take(first.mode, first.grant)
                first.turn.set_result(None)


class Locks:
    def __init__(self, earlier: EarlierWriters | None = None) -> None:
        """``earlier``: whom this table does not know, and who is waited for all the same."""
        self._earlier = earlier
        self._behind: dict[Grant, _Wait] = {}
        self._held: dict[tuple[str, str], _Held] = {}

    @asynccontextmanager
    async def hold(self, wanted: Iterable[Lock], *, who: str, wait_s: float = WAIT_S) -> AsyncIterator[Grant]:
        """See `storage.locks.LockTable`."""
        grant = await self.take(wanted, who=who, wait_s=wait_s)
        try:
            yield grant
        finally:
            self.give_back(grant)

    async def take(self, wanted: Iterable[Lock], *, who: str, wait_s: float = WAIT_S) -> Grant:
        """All of ``wanted``, until `give_back`. Raises `LockTimeout`, `LockModesConflict`; then nothing is held."""
        ordered = in_order(wanted)
        grant = Grant(who)
        try:
            async with asyncio.timeout(wait_s):
                await self._pass_earlier(ordered, grant)
                for lock in ordered:
                    await self._enter(lock, grant)
                    grant.locks.append(lock)
        except BaseException as e:
            missed = ordered[len(grant.locks)]
            holders = [writer.who for writer in self._before(ordered)] or self._holders(missed)
            self.give_back(grant)
            if isinstance(e, TimeoutError):
                raise LockTimeout(str(missed), missed.mode, wait_s, _listed(holders)) from None
            raise
        return grant

    def share(self, grant: Grant) -> None:
        """One more has to give it back before it is free."""
        grant.shares += 1

    def give_back(self, grant: Grant) -> None:
        grant.shares -= 1
        if not grant.shares:
            for lock in reversed(grant.locks):
                self._leave(lock, grant)

    def states(self) -> list[LockState]:
        """Every lock that somebody holds, in order."""
        now = time.monotonic()
        return self._earlier_states(now) + [
            LockState(
                "/".join(key),
                held.mode,
                [(grant.who, now - since) for grant, since in held.holders.items()],
                [(wait.grant.who, wait.mode, now - wait.since) for wait in held.queue],
            )
            for key, held in sorted(self._held.items())
        ]

    @property
    def names(self) -> list[str]:
        """Locks that somebody holds."""
        return sorted("/".join(key) for key in self._held)

    def _before(self, wanted: list[Lock]) -> list[Writer]:
        return self._earlier.before(wanted) if self._earlier is not None else []

    async def _pass_earlier(self, wanted: list[Lock], grant: Grant) -> None:
        if self._earlier is None or not self._before(wanted):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._behind[grant] = _Wait(Mode.EXCLUSIVE, grant, turn, time.monotonic())
        try:
            await self._earlier.ended(wanted)
        finally:
            del self._behind[grant]

    def _earlier_states(self, now: float) -> list[LockState]:
        left = self._earlier.all if self._earlier is not None else []
        waiting = [(wait.grant.who, wait.mode, now - wait.since) for wait in self._behind.values()]
        return [
            LockState(
                f"images on {writer.place or writer.domain_id}",
                Mode.EXCLUSIVE,
                [(writer.who, now - writer.since)],
                waiting,
            )
            for writer in left
        ]

    async def _enter(self, lock: Lock, grant: Grant) -> None:
        held = self._held.setdefault(lock.key, _Held())
        if not held.queue and held.free_for(lock.mode):
            held.take(lock.mode, grant)
            return
        wait = _Wait(lock.mode, grant, asyncio.get_running_loop().create_future(), time.monotonic())
        held.queue.append(wait)
        try:
            await wait.turn
        except asyncio.CancelledError:
            if not wait.turn.cancelled():  # it came together with the cancel
                self._leave(lock, grant)
            elif wait in held.queue:  # else it was passed over already
                held.queue.remove(wait)
                held.wake()
            raise

    def _leave(self, lock: Lock, grant: Grant) -> None:
        held = self._held[lock.key]
        del held.holders[grant]
        held.wake()
        if not held.holders:
            del self._held[lock.key]

    def _holders(self, lock: Lock) -> list[str]:
        held = self._held.get(lock.key)
        return [grant.who for grant in held.holders] if held else ["another call"]


def _listed(names: Sequence[str]) -> str:
    """The first few: ten tasks may share a lock."""
    told = list(dict.fromkeys(names))
    return ", ".join(told[:TOLD]) + (f" and {len(told) - TOLD} others" if len(told) > TOLD else "")
