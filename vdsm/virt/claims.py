# SPDX-License-Identifier: GPL-2.0-or-later
"""What keeps apart that must not meet on one VM: long work that goes on, and verbs that come meanwhile.

Long work (a migration, a copy of a disk) takes a claim when it begins and gives it back when it has ended, however
it ended. A verb asks before its first step. No lock is held meanwhile: the table says whether the verb waits, or
which error it gets; what does with the engine's code is in the border (51 for what virt.md §12 lists).

    claim        on                what it keeps out
    migration    the VM            migration, plug, snapshot, save, media, backup: refused (migration in progress)
    save         the VM            the same: libvirt saves the memory, the domain takes no change
    merge copy   one drive         each other and resize of the same drive: refused; extension and refresh wait
    resize       one drive         the same
    snapshot     the VM            merge, copy, resize, backup, migration, save, a second snapshot: refused
    plug         one device        the same device: waits for it
    backup       the VM            a second backup, snapshot, merge, migration, save: refused
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from vdsm.virt.errors import ClaimedByJob


class Claim(StrEnum):
    MIGRATION = "a migration"
    SAVE = "saving of its memory"
    SNAPSHOT = "a snapshot"
    MERGE = "a merge"
    COPY = "a copy of a disk"
    RESIZE = "a resize"
    EXTEND = "an extension"
    PLUG = "a plug or unplug"
    MEDIA = "a change of media"
    BACKUP = "a backup"
    TUNING = "a change of tuning"


class Answer(StrEnum):
    WAIT = "wait"
    REFUSE = "refuse"


_C = Claim
_WHOLE = frozenset({_C.MIGRATION, _C.SAVE, _C.SNAPSHOT, _C.BACKUP})
_DRIVE = frozenset({_C.MERGE, _C.COPY, _C.RESIZE})
_REFUSED: dict[Claim, frozenset[Claim]] = {
    # held -> what is refused meanwhile
    _C.MIGRATION: _WHOLE | {_C.PLUG, _C.MEDIA},
    _C.SAVE: _WHOLE | _DRIVE | {_C.PLUG, _C.MEDIA},
    _C.SNAPSHOT: _WHOLE | _DRIVE,
    _C.BACKUP: _WHOLE | {_C.MERGE},
    _C.MERGE: _DRIVE | {_C.SNAPSHOT, _C.BACKUP, _C.MIGRATION, _C.SAVE},
    _C.COPY: _DRIVE | {_C.SNAPSHOT, _C.MIGRATION, _C.SAVE},
    _C.RESIZE: _DRIVE | {_C.SNAPSHOT, _C.SAVE},
}
_WAITS: dict[Claim, frozenset[Claim]] = {
    _C.MERGE: frozenset({_C.EXTEND}),
    _C.COPY: frozenset({_C.EXTEND}),
    _C.RESIZE: frozenset({_C.EXTEND}),
    _C.EXTEND: frozenset({_C.EXTEND, _C.RESIZE}),
    _C.PLUG: frozenset({_C.PLUG}),
    _C.MEDIA: frozenset({_C.MEDIA}),
    _C.TUNING: frozenset({_C.TUNING}),
}


def answer(held: Claim, wanted: Claim) -> Answer | None:
    """What who wants ``wanted`` gets while ``held`` is; None: both go on side by side."""
    if wanted in _REFUSED.get(held, ()):
        return Answer.REFUSE
    return Answer.WAIT if wanted in _WAITS.get(held, ()) else None


@dataclass(frozen=True)
class Held:
    """``on``: the drive or device it is about, empty for the whole VM."""

    claim: Claim
    on: str
    since_s: float


class Claims:
    def __init__(self, vm_id: str) -> None:
        self._vm_id = vm_id
        self._held: list[Held] = []
        self._freed = asyncio.Event()

    def holds(self, *claims: Claim) -> bool:
        return any(held.claim in claims for held in self._held)

    @contextlib.asynccontextmanager
    async def take(self, claim: Claim, on: str = "") -> AsyncIterator[Held]:
        """Have the claim while the body runs, after what it must wait for. Raises `ClaimedByJob`."""
        while self._must_wait(claim, on):
            await self._freed.wait()
        mine = Held(claim, on, time.monotonic())
        self._held.append(mine)
        try:
            yield mine
        finally:
            self._held = [held for held in self._held if held is not mine]
            freed, self._freed = self._freed, asyncio.Event()
            freed.set()

    def _must_wait(self, claim: Claim, on: str) -> bool:
        answers = [(held, answer(held.claim, claim)) for held in self._held if _meets(held.on, on)]
        for held, said in answers:
            if said is Answer.REFUSE:
                raise ClaimedByJob(self._vm_id, str(claim), str(held.claim), time.monotonic() - held.since_s)
        return any(said is Answer.WAIT for _, said in answers)


def _meets(one: str, other: str) -> bool:
    """A claim on the whole VM meets every other."""
    return not one or not other or one == other
