# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lock daemon's answers say about one lease; the real daemon is in test_sanlock_two_hosts."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from typing import Any

import pytest

from storage.errors import LeaseError
from storage.leases.kept import Kept
from storage.leases.model import Lease, LeaseRecord, Lockspace
from vdsm.common.errors import DeadlineExceeded

sanlock = pytest.importorskip("sanlock", reason="the Python binding of sanlock is not installed")

LEASE = Lease("sd", "SDM", "/sd/leases", 1 << 20, 1 << 20, 512)
OWN, OTHER = object(), object()
OURS = [{"lockspace": b"sd", "resource": b"SDM"}]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answers by call: a value, or a number to fail with."""
    from storage.leases import registration

    answers: dict[str, Any] = {"acquire": None, "release": None, "inquire": OURS}

    def answer(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if isinstance(answers[name], int):
                raise sanlock.SanlockException(answers[name], name, "refused")
            return answers[name]

        return call

    for name in answers:
        monkeypatch.setattr(registration.sanlock, name, answer(name))
    monkeypatch.setattr(registration.sanlock, "register", lambda: os.open("/dev/null", os.O_RDONLY))
    return answers


def _acquired() -> Any:
    from storage.leases.registration import Registration

    made = Registration(LEASE, Kept())
    made.acquire(OWN)
    return made


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        (OURS, True),
        ([], False),
        ([{"lockspace": b"sd", "resource": b"other"}], False),
        (errno.EBUSY, True),
        (errno.EPIPE, False),
        (errno.ECONNRESET, False),
    ],
)
def test_what_an_answer_means(daemon: dict[str, Any], answer: Any, held: bool) -> None:
    registration = _acquired()
    daemon["inquire"] = answer
    assert registration.held() is held
    registration.close()


def test_other_refusals_are_errors_not_losses(daemon: dict[str, Any]) -> None:
    registration = _acquired()
    daemon["inquire"] = errno.ENOMEM
    with pytest.raises(sanlock.SanlockException):
        registration.held()
    registration.close()


def test_a_failed_release_ends_the_registration_all_the_same(daemon: dict[str, Any]) -> None:
    registration = _acquired()
    daemon["release"] = errno.EIO
    with pytest.raises(sanlock.SanlockException):
        registration.release()
    assert registration.held() is False


def test_a_failed_acquire_leaves_no_registration(daemon: dict[str, Any]) -> None:
    from storage.leases.registration import Registration

    before = len(os.listdir("/proc/self/fd"))
    daemon["acquire"] = errno.EIO
    registration = Registration(LEASE, Kept())
    with pytest.raises(sanlock.SanlockException):
        registration.acquire(OWN)
    assert registration.held() is False
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lost_lease_is_acquired_anew(daemon: dict[str, Any]) -> None:
    registration = _acquired()
    daemon["inquire"] = errno.EPIPE
    before = len(os.listdir("/proc/self/fd"))
    registration.acquire(OWN)
    assert len(os.listdir("/proc/self/fd")) == before
    daemon["inquire"] = OURS
    assert registration.held() is True
    registration.close()


def test_a_number_that_comes_again_is_told_from_the_connection_that_had_it() -> None:
    kept = Kept()
    kept.add(7)
    kept.add(8)
    before = kept.descriptors
    kept.drop(9)
    assert kept.descriptors is before
    kept.drop(8)
    kept.add(8)
    assert kept.descriptors == before and kept.descriptors is not before


@pytest.mark.parametrize(("late", "kept"), [(OWN, OTHER), (OTHER, OWN)])
def test_who_gave_up_takes_the_lease_from_nobody_else(daemon: dict[str, Any], late: object, kept: object) -> None:
    registration = _acquired()
    registration.acquire(OTHER)
    registration.give_up(late)
    assert registration.held() is True
    registration.give_up(late)  # it has nothing to give up any more
    assert registration.held() is True
    registration.give_up(kept)
    assert registration.held() is False


def test_a_claim_from_before_a_release_takes_nothing_from_who_came_later(daemon: dict[str, Any]) -> None:
    registration = _acquired()
    registration.release()
    registration.acquire(OTHER)
    registration.give_up(OWN)
    assert registration.held() is True
    registration.close()


async def test_an_acquire_that_ends_too_late_leaves_the_lease_to_the_second_caller(
    daemon: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage.leases import registration as module
    from storage.leases.sanlock_edge import SanlockLeases

    go, undone = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(module.sanlock, "acquire", lambda *_, **__: go.wait(10))
    monkeypatch.setattr(SanlockLeases, "read_lease", _version)
    leases = SanlockLeases()
    give_up = module.Registration.give_up

    def told(registration: Any, claim: object) -> None:
        give_up(registration, claim)
        loop.call_soon_threadsafe(undone.set)

    monkeypatch.setattr(module.Registration, "give_up", told)
    with pytest.raises(DeadlineExceeded):
        await leases.acquire(LEASE, timeout_s=0.05)
    second = asyncio.ensure_future(leases.acquire(LEASE, timeout_s=10))
    await asyncio.sleep(0.05)  # its thread waits for its turn
    go.set()
    assert await second == 7
    async with asyncio.timeout(5):
        await undone.wait()
    assert await leases.held(LEASE) is True
    await leases.close()


async def _version(_leases: object, lease: Lease) -> LeaseRecord:
    return LeaseRecord(lease.lockspace, lease.resource, 7)


async def test_a_lease_that_the_daemon_cannot_open_says_who_needs_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    from storage.leases import sanlock_edge

    def refused(*_args: object, **_fields: object) -> None:
        raise sanlock_edge.sanlock.SanlockException(errno.ENODEV, "Sanlock lockspace write failure", "No such device")

    monkeypatch.setattr(sanlock_edge.sanlock, "write_lockspace", refused)
    with pytest.raises(LeaseError, match=r"cannot open it: its user must be in group 36.*no_root_squash"):
        await sanlock_edge.SanlockLeases().format_lockspace(Lockspace("d", "/mnt/ids", 1 << 20, 512, 1))


async def test_a_lease_whose_version_cannot_be_read_is_given_back(
    daemon: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage.leases.sanlock_edge import SanlockLeases

    async def silent(_leases: object, lease: Lease) -> LeaseRecord:
        raise DeadlineExceeded(f"sanlock read of {lease}", 60)

    monkeypatch.setattr(SanlockLeases, "read_lease", silent)
    leases = SanlockLeases()
    with pytest.raises(DeadlineExceeded):
        await leases.acquire(LEASE, timeout_s=5)
    assert await leases.held(LEASE) is False
