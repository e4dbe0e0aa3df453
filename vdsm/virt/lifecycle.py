# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of one VM: the table of states and causes, and what is reported of it.

`TABLE` is the only place that says what may follow what, and `Lifecycle.apply` the only code that changes a VM's state.
A cause that has no row for the state changes nothing: so an end that was begun is never taken back, Down is final, and
what a look at libvirt saw before can't raise a VM again.

Reported differs from stored for a while: a running guest is `Powering up` until its guest agent answers, `Powering
down` after it was asked to, `RebootInProgress` after a reboot. These words expire by themselves, so a guest that
ignores the request is Up again later (virt.md §5.1). A guest without an agent channel is Up as soon as it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from vdsm.virt.states import Exit, PauseCode, VmState

POWERING_UP_S = 60.0
REBOOTING_S = 60.0
POWERING_DOWN_S = 300.0


class Cause(StrEnum):
    RUNS = "the guest's CPUs run"
    STANDS = "the guest's CPUs stand"
    RESTORES = "memory that was saved is being loaded"
    RESTORED = "the saved memory is loaded"
    COMES = "it is being received from another host"
    ARRIVED = "it runs here now"
    LEAVES = "it is being sent to another host"
    STAYS = "it was not sent: it goes on here"
    SAVES = "its memory is being saved"
    NOT_SAVED = "its memory was not saved: it is still here"
    ENDS = "it is being ended"
    GONE = "nothing of it runs any more"


_S = VmState
# cause -> state before -> state after
TABLE: dict[Cause, dict[VmState, VmState]] = {
    Cause.RUNS: {_S.WAIT_FOR_LAUNCH: _S.UP, _S.UP: _S.UP, _S.PAUSED: _S.UP},
    Cause.STANDS: {_S.WAIT_FOR_LAUNCH: _S.PAUSED, _S.UP: _S.PAUSED, _S.PAUSED: _S.PAUSED},
    Cause.RESTORES: {_S.WAIT_FOR_LAUNCH: _S.RESTORING},
    Cause.RESTORED: {_S.RESTORING: _S.PAUSED},
    Cause.COMES: {_S.WAIT_FOR_LAUNCH: _S.MIGRATION_DESTINATION},
    Cause.ARRIVED: {_S.MIGRATION_DESTINATION: _S.UP},
    Cause.LEAVES: {_S.UP: _S.MIGRATION_SOURCE, _S.PAUSED: _S.MIGRATION_SOURCE},
    Cause.STAYS: {_S.MIGRATION_SOURCE: _S.UP},
    Cause.SAVES: {_S.UP: _S.SAVING, _S.PAUSED: _S.SAVING},
    Cause.NOT_SAVED: {_S.SAVING: _S.PAUSED},
    Cause.ENDS: {state: _S.POWERING_DOWN for state in _S if state not in (_S.POWERING_DOWN, _S.DOWN)},
    Cause.GONE: {_S.POWERING_DOWN: _S.DOWN},
}


@dataclass(frozen=True)
class Change:
    """What a cause did; ``news``: what is reported differs."""

    before: VmState
    after: VmState
    news: bool


class Lifecycle:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._state = VmState.WAIT_FOR_LAUNCH
        self._exit: Exit | None = None
        self._pause_code = PauseCode.NONE
        self._now = now
        self._guest_word = VmState.UP
        self._guest_word_until = 0.0

    @property
    def stored(self) -> VmState:
        return self._state

    @property
    def reported(self) -> VmState:
        if self._state is VmState.UP and self._now() < self._guest_word_until:
            return self._guest_word
        return self._state

    @property
    def pause_code(self) -> PauseCode:
        return self._pause_code

    @property
    def exit(self) -> Exit | None:
        """How it ended; None until it is Down."""
        return self._exit

    @property
    def down(self) -> bool:
        return self._state is VmState.DOWN

    @property
    def ending(self) -> bool:
        return self._state in (VmState.POWERING_DOWN, VmState.DOWN)

    def apply(self, cause: Cause, *, code: PauseCode = PauseCode.NONE, exit_: Exit | None = None) -> Change | None:
        """Change the state as the table says; None when the cause has no row here.

        ``code`` belongs to `STANDS`, ``exit_`` to `GONE`; the first exit stands, because Down has no row.
        """
        before, reported, old_code = self._state, self.reported, self._pause_code
        after = TABLE[cause].get(before)
        if after is None:
            return None
        if cause is Cause.GONE:
            if exit_ is None:
                raise ValueError("a VM that is gone has an exit")
            self._exit = exit_
        self._state = after
        self._pause_code = (code or PauseCode.NO_ERROR) if after is VmState.PAUSED else PauseCode.NONE
        return Change(before, after, self.reported is not reported or self._pause_code is not old_code)

    def expect_guest(self, word: VmState, seconds: float) -> None:
        """Report ``word`` while the guest runs, for at most ``seconds``."""
        self._guest_word, self._guest_word_until = word, self._now() + seconds

    def guest_answered(self) -> bool:
        """The guest is up and says so. True when that changes what is reported."""
        news = self.reported in (VmState.POWERING_UP, VmState.REBOOTING)
        if self._guest_word is not VmState.POWERING_DOWN:
            self._guest_word_until = 0.0
        return news
