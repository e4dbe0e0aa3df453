# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of the locks of a host, their modes and their order; where a flow takes them.

A flow names all it needs before its first step. The locks are sorted by namespace and name, so
two flows can never wait for each other; naming one lock in both modes is a mistake of the caller.

There is one table of a host (`storage.lock_table`), in its agent. Processes that the agent started take theirs there
(`storage.lock_link`), so a prepare of the agent and a task of its SPM process exclude each other by the same lock.
Safety between hosts does not come from here but from the leases (SDM lease, volume leases).

Namespaces sort by their number: domains and pools, images, volumes, volume leases; what this host has prepared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from storage.errors import StorageError

WAIT_S = 60.0
DOMAINS = "00_storage"
PREPARED = "06_prepared_"

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

    @property
    def domain_id(self) -> str:
        """The domain that it is about."""
        return self.name if self.namespace == DOMAINS else self.namespace.rpartition("_")[2]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def domain(domain_id: str, mode: Mode = Mode.SHARED) -> Lock:
    return Lock(DOMAINS, domain_id, mode)


def image(domain_id: str, image_id: str, mode: Mode = Mode.EXCLUSIVE) -> Lock:
    return Lock(f"01_img_{domain_id}", image_id, mode)


def volume(domain_id: str, volume_id: str, mode: Mode = Mode.EXCLUSIVE) -> Lock:
    return Lock(f"02_vol_{domain_id}", volume_id, mode)


def prepared(domain_id: str, image_id: str) -> Lock:
    """What this host has prepared of an image. A teardown takes no other: it waits for nobody who works on storage."""
    return Lock(f"{PREPARED}{domain_id}", image_id, Mode.EXCLUSIVE)


class LockTable(Protocol):
    def hold(self, wanted: Iterable[Lock], *, who: str, wait_s: float = WAIT_S) -> AbstractAsyncContextManager[object]:
        """All of ``wanted``, taken in their order. ``who``: told to those who wait in vain; ``wait_s``: for all.

        Raises `LockTimeout`, `LockModesConflict`.
        """


def in_order(wanted: Iterable[Lock]) -> list[Lock]:
    """Each once, as they are to be taken. Raises `LockModesConflict`."""
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
