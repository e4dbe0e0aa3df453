# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics from libvirt's own test driver, and from one that hangs."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import libvirt
import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import DomainMissing, HypervisorError, TooManyStuckCalls
from vdsm.virt.hypervisor import DomainState
from vdsm.virt.libvirt_edge.libvirt_hypervisor import LibvirtHypervisor
from vdsm.virt.libvirt_edge.statistics import HUNG, StatisticsCalls

from .fakes import new_id, until

URI = "test:///default"


@pytest.fixture
async def hypervisor() -> AsyncIterator[LibvirtHypervisor]:
    hypervisor = LibvirtHypervisor(URI)
    hypervisor._statistics = StatisticsCalls(all_s=0.1, one_s=0.1)
    await hypervisor.start(lambda _event: None)
    yield hypervisor
    await hypervisor.stop()


@pytest.fixture
async def running(hypervisor: LibvirtHypervisor) -> str:
    """The domain that the driver begins with."""
    (domain,) = [domain for domain in await hypervisor.domains() if domain.name == "test"]
    return domain.vm_id


class Hangs:
    """libvirt's call for statistics, which waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.go = threading.Event()
        self.calls: list[Any] = []
        self.ended = 0
        real = getattr(libvirt.virConnect, name)

        def call(connect: libvirt.virConnect, *given: Any) -> Any:
            self.calls.append(given)
            self.go.wait()
            self.ended += 1
            return real(connect, *given)

        monkeypatch.setattr(libvirt.virConnect, name, call)


async def test_statistics_of_all_and_of_one_are_the_same(hypervisor: LibvirtHypervisor, running: str) -> None:
    everyone = await hypervisor.statistics()
    assert everyone[running].state is DomainState.RUNNING
    assert everyone[running].counters.memory == (await hypervisor.statistics_of(running)).counters.memory


async def test_only_running_domains_are_asked_together_and_none_is_waited_for(
    hypervisor: LibvirtHypervisor, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk, single = Hangs(monkeypatch, "getAllDomainStats"), Hangs(monkeypatch, "domainListGetStats")
    bulk.go.set()
    single.go.set()
    await hypervisor.statistics()
    await hypervisor.statistics_of(running)
    groups = 1 | 2 | 4 | 8 | 16 | 32  # state, CPU, balloon, vCPUs, interfaces, block devices
    nowait, active = 1 << 29, 1
    assert bulk.calls == [(groups, nowait | active)]
    assert single.calls[0][1:] == (groups, nowait)


async def test_a_domain_that_is_not_there_is_missing(hypervisor: LibvirtHypervisor) -> None:
    with pytest.raises(DomainMissing):
        await hypervisor.statistics_of(new_id())


async def test_a_domain_that_ends_meanwhile_is_missing(
    hypervisor: LibvirtHypervisor, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt.virConnect, "domainListGetStats", lambda *_given: [])
    with pytest.raises(DomainMissing):
        await hypervisor.statistics_of(running)


async def test_a_call_for_all_that_hangs_is_not_made_again_until_it_ends(
    hypervisor: LibvirtHypervisor, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = Hangs(monkeypatch, "getAllDomainStats")
    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            await hypervisor.statistics()
    assert len(hangs.calls) == 1
    assert (await hypervisor.statistics_of(running)).state is DomainState.RUNNING  # others are asked meanwhile
    hangs.go.set()
    await until(lambda: hangs.ended and not hypervisor._statistics._asked)
    assert running in await hypervisor.statistics()


async def test_a_domain_that_hangs_is_not_asked_again_until_it_answers(
    hypervisor: LibvirtHypervisor, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = Hangs(monkeypatch, "domainListGetStats")
    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            await hypervisor.statistics_of(running)
    assert len(hangs.calls) == 1
    assert running in await hypervisor.statistics()
    hangs.go.set()
    await until(lambda: hangs.ended and not hypervisor._statistics._asked)
    assert (await hypervisor.statistics_of(running)).state is DomainState.RUNNING


async def test_looks_do_not_wait_behind_statistics_that_hang_and_few_calls_may(
    hypervisor: LibvirtHypervisor, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, asked = threading.Event(), 0

    def hang(_connect: libvirt.virConnect, _vm_id: str) -> None:
        nonlocal asked
        asked += 1
        go.wait()

    with monkeypatch.context() as patched:
        patched.setattr(libvirt.virConnect, "lookupByUUIDString", hang)
        for _ in range(HUNG):
            with pytest.raises(DeadlineExceeded):
                await hypervisor.statistics_of(new_id())
        with pytest.raises(TooManyStuckCalls):
            await hypervisor.statistics_of(new_id())
    assert asked == HUNG
    assert (await hypervisor.domain(running)).state is DomainState.RUNNING
    go.set()


async def test_statistics_before_the_start_are_refused() -> None:
    hypervisor = LibvirtHypervisor(URI)
    with pytest.raises(HypervisorError, match="not started"):
        await hypervisor.statistics()
    with pytest.raises(HypervisorError, match="not started"):
        await hypervisor.statistics_of(new_id())
