# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of one VM: what is stored, and what is reported of it.

Stored is what libvirt says (running, paused) and where the owner is (starting, going down, Down).
Reported differs for a while: a running guest is `Powering up` until its guest agent answers, `Powering down`
after it was asked to, `RebootInProgress` after a reboot. These words expire by themselves, so a guest that
ignores the request is Up again later (virt.md §5.1). A guest without an agent channel is Up as soon as it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from vdsm.virt.states import NEXT, Exit, PauseCode, VmState

POWERING_UP_S = 60.0
REBOOTING_S = 60.0
POWERING_DOWN_S = 300.0


class Status:
    def __init__(self, stored: VmState, *, now: Callable[[], float] = time.monotonic) -> None:
        self.stored = stored
        self.exit: Exit | None = None
        self.pause_code = PauseCode.NONE
        self._now = now
        self._guest_word = VmState.UP
        self._guest_word_until = 0.0

    @property
    def reported(self) -> VmState:
        if self.stored is VmState.UP and self._now() < self._guest_word_until:
            return self._guest_word
        return self.stored

    @property
    def down(self) -> bool:
        return self.stored is VmState.DOWN

    def run(self) -> bool:
        """The guest runs. True when that is news; a VM that goes down, or is, does not run any more."""
        before = self.stored
        return self._move(VmState.UP) and before is not VmState.UP

    def pause(self, code: PauseCode) -> bool:
        """The guest's CPUs stand still, and why. True when that is news."""
        before = self.stored, self.pause_code
        return self._move(VmState.PAUSED, code) and before != (VmState.PAUSED, code)

    def end(self) -> bool:
        """The owner takes the VM down. True when that changes what is reported."""
        before = self.reported
        self._move(VmState.POWERING_DOWN)
        return self.reported is not before

    def go_down(self, exit_: Exit) -> bool:
        """Down, once: False when it was Down already, whose exit stands."""
        if not self._move(VmState.DOWN):
            return False
        self.exit = exit_
        return True

    def _move(self, to: VmState, code: PauseCode = PauseCode.NONE) -> bool:
        if to not in NEXT[self.stored]:
            return False
        self.stored, self.pause_code = to, code
        return True

    def expect_guest(self, word: VmState, seconds: float) -> None:
        """Report ``word`` while the guest runs, for at most ``seconds``."""
        self._guest_word, self._guest_word_until = word, self._now() + seconds

    def guest_answered(self) -> bool:
        """The guest is up and says so. True when that changes what is reported."""
        news = self.reported in (VmState.POWERING_UP, VmState.REBOOTING)
        if self._guest_word is not VmState.POWERING_DOWN:
            self._guest_word_until = 0.0
        return news
