# SPDX-License-Identifier: GPL-2.0-or-later
"""What a look means, and how a VM that is gone has ended: libvirt's word against what was heard and asked for."""

from __future__ import annotations

import time

import pytest

from vdsm.virt.claims import Claim, Claims
from vdsm.virt.hypervisor import Domain, DomainState
from vdsm.virt.lifecycle import Cause
from vdsm.virt.records import Phase, Record
from vdsm.virt.sight import Sight, asked_of, exit_of, judge
from vdsm.virt.states import ExitReason, PauseCode, VmState

from .fakes import VM

NOW_S = 1000.0


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are made when tests are collected, which may be minutes ago."""
    monkeypatch.setattr(time, "monotonic", lambda: NOW_S)


GONE, NOTHING, RUNS = Sight(ended=True), Sight(), Sight(cause=Cause.RUNS)


def stands(code: str) -> Sight:
    return Sight(cause=Cause.STANDS, code=PauseCode(code))


def domain(state: DomainState, reason: str = "", *, active: bool = True) -> Domain:
    return Domain(VM, "x", state, reason, "", active)


def off(reason: str) -> Domain:
    return domain(DomainState.OFF, reason, active=False)


def seen(
    found: Domain | None,
    trouble: PauseCode = PauseCode.NONE,
    *,
    stored: VmState = VmState.UP,
    claims: Claims | None = None,
) -> Sight:
    return judge(found, trouble, stored, claims or Claims(VM))


@pytest.mark.parametrize(
    ("found", "means"),
    [
        (None, GONE),
        (off("shutdown"), GONE),
        (domain(DomainState.CRASHED, "panicked", active=False), GONE),
        (domain(DomainState.RUNNING, "booted"), RUNS),
        (domain(DomainState.RUNNING, "asleep"), RUNS),
        (domain(DomainState.CRASHED, "panicked"), stands("NOERR")),  # its memory can be looked at
        (domain(DomainState.SHUTTING_DOWN, "user"), NOTHING),
        (domain(DomainState.PAUSED, "starting up"), NOTHING),
        (domain(DomainState.PAUSED, "shutting down"), NOTHING),
        (domain(DomainState.PAUSED, "user"), stands("NOERR")),
        (domain(DomainState.PAUSED, "watchdog"), stands("NOERR")),
        (domain(DomainState.PAUSED, ""), stands("NOERR")),
        (domain(DomainState.PAUSED, "ioerror"), stands("EOTHER")),
        (domain(DomainState.PAUSED, "postcopy"), stands("POSTCOPY")),
        (domain(DomainState.PAUSED, "migration"), stands("NOERR")),  # of somebody else
    ],
)
def test_a_look_means_what_the_table_says(found: Domain | None, means: Sight) -> None:
    assert seen(found) == means


def test_a_pause_by_a_disk_has_the_trouble_that_was_heard_of() -> None:
    assert seen(domain(DomainState.PAUSED, "ioerror"), PauseCode.NO_SPACE) == stands("ENOSPC")
    assert seen(domain(DomainState.PAUSED, "user"), PauseCode.NO_SPACE) == stands("NOERR")


@pytest.mark.parametrize(
    ("reason", "work", "other"),
    [
        ("migration", Claim.MIGRATION, Claim.SAVE),
        ("save", Claim.SAVE, Claim.MIGRATION),
        ("dump", Claim.SNAPSHOT, Claim.SAVE),
        ("snapshot", Claim.SNAPSHOT, Claim.MERGE),
    ],
)
async def test_a_pause_for_work_of_ours_is_none_while_that_work_goes_on(reason: str, work: Claim, other: Claim) -> None:
    claims = Claims(VM)
    paused = domain(DomainState.PAUSED, reason)
    async with claims.take(work):
        assert seen(paused, claims=claims) == NOTHING
        assert seen(domain(DomainState.PAUSED, "user"), claims=claims) == stands("NOERR")
    async with claims.take(other):
        assert seen(paused, claims=claims) == stands("NOERR")


def test_a_vm_that_is_being_received_stands_without_a_pause() -> None:
    assert seen(domain(DomainState.PAUSED, "migration"), stored=VmState.MIGRATION_DESTINATION) == NOTHING


# How it ended


def record(heard: ExitReason | None = None, asked: ExitReason | None = None, for_s: float = 60.0) -> Record:
    until_s = NOW_S + for_s if asked else 0.0
    return Record(vm_id=VM, name="x", phase=Phase.RUNNING, xml="", heard=heard, asked=asked, asked_until_s=until_s)


@pytest.mark.parametrize(
    ("found", "known", "code", "reason"),
    [
        (None, record(), 1, 9),
        (off("shutdown"), record(), 0, 7),
        (off("crashed"), record(), 1, 2),
        (off("destroyed"), record(), 1, 2),
        (off("failed"), record(), 1, 3),
        (off("migrated"), record(), 0, 4),
        (off("saved"), record(), 0, 5),
        # an event of its end is the best witness
        (off("crashed"), record(heard=ExitReason.HOST_SHUTDOWN), 1, 11),
        (None, record(heard=ExitReason.USER_SHUTDOWN, asked=ExitReason.ADMIN_SHUTDOWN), 0, 7),
        # then what libvirt is sure of
        (off("crashed"), record(asked=ExitReason.ADMIN_SHUTDOWN), 1, 2),
        (off("migrated"), record(asked=ExitReason.ADMIN_SHUTDOWN), 0, 4),
        (off("saved"), record(asked=ExitReason.ADMIN_SHUTDOWN), 0, 5),
        # then what somebody asked for, as long as it may still be the cause
        (off("shutdown"), record(asked=ExitReason.ADMIN_SHUTDOWN), 0, 6),
        (None, record(asked=ExitReason.ADMIN_SHUTDOWN), 0, 6),
        (off("shutdown"), record(asked=ExitReason.ADMIN_SHUTDOWN, for_s=-1.0), 0, 7),
    ],
)
def test_how_it_ended(found: Domain | None, known: Record, code: int, reason: int) -> None:
    exit_ = exit_of(found, known)
    assert (exit_.code, exit_.reason) == (code, reason)


def test_what_was_asked_for_counts_until_its_time_is_over() -> None:
    assert asked_of(record(asked=ExitReason.ADMIN_SHUTDOWN)) is ExitReason.ADMIN_SHUTDOWN
    assert asked_of(record(asked=ExitReason.ADMIN_SHUTDOWN, for_s=0.0)) is None
    assert asked_of(record()) is None
