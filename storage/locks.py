# SPDX-License-Identifier: GPL-2.0-or-later
"""Named shared and exclusive locks of one process, always taken in one order.

A flow names all it needs before its first step. The locks are sorted by namespace and name, so
two flows can never wait for each other; naming one lock in both modes is a mistake of the caller.

- First in, first out: a shared request joins the holders only when nobody waits before it, so
  a stream of readers cannot starve a writer.
- Safety between hosts does not come from here but from the leases (SDM lease, volume leases).

Namespaces sort by their number: domains and pools, images, volumes, volume leases.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from storage.errors import StorageError

WAIT_S = 120.0
TOLD = 3

T = TypeVar("T")


class Mode(StrEnum):
    SHARED = "shared"
    EXCLUSIVE = "exclusive"


class LockTimeout(StorageError):
    name: str
    mode: str
    waited_s: float
    holders: str
    msg = "Lock {self.name} was not free for {self.mode} use within {self.waited_s:g} s: {self.holders} had it"
    remedy = "Wait until that has ended, and ask again"


class LockModesConflict(StorageError):
    name: str
    msg = "Lock {self.name} was asked for in shared and in exclusive mode by one flow"


@dataclass(frozen=True)
class Lock:
    namespace: str
    name: str
    mode: Mode

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def domain(domain_id: str, mode: Mode = Mode.SHARED) -> Lock:
    return Lock("00_storage", domain_id, mode)


def image(domain_id: str, image_id: str, mode: Mode = Mode.EXCLUSIVE) -> Lock:
    return Lock(f"01_img_{domain_id}", image_id, mode)


def volume(domain_id: str, volume_id: str, mode: Mode = Mode.EXCLUSIVE) -> Lock:
    return Lock(f"02_vol_{domain_id}", volume_id, mode)


@dataclass
class _Held:
    """One named lock: who shares it, or owns it alone, and who waits."""

    holders: list[str] = field(default_factory=list)
    exclusive: bool = False
    queue: deque[tuple[Mode, str, asyncio.Future[None]]] = field(default_factory=deque)

    def free_for(self, mode: Mode) -> bool:
        return not self.exclusive and (mode is Mode.SHARED or not self.holders)

    def take(self, mode: Mode, who: str) -> None:
        self.holders.append(who)
        self.exclusive = mode is Mode.EXCLUSIVE

    def give_back(self, who: str) -> None:
        self.holders.remove(who)
        self.exclusive = False
        self.wake()

    def wake(self) -> None:
        while self.queue and self.free_for(self.queue[0][0]):
            mode, who, turn = self.queue.popleft()
            if not turn.done():
                self.take(mode, who)
                turn.set_result(None)

    @property
    def idle(self) -> bool:
        return not (self.holders or self.queue)


class Locks:
    def __init__(self) -> None:
        self._held: dict[tuple[str, str], _Held] = {}

    @asynccontextmanager
    async def hold(
        self, wanted: Iterable[Lock], *, who: str = "another call", wait_s: float = WAIT_S
    ) -> AsyncIterator[None]:
        """All of ``wanted``, in order. ``who``: told to those who wait in vain.

        Raises `LockTimeout`, `LockModesConflict`.
        """
        async with AsyncExitStack() as stack:
            for lock in _in_order(wanted):
                await stack.enter_async_context(self._one(lock, who, wait_s))
            yield

    @property
    def names(self) -> list[str]:
        """Locks that somebody holds or waits for."""
        return sorted("/".join(key) for key in self._held)

    @asynccontextmanager
    async def _one(self, lock: Lock, who: str, wait_s: float) -> AsyncIterator[None]:
        held = self._held.setdefault(lock.key, _Held())
        await self._enter(held, lock, who, wait_s)
        try:
            yield
        finally:
            held.give_back(who)
            if held.idle:
                self._held.pop(lock.key, None)

    async def _enter(self, held: _Held, lock: Lock, who: str, wait_s: float) -> None:
        if not held.queue and held.free_for(lock.mode):
            held.take(lock.mode, who)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        held.queue.append((lock.mode, who, turn))
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except (TimeoutError, asyncio.CancelledError) as e:
            holders = list(held.holders)
            if turn.done() and not turn.cancelled():  # the turn came together with the cancel
                held.give_back(who)
            else:
                held.queue = deque(entry for entry in held.queue if entry[2] is not turn)
                held.wake()
            if isinstance(e, TimeoutError):
                raise LockTimeout(str(lock), lock.mode, wait_s, _listed(holders)) from None
            raise


def _listed(names: Sequence[str]) -> str:
    """The first few: ten tasks may share a lock."""
    told = list(dict.fromkeys(names))
    return ", ".join(told[:TOLD]) + (f" and {len(told) - TOLD} others" if len(told) > TOLD else "")


def _in_order(wanted: Iterable[Lock]) -> list[Lock]:
    modes: dict[tuple[str, str], Lock] = {}
    for lock in wanted:
        known = modes.setdefault(lock.key, lock)
        if known.mode is not lock.mode:
            raise LockModesConflict(str(lock))
    return [modes[key] for key in sorted(modes)]


def merge(wanted: Iterable[Lock]) -> list[Lock]:
    """Each named lock once: exclusive when one of them is."""
    merged: dict[tuple[str, str], Lock] = {}
    for lock in wanted:
        if lock.mode is Mode.EXCLUSIVE or lock.key not in merged:
            merged[lock.key] = lock
    return list(merged.values())


def overlapping(needs: Sequence[tuple[T, list[Lock]]]) -> list[list[tuple[T, list[Lock]]]]:
    """Grouped so that no two groups exclude each other; within a group the order is kept."""
    alone = {lock.key for _, wanted in needs for lock in wanted if lock.mode is Mode.EXCLUSIVE}
    groups: list[tuple[set[tuple[str, str]], list[int]]] = []
    for place, (_, wanted) in enumerate(needs):
        keys, members = {lock.key for lock in wanted} & alone, [place]
        for known in [group for group in groups if group[0] & keys]:
            groups.remove(known)
            keys, members = keys | known[0], members + known[1]
        groups.append((keys, members))
    return [[needs[place] for place in sorted(members)] for _, members in groups]
