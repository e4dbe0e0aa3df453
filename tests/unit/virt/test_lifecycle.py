# SPDX-License-Identifier: GPL-2.0-or-later
"""States change by one table only; what is reported of one, and for how long."""

from __future__ import annotations

import pytest

from vdsm.virt.lifecycle import TABLE, Cause, Change, Lifecycle
from vdsm.virt.states import ExitReason, PauseCode, VmState, exit_for

# state after each cause, in the order of the rows; "-": nothing changes. By hand, from virt.md 5.1
CAUSES = [
    *("RUNS", "STANDS", "RESTORES", "RESTORED", "COMES", "ARRIVED"),
    *("LEAVES", "STAYS", "SAVES", "NOT_SAVED", "ENDS", "GONE"),
]
WANTED = {
    "WAIT_FOR_LAUNCH": "UP PAUSED RESTORING - MIGRATION_DESTINATION - - - - - POWERING_DOWN -",
    "RESTORING": "- - - PAUSED - - - - - - POWERING_DOWN -",
    "MIGRATION_DESTINATION": "- - - - - UP - - - - POWERING_DOWN -",
    "UP": "UP PAUSED - - - - MIGRATION_SOURCE - SAVING - POWERING_DOWN -",
    "PAUSED": "UP PAUSED - - - - MIGRATION_SOURCE - SAVING - POWERING_DOWN -",
    "MIGRATION_SOURCE": "- - - - - - - UP - - POWERING_DOWN -",
    "SAVING": "- - - - - - - - - PAUSED POWERING_DOWN -",
    "POWERING_DOWN": "- - - - - - - - - - - DOWN",
    "DOWN": "- - - - - - - - - - - -",
}
# the causes that lead to a state
WAYS = {
    "WAIT_FOR_LAUNCH": "",
    "RESTORING": "RESTORES",
    "MIGRATION_DESTINATION": "COMES",
    "UP": "RUNS",
    "PAUSED": "STANDS",
    "MIGRATION_SOURCE": "RUNS LEAVES",
    "SAVING": "RUNS SAVES",
    "POWERING_DOWN": "ENDS",
    "DOWN": "ENDS GONE",
}
EXIT = exit_for(ExitReason.USER_SHUTDOWN)


class Time:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def apply(life: Lifecycle, cause: str) -> Change | None:
    return life.apply(Cause[cause], code=PauseCode.NO_ERROR, exit_=EXIT)


def at(state: str, now: Time | None = None) -> Lifecycle:
    life = Lifecycle(now or Time())
    for cause in WAYS[state].split():
        apply(life, cause)
    assert life.stored is VmState[state]
    return life


@pytest.mark.parametrize("state", list(WANTED))
@pytest.mark.parametrize("number", range(len(CAUSES)))
def test_a_cause_leads_where_the_table_says(state: str, number: int) -> None:
    life, after = at(state), WANTED[state].split()[number]
    changed = apply(life, CAUSES[number]) is not None
    assert (changed, life.stored.name) == ((False, state) if after == "-" else (True, after))


def test_every_cause_and_state_is_in_the_table_of_this_test() -> None:
    assert [cause.name for cause in Cause] == CAUSES == [cause.name for cause in TABLE]
    words = {VmState.POWERING_UP, VmState.REBOOTING}  # reported only
    assert {VmState[name] for name in WANTED} == set(VmState) - words


def test_the_first_exit_stands() -> None:
    life = at("DOWN")
    assert life.apply(Cause.GONE, exit_=exit_for(ExitReason.LOST_QEMU)) is None
    assert life.exit == EXIT


def test_a_vm_that_is_gone_has_an_exit() -> None:
    with pytest.raises(ValueError, match="exit"):
        at("POWERING_DOWN").apply(Cause.GONE)


def test_only_a_paused_vm_has_a_pause_code() -> None:
    life = at("UP")
    life.apply(Cause.STANDS, code=PauseCode.NO_SPACE)
    assert life.pause_code is PauseCode.NO_SPACE
    life.apply(Cause.RUNS)
    assert life.pause_code is PauseCode.NONE
    life.apply(Cause.STANDS)
    assert life.pause_code is PauseCode.NO_ERROR


def test_the_same_again_is_no_news() -> None:
    life = at("UP")
    assert [life.apply(Cause.RUNS), life.apply(Cause.STANDS, code=PauseCode.OTHER)] == [
        Change(VmState.UP, VmState.UP, news=False),
        Change(VmState.UP, VmState.PAUSED, news=True),
    ]
    again, other = life.apply(Cause.STANDS, code=PauseCode.OTHER), life.apply(Cause.STANDS, code=PauseCode.NO_SPACE)
    assert again is not None and not again.news
    assert other is not None and other.news


def test_a_word_about_the_guest_expires() -> None:
    time = Time()
    life = at("UP", time)
    life.expect_guest(VmState.POWERING_DOWN, 300)
    assert life.reported is VmState.POWERING_DOWN
    time.now += 301
    assert life.reported is VmState.UP


def test_an_end_after_powering_down_was_reported_is_no_news() -> None:
    life = at("UP")
    life.expect_guest(VmState.POWERING_DOWN, 300)
    change = life.apply(Cause.ENDS)
    assert change is not None and not change.news


def test_an_answer_of_the_guest_ends_powering_up_but_not_powering_down() -> None:
    life = at("UP")
    life.expect_guest(VmState.POWERING_UP, 60)
    assert life.guest_answered()
    assert life.reported is VmState.UP
    life.expect_guest(VmState.POWERING_DOWN, 60)
    assert not life.guest_answered()
    assert life.reported is VmState.POWERING_DOWN


def test_a_paused_vm_is_paused_whatever_its_guest_was_asked() -> None:
    life = at("UP")
    life.expect_guest(VmState.POWERING_DOWN, 60)
    apply(life, "STANDS")
    assert life.reported is VmState.PAUSED


@pytest.mark.parametrize("reason", list(ExitReason))
def test_only_an_orderly_end_has_code_0_and_each_has_a_message(reason: ExitReason) -> None:
    exit_ = exit_for(reason)
    assert exit_.code == (0 if reason in {0, 4, 5, 6, 7, 10, 13} else 1)
    assert exit_.message
