# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitors beside storage that hangs: a fake stands for the domain's I/O only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from storage.domain import Space
from storage.errors import StorageNotResponding
from storage.monitor import Monitors

INTERVAL_S = 0.05


class FakeDomain:
    version = 5
    lockspace = SimpleNamespace(name="space")

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.probes = 0

    async def probe(self) -> float:
        self.probes += 1
        await self.answers.wait()
        return 0.001

    async def space(self) -> Space:
        return Space(100, 50)


class SlowLeases:
    """Joining takes until it is told that it is done."""

    def __init__(self) -> None:
        self.state: bool | None = False
        self.joins = 0
        self.left = 0

    async def joined(self, space: Any, host_id: int) -> bool | None:
        return self.state

    async def start_join(self, space: Any, host_id: int) -> None:
        self.joins += 1
        self.state = None

    async def leave(self, space: Any, host_id: int) -> None:
        self.left += 1
        self.state = False


class Host:
    def __init__(self) -> None:
        self.domains = {"good": FakeDomain(), "bad": FakeDomain()}
        self.leases = SlowLeases()
        self.changes: list[tuple[str, bool]] = []
        self.monitors = Monitors(self.open, lambda d, valid: self.changes.append((d, valid)), INTERVAL_S)

    async def open(self, domain_id: str) -> Any:
        return self.domains[domain_id], self.leases

    async def until(self, domain_id: str, *, valid: bool) -> None:
        async with asyncio.timeout(5):
            while self.monitors.health()[domain_id].valid is not valid or not self.monitors.health()[domain_id].checked:
                await asyncio.sleep(0.005)


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


async def test_before_the_first_check_nothing_is_claimed() -> None:
    made = Host()
    made.domains["bad"].answers.clear()
    health = made.monitors.start("bad", 1).health
    assert (health.checked, health.valid, health.version) == (False, False, -1)
    made.monitors.abandon_all()


async def test_joining_does_not_delay_the_check(host: Host) -> None:
    await host.until("good", valid=True)
    assert (host.leases.joins, host.monitors.health()["good"].acquired) == (1, False)
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
