# SPDX-License-Identifier: GPL-2.0-or-later
"""What is reported of a VM's state, and for how long."""

from __future__ import annotations

from vdsm.virt.states import ExitReason, PauseCode, VmState, exit_for
from vdsm.virt.status import Status


class Time:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def test_a_vm_goes_down_once_and_the_first_exit_stands() -> None:
    status = Status(VmState.UP)
    first = exit_for(ExitReason.USER_SHUTDOWN)
    assert status.end()
    assert status.go_down(first)
    assert not status.go_down(exit_for(ExitReason.LOST_QEMU))
    assert status.exit == first
    assert not status.end()
    assert status.reported is VmState.DOWN


def test_a_word_about_the_guest_expires() -> None:
    time = Time()
    status = Status(VmState.UP, now=time)
    status.expect_guest(VmState.POWERING_DOWN, 300)
    assert status.reported is VmState.POWERING_DOWN
    time.now += 301
    assert status.reported is VmState.UP


def test_an_answer_of_the_guest_ends_powering_up_but_not_powering_down() -> None:
    status = Status(VmState.UP)
    status.expect_guest(VmState.POWERING_UP, 60)
    assert status.guest_answered()
    assert status.reported is VmState.UP
    status.expect_guest(VmState.POWERING_DOWN, 60)
    assert not status.guest_answered()
    assert status.reported is VmState.POWERING_DOWN


def test_a_paused_vm_is_paused_whatever_its_guest_was_asked() -> None:
    status = Status(VmState.UP)
    status.expect_guest(VmState.POWERING_DOWN, 60)
    assert status.pause(PauseCode.NO_SPACE)
    assert not status.pause(PauseCode.NO_SPACE)
    assert status.reported is VmState.PAUSED
    assert status.run()


def test_only_an_orderly_end_has_code_0() -> None:
    assert [exit_for(r).code for r in (ExitReason.ADMIN_SHUTDOWN, ExitReason.USER_SHUTDOWN)] == [0, 0]
    assert [exit_for(r).code for r in (ExitReason.LOST_QEMU, ExitReason.HOST_SHUTDOWN)] == [1, 1]
