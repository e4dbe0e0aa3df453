# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitors beside storage that hangs: a fake stands for the domain's I/O only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from storage.domain import Space
from storage.errors import (
    AccessLost,
    HostIdInUse,
    HostIdNotAcquired,
    IoFailed,
    NotWritable,
    SanlockUnavailable,
    StorageNotResponding,
    StorageReplaced,
)
from storage.leases import HostIdOwner
from storage.monitor import DomainHealth, Monitors
from storage.ondisk.values import DomainClass
from vdsm.api.codes import all_codes

INTERVAL_S = 0.05


class FakeDomain:
    version = 5
    lockspace = SimpleNamespace(name="space")

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.probes = 0
        self.error: Exception | None = None
        self.owner: HostIdOwner | None = None
        self.domain_class = DomainClass.DATA
        self.measured = Space(100, 50)

    async def host_id_owner(self, host_id: int) -> HostIdOwner | None:
        return self.owner

    async def probe(self) -> float:
        self.probes += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return 0.001

    async def space(self) -> Space:
        return self.measured


class SlowLeases:
    """Joining takes until it is told that it is done."""

    def __init__(self) -> None:
        self.state: bool | None = False
        self.joins = 0
        self.left = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def joined(self, space: Any, host_id: int) -> bool | None:
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return self.state

    async def start_join(self, space: Any, host_id: int) -> None:
        self.joins += 1
        self.state = None

    async def leave(self, space: Any, host_id: int) -> None:
        self.left += 1
        if self.error is not None:
            raise self.error
        self.state = False


