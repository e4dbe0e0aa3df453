# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lock daemon's answers say about one lease; the real daemon is in test_sanlock_two_hosts."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from storage.leases.model import Lease

sanlock = pytest.importorskip("sanlock", reason="the Python binding of sanlock is not installed")

LEASE = Lease("sd", "SDM", "/sd/leases", 1 << 20, 1 << 20, 512)
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

    made = Registration(LEASE)
    made.acquire()
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
    registration = Registration(LEASE)
    with pytest.raises(sanlock.SanlockException):
        registration.acquire()
    assert registration.held() is False
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lost_lease_is_acquired_anew(daemon: dict[str, Any]) -> None:
    registration = _acquired()
    daemon["inquire"] = errno.EPIPE
    before = len(os.listdir("/proc/self/fd"))
    registration.acquire()
    assert len(os.listdir("/proc/self/fd")) == before
    daemon["inquire"] = OURS
    assert registration.held() is True
    registration.close()
