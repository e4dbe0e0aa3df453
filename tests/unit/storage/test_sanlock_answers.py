# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of the lock daemon, and what its answers mean; the real daemon is in test_sanlock_two_hosts."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from storage.errors import (
    HostIdInUse,
    HostIdNotAcquired,
    LeaseError,
    LeaseHeld,
    LeaseNotFormatted,
    SanlockUnavailable,
    StorageError,
)
from storage.leases import Holder, Lease, LeaseOwner, LeaseRecord, Lockspace, Membership

sanlock = pytest.importorskip("sanlock", reason="the Python binding of sanlock is not installed")

# nothing of it is a default of the binding
SPACE = Lockspace("sd", "/mnt/ids", 2 << 20, 4096, 7, 1 << 20)
LEASE = Lease("sd", "SDM", "/mnt/leases", 3 << 20, 2 << 20, 4096)
OWNER = LeaseOwner(3, 5)
RECORD = {"lockspace": b"sd", "resource": b"SDM", "version": 9}


class Daemon:
    """``answers``: by the binding's name of the call, a value or a number to fail with; ``asked``: with what."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "read_resource": RECORD,
            "read_resource_owners": [_host(sanlock.HOST_LIVE)],
            "get_hosts": [_host(sanlock.HOST_LIVE)],
            "get_lockspaces": [],
            "inquire": [RECORD],
        }
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def serve(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **fields: Any) -> Any:
            self.asked.append((name, args, fields))
            answer = self.answers.get(name)
            if isinstance(answer, int) and not isinstance(answer, bool):
                raise sanlock.SanlockException(answer, f"{name} was refused")
            return answer

        return call


def _host(state: int, generation: int = OWNER.generation, flags: int = 0) -> dict[str, int]:
    return {"host_id": OWNER.host_id, "generation": generation, "timestamp": 1, "io_timeout": 7, "flags": state | flags}


CALLS = (
    *("add_lockspace", "inq_lockspace", "rem_lockspace", "get_lockspaces", "get_hosts", "write_lockspace"),
    *("write_resource", "read_resource", "read_resource_owners", "acquire", "release", "inquire"),
)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Daemon:
    from storage.leases import registration, sanlock_edge

    made = Daemon()
    for name in CALLS:
        for module in (registration, sanlock_edge):
            monkeypatch.setattr(module.sanlock, name, made.serve(name))
    monkeypatch.setattr(registration.sanlock, "register", lambda: os.open("/dev/null", os.O_RDONLY))
    monkeypatch.setenv("SANLOCK_RUN_DIR", str(tmp_path))
    (tmp_path / "sanlock.sock").touch()
    return made


@pytest.fixture
def leases(daemon: Daemon) -> Any:
    from storage.leases.sanlock_edge import SanlockLeases

    return SanlockLeases()


# What is asked


AREA = {"offset": SPACE.offset}
PLACE = {"align": LEASE.align, "sector": LEASE.sector}
NAMES, DISKS = (b"sd", b"SDM"), [(LEASE.path, LEASE.offset)]
JOINED = (b"sd", 3, SPACE.path)


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (
            lambda x: x.format_lockspace(SPACE),
            ("write_lockspace", (b"sd", SPACE.path), {**AREA, **PLACE, "iotimeout": 7}),
        ),
        (lambda x: x.format_lease(LEASE), ("write_resource", (*NAMES, DISKS), {**PLACE, "clear": False})),
        (lambda x: x.clear_lease(LEASE), ("write_resource", (*NAMES, DISKS), {**PLACE, "clear": True})),
        (lambda x: x.start_join(SPACE, 3), ("add_lockspace", JOINED, {**AREA, "iotimeout": 7, "wait": False})),
        (lambda x: x.joined(SPACE, 3), ("inq_lockspace", JOINED, {**AREA, "wait": False})),
        (lambda x: x.leave(SPACE, 3), ("rem_lockspace", JOINED, {**AREA, "wait": True, "unused": True})),
        (
            lambda x: x.read_lease(LEASE),
            ("read_resource", (LEASE.path,), {**PLACE, "offset": LEASE.offset}),
        ),
        (lambda x: x.owners(LEASE), ("read_resource_owners", (*NAMES, DISKS), PLACE)),
        (lambda x: x.is_gone(SPACE, OWNER), ("get_hosts", (b"sd", 3), {})),
    ],
)
async def test_address_alignment_sector_and_timeout_travel_with_every_call(
    daemon: Daemon, leases: Any, call: Callable[[Any], Awaitable[Any]], asked: tuple[Any, ...]
) -> None:
    await call(leases)
    assert daemon.asked == [asked]


async def test_a_lease_is_taken_asked_for_and_given_back_at_its_address(daemon: Daemon, leases: Any) -> None:
    assert await leases.held(LEASE) is False
    assert await leases.acquire(LEASE, timeout_s=5) == 9
    assert await leases.held(LEASE) is True
    await leases.release(LEASE)
    assert await leases.held(LEASE) is False
    taken, _, inquired, released = daemon.asked
    assert (taken[:2], released[:2]) == (("acquire", (*NAMES, DISKS)), ("release", (*NAMES, DISKS)))
    assert taken[2] == inquired[2] == released[2]  # one registration for all three


# What answers mean


async def test_who_holds_a_lease_stands_with_its_version(leases: Any) -> None:
    assert await leases.read_lease(LEASE) == LeaseRecord("sd", "SDM", 9)
    assert await leases.owners(LEASE) == [OWNER]
    assert await leases.holder(SPACE, LEASE) == Holder(9, 3)


async def test_a_lease_without_owner_is_held_by_nobody(daemon: Daemon, leases: Any) -> None:
    daemon.answers["read_resource_owners"] = []
    assert await leases.holder(SPACE, LEASE) == Holder(9, None)


@pytest.mark.parametrize(
    ("hosts", "gone"),
    [
        ([_host(sanlock.HOST_LIVE)], False),
        ([_host(sanlock.HOST_FAIL)], False),
        ([_host(sanlock.HOST_UNKNOWN)], False),
        ([_host(sanlock.HOST_DEAD)], True),
        ([_host(sanlock.HOST_FREE)], True),
        ([_host(sanlock.HOST_DEAD, flags=0x10)], True),
        ([_host(sanlock.HOST_LIVE, flags=0x10)], False),
        ([_host(sanlock.HOST_LIVE, OWNER.generation + 1)], True),  # it came anew, without the lease
        ([], False),
        (errno.EAGAIN, False),
        (errno.ENOENT, False),
    ],
)
async def test_who_died_or_left_holds_no_lease_and_what_is_not_known_counts_as_alive(
    daemon: Daemon, leases: Any, hosts: Any, gone: bool
) -> None:
    daemon.answers["get_hosts"] = hosts
    assert await leases.is_gone(SPACE, OWNER) is gone
    assert await leases.holder(SPACE, LEASE) == Holder(9, None if gone else 3)


async def test_another_failure_to_ask_for_a_host_is_an_error(daemon: Daemon, leases: Any) -> None:
    daemon.answers["get_hosts"] = errno.EIO
    with pytest.raises(LeaseError, match="get_hosts was refused"):
        await leases.is_gone(SPACE, OWNER)


async def test_a_lockspace_that_is_being_left_is_no_membership(daemon: Daemon, leases: Any) -> None:
    def found(name: bytes, flags: int) -> dict[str, Any]:
        return {"lockspace": name, "host_id": 4, "path": f"/{len(name)}", "offset": 512, "flags": flags}

    daemon.answers["get_lockspaces"] = [
        found(b"one", 0),
        found(b"going", sanlock.LSFLAG_REM),
        found(b"coming", sanlock.LSFLAG_ADD),
        found(b"\xff", 0),
    ]
    assert await leases.memberships() == [
        Membership("one", 4, "/3", 512),
        Membership("coming", 4, "/6", 512),
        Membership("\ufffd", 4, "/1", 512),
    ]


@pytest.mark.parametrize("met", [errno.EEXIST, errno.EINPROGRESS])
async def test_joining_what_is_joined_or_under_way_is_nothing_new(daemon: Daemon, leases: Any, met: int) -> None:
    daemon.answers["add_lockspace"] = met
    await leases.start_join(SPACE, 3)


@pytest.mark.parametrize(
    ("met", "said"), [(errno.EINVAL, "joined with another id"), (errno.EIO, r"add_lockspace was refused \(5\)")]
)
async def test_a_refusal_to_join_names_domain_id_and_reason(daemon: Daemon, leases: Any, met: int, said: str) -> None:
    daemon.answers["add_lockspace"] = met
    with pytest.raises(HostIdNotAcquired, match=f"Host id 3 in domain sd .*{said}"):
        await leases.start_join(SPACE, 3)


async def test_leaving_a_lockspace_that_is_not_joined_is_done(daemon: Daemon, leases: Any) -> None:
    daemon.answers["rem_lockspace"] = errno.ENOENT
    await leases.leave(SPACE, 3)


@pytest.mark.parametrize(("met", "error"), [(errno.EBUSY, HostIdInUse), (errno.EIO, LeaseError)])
async def test_a_lockspace_that_cannot_be_left_says_why(
    daemon: Daemon, leases: Any, met: int, error: type[StorageError]
) -> None:
    daemon.answers["rem_lockspace"] = met
    with pytest.raises(error, match="sd"):
        await leases.leave(SPACE, 3)


@pytest.mark.parametrize("met", [-243, -244, -245, -247, errno.EEXIST])
async def test_a_lease_of_another_host_names_that_host(daemon: Daemon, leases: Any, met: int) -> None:
    daemon.answers["acquire"] = met
    with pytest.raises(LeaseHeld, match="sd:SDM is held by the host with id 3"):
        await leases.acquire(LEASE, timeout_s=5)
    assert await leases.held(LEASE) is False


@pytest.mark.parametrize("owners", [[], errno.EIO])
async def test_a_lease_whose_owner_is_not_known_is_refused_without_a_name(
    daemon: Daemon, leases: Any, owners: Any
) -> None:
    daemon.answers |= {"acquire": -243, "read_resource_owners": owners}
    with pytest.raises(LeaseHeld) as refused:
        await leases.acquire(LEASE, timeout_s=5)
    assert "host with id" not in str(refused.value)


@pytest.mark.parametrize(
    ("call", "met", "error", "said"),
    [
        ("read_resource", -223, LeaseNotFormatted, "sd:SDM"),
        ("read_resource", -226, LeaseNotFormatted, "sd:SDM"),
        ("read_resource", -227, LeaseNotFormatted, "sd:SDM"),
        ("read_resource", errno.EMSGSIZE, LeaseNotFormatted, "sd:SDM"),
        ("read_resource", -229, LeaseError, "it is damaged: its record has a wrong checksum"),
        ("read_resource", -243, LeaseError, "read_resource was refused"),  # of an acquire alone it says who has it
        ("read_resource", errno.ENODEV, LeaseError, "its user must be in group 36"),
        ("read_resource", errno.ENOENT, LeaseError, "read_resource was refused"),
        ("read_resource", errno.ECONNREFUSED, SanlockUnavailable, "read: read_resource was refused"),
        ("read_resource", errno.EPIPE, SanlockUnavailable, "read: read_resource was refused"),
        ("read_resource", errno.ECONNRESET, SanlockUnavailable, "read: read_resource was refused"),
        ("acquire", errno.ENOSPC, LeaseError, "this host has not joined the lockspace"),
        ("acquire", errno.EIO, LeaseError, "acquire was refused"),
        ("read_resource", errno.ENOSPC, LeaseError, "read_resource was refused"),
    ],
)
async def test_a_refusal_says_what_is_wrong(
    daemon: Daemon, leases: Any, call: str, met: int, error: type[StorageError], said: str
) -> None:
    daemon.answers[call] = met
    asked = leases.acquire(LEASE, timeout_s=5) if call == "acquire" else leases.read_lease(LEASE)
    with pytest.raises(error, match=said) as refused:
        await asked
    assert type(refused.value) is error


async def test_a_daemon_whose_socket_is_gone_is_told_as_one_that_does_not_answer(
    daemon: Daemon, leases: Any, tmp_path: Path
) -> None:
    daemon.answers["read_resource"] = errno.ENOENT
    (tmp_path / "sanlock.sock").unlink()
    with pytest.raises(SanlockUnavailable):
        await leases.read_lease(LEASE)


async def test_closing_ends_every_registration(daemon: Daemon, leases: Any) -> None:
    before = len(os.listdir("/proc/self/fd"))
    other = Lease("sd", "other", "/mnt/leases", 5 << 20, 2 << 20, 4096)
    for lease in (LEASE, other):
        await leases.acquire(lease, timeout_s=5)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    await leases.close()
    assert len(os.listdir("/proc/self/fd")) == before