async def seen(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


class Host:
    def __init__(self) -> None:
        self.domains = {"good": FakeDomain(), "bad": FakeDomain()}
        self.leases = SlowLeases()
        self.changes: list[tuple[str, bool]] = []
        self.left_unopened: list[str] = []
        self.monitors = Monitors(self.open, self.changed, self.leave, INTERVAL_S)

    async def open(self, domain_id: str) -> Any:
        return self.domains[domain_id], self.leases

    def changed(self, domain_id: str, valid: bool) -> None:
        self.changes.append((domain_id, valid))

    async def leave(self, domain_id: str) -> None:
        self.left_unopened.append(domain_id)

    def health(self, domain_id: str) -> DomainHealth:
        return self.monitors.health()[domain_id]

    async def until(self, domain_id: str, *, valid: bool) -> None:
        await seen(lambda: self.health(domain_id).valid is valid and self.health(domain_id).checked)


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    made = Host()
    made.domains["bad"].answers.clear()
    made.monitors.start("bad", 1)
    made.monitors.start("good", 1)
    yield made
    made.monitors.abandon_all()


async def test_a_hanging_domain_delays_no_other_and_is_told(host: Host) -> None:
    await host.until("good", valid=True)
    await host.until("bad", valid=False)
    assert isinstance(host.monitors.health()["bad"].error, StorageNotResponding)
    assert host.monitors.health()["good"].age_s < 1
    assert ("bad", False) in host.changes


async def test_a_hanging_check_is_waited_for_and_never_doubled(host: Host) -> None:
    await asyncio.sleep(INTERVAL_S * 6)
    assert host.domains["bad"].probes == 1
    assert host.domains["good"].probes > 2
    host.domains["bad"].answers.set()
    await host.until("bad", valid=True)
    assert ("bad", True) in host.changes


async def test_a_silence_is_told_before_the_next_check_is_due() -> None:
    """A look every 10 s and a silence of 4 s: whatever happens is told within 15 s."""
    made = Host()
    made.monitors = Monitors(made.open, made.changed, made.leave, 1.0)
    made.monitors.start("good", 1)
    await made.until("good", valid=True)
    made.domains["good"].answers.clear()
    await seen(lambda: made.domains["good"].probes == 2)
    began = asyncio.get_running_loop().time()
    await made.until("good", valid=False)
    assert 0.3 < asyncio.get_running_loop().time() - began < 0.6
    made.monitors.abandon_all()


async def test_the_first_check_opens_the_domain_and_has_longer() -> None:
    made = Host()
    made.monitors = Monitors(made.open, made.changed, made.leave, 0.5)
    made.domains["bad"].answers.clear()
    made.monitors.start("bad", 1)
    began = asyncio.get_running_loop().time()
    await made.until("bad", valid=False)
    assert asyncio.get_running_loop().time() - began > 0.45
    made.monitors.abandon_all()


async def test_before_the_first_check_nothing_is_claimed() -> None:
    made = Host()
    made.domains["bad"].answers.clear()
    health = made.monitors.start("bad", 1).health
    assert (health.checked, health.valid, health.version) == (False, False, -1)
    made.monitors.abandon_all()


@pytest.mark.parametrize(
    ("errno_name", "kind", "code"),
    [
        ("EACCES", AccessLost, 469),
        ("EPERM", AccessLost, 469),
        ("ESTALE", StorageReplaced, 384),
        ("EIO", IoFailed, 200),
    ],
)
async def test_trouble_is_told_by_its_cause(host: Host, errno_name: str, kind: type[Exception], code: int) -> None:
    await host.until("good", valid=True)
    host.domains["good"].error = IoFailed("read_timed", "/m/dom_md/metadata", errno_name, "the kernel's words")
    await host.until("good", valid=False)
    error = host.health("good").error
    assert type(error) is kind
    assert "the kernel's words" in host.health("good").reason
    assert all_codes().get(kind, 200) == code
    host.domains["good"].error = None
    await host.until("good", valid=True)
    assert host.health("good").reason == ""


async def test_a_data_domain_that_is_not_written_is_bad_and_watched_on(host: Host) -> None:
    await host.until("good", valid=True)
    host.domains["good"].measured = Space(100, 50, "Read-only file system")
    await host.until("good", valid=False)
    assert isinstance(host.health("good").error, NotWritable)
    assert "Read-only file system" in host.health("good").reason
    assert host.health("good").space == Space(100, 50, "Read-only file system")
    host.domains["good"].measured = Space(100, 40)
    await host.until("good", valid=True)
    assert host.changes.count(("good", False)) == 1


@pytest.mark.parametrize("domain_class", [DomainClass.ISO, DomainClass.BACKUP])
async def test_a_domain_that_is_made_to_be_read_needs_no_writing(host: Host, domain_class: DomainClass) -> None:
    read_only = Space(100, 50, "Read-only file system")
    host.domains["good"].domain_class, host.domains["good"].measured = domain_class, read_only
    await seen(lambda: host.health("good").space == read_only)
    assert host.health("good").valid


async def test_a_full_domain_is_valid_and_says_so(host: Host) -> None:
    host.domains["good"].measured = Space(100, 0)
    await seen(lambda: host.health("good").reason == "The storage of domain good is full")
    assert host.health("good").valid


async def test_joining_does_not_delay_the_check(host: Host) -> None:
    await host.until("good", valid=True)
    await seen(lambda: host.leases.joins == 1)
    assert not host.health("good").acquired
    host.leases.state = True
    async with asyncio.timeout(5):
        while not host.monitors.health()["good"].acquired:
            await asyncio.sleep(0.005)
    assert host.leases.joins == 1


async def test_a_stopped_monitor_leaves_what_was_joined_meanwhile(host: Host) -> None:
    await host.until("good", valid=True)
    host.leases.state = True
    await host.monitors.stop("good")
    assert host.leases.left == 1


async def test_a_stopped_monitor_of_a_domain_that_never_opened_leaves_what_an_earlier_agent_joined(host: Host) -> None:
    async def away(domain_id: str) -> Any:
        raise IoFailed("read", "/x", "EIO", "broken")

    host.monitors = Monitors(away, host.changed, host.leave, INTERVAL_S)
    host.monitors.start("away", 1)
    await host.until("away", valid=False)
    await host.monitors.stop("away")
    assert host.left_unopened == ["away"]


async def test_trouble_of_the_lock_daemon_is_not_trouble_of_the_storage(host: Host) -> None:
    host.leases.error = SanlockUnavailable("refused")
    await seen(lambda: host.health("good").host_id_error is not None)
    health = host.health("good")
    assert (health.valid, health.acquired) == (True, False)
    assert "sanlock" in health.reason
    host.leases.error, host.leases.state = None, True
    await seen(lambda: host.health("good").acquired)
    assert host.health("good").reason == ""
    assert [change for change in host.changes if change[0] == "good"] == [("good", True)]


async def test_a_host_id_of_which_the_lock_daemon_says_nothing_does_not_count_as_held(host: Host) -> None:
    host.leases.state = True
    await seen(lambda: host.health("good").acquired)
    host.leases.error = SanlockUnavailable("refused")
    await seen(lambda: not host.health("good").acquired)
    host.domains["good"].error = IoFailed("read", "/x", "EIO", "broken")
    await host.until("good", valid=False)
    host.leases.error = None
    await seen(lambda: host.health("good").acquired)
    assert host.health("good").host_id_error is None


async def test_a_lock_daemon_that_hangs_delays_no_check(host: Host) -> None:
    host.leases.answers.clear()
    await seen(lambda: host.domains["good"].probes > 4)
    assert host.health("good").valid and not host.health("good").acquired


async def test_a_host_id_of_another_host_is_told_once_with_its_name_and_tried_again(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    await seen(lambda: host.leases.joins == 1)
    host.domains["good"].owner, host.leases.state = HostIdOwner("other-host", 1, 77), False
    await seen(lambda: host.health("good").host_id_error is not None)
    await seen(lambda: host.leases.joins == 2)
    host.leases.state = False
    await seen(lambda: host.leases.joins == 3)
    health = host.health("good")
    assert isinstance(health.host_id_error, HostIdNotAcquired)
    assert health.valid and "other-host" in health.reason
    assert caplog.text.count("other-host") == 1
    host.leases.state = True
    await seen(lambda: host.health("good").acquired)
    assert host.health("good").reason == ""


async def test_a_lost_host_id_is_told_and_joined_again(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.leases.state = True
    await seen(lambda: host.health("good").acquired)
    host.leases.state = False
    await seen(lambda: host.leases.joins == 1)
    await seen(lambda: not host.health("good").acquired)
    assert "host id 1 is held no more" in caplog.text


async def test_nothing_is_joined_on_storage_that_is_bad(host: Host) -> None:
    host.leases.state = True
    await seen(lambda: host.health("good").acquired)
    host.domains["good"].error = IoFailed("read", "/x", "EIO", "broken")
    await host.until("good", valid=False)
    host.leases.state = False
    await seen(lambda: not host.health("good").acquired)
    await asyncio.sleep(INTERVAL_S * 3)
    assert host.leases.joins == 0


async def test_a_monitor_stopped_after_a_failed_check_leaves_the_lockspace(host: Host) -> None:
    host.leases.state = True
    await seen(lambda: host.health("good").acquired)
    host.domains["good"].error = IoFailed("read", "/x", "EIO", "broken")
    await host.until("good", valid=False)
    await host.monitors.stop("good")
    assert (host.leases.left, host.leases.state) == (1, False)


async def test_a_lockspace_in_use_stays_joined_and_is_told(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    async def in_use(space: Any, host_id: int) -> None:
        raise HostIdInUse("space", host_id)

    host.leases.state = True
    await host.until("good", valid=True)
    host.leases.leave = in_use  # type: ignore[method-assign]
    await host.monitors.stop("good")
    assert "stays joined" in caplog.text and "leases in use" in caplog.text


async def test_an_abandoned_monitor_leaves_nothing(host: Host) -> None:
    host.leases.state = True
    await seen(lambda: host.health("good").acquired)
    host.monitors.abandon_all()
    await asyncio.sleep(INTERVAL_S * 2)
    assert host.leases.left == 0


async def test_surprises_end_neither_task_and_are_told_once(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.leases.state = True
    host.domains["good"].error = KeyError("odd")
    await host.until("good", valid=False)
    probes = host.domains["good"].probes
    await seen(lambda: host.domains["good"].probes > probes + 3)
    assert caplog.text.count("Traceback") == 1
    host.domains["good"].error = None
    await host.until("good", valid=True)
    host.leases.error = KeyError("odder")
    await seen(lambda: "odder" in host.health("good").reason)
    host.leases.error = None
    await seen(lambda: host.health("good").acquired)
    assert caplog.text.count("Traceback") == 2


async def test_a_listener_that_fails_ends_no_watching(caplog: pytest.LogCaptureFixture) -> None:
    made = Host()

    def fails(domain_id: str, valid: bool) -> None:
        raise RuntimeError("listener")

    made.monitors = Monitors(made.open, fails, made.leave, INTERVAL_S)
    made.monitors.start("good", 1)
    await seen(lambda: made.domains["good"].probes > 3)
    assert made.health("good").valid and "listener" in caplog.text
    made.monitors.abandon_all()
