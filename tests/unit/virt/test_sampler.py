# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples are taken whatever libvirt does: one VM that hangs costs its own figures only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt import report
from vdsm.virt.errors import DomainMissing, HypervisorError, HypervisorLost, TooManyStuckCalls
from vdsm.virt.hypervisor import DomainState, Sampled, Stats
from vdsm.virt.lifecycle import Cause, Lifecycle
from vdsm.virt.states import ExitReason, PauseCode, VmState, exit_for
from vdsm.virt.stats.answers import Answers
from vdsm.virt.stats.counters import Counters
from vdsm.virt.stats.sampler import AT_ONCE, Sampler
from vdsm.virt.stats.samples import Samples

from .fakes import VM, World, new_id, until, xml_of
from .shown import ShownVm

WAYS = {
    VmState.UP: [Cause.RUNS],
    VmState.PAUSED: [Cause.STANDS],
    VmState.POWERING_DOWN: [Cause.ENDS],
    VmState.WAIT_FOR_LAUNCH: [],
}
RUNS = Sampled(DomainState.RUNNING, "", Counters(whole=True, vcpus=3))


async def unanswered(_vm_id: str = "") -> Sampled:
    raise DeadlineExceeded("libvirt: read statistics", 1)


async def good(_vm_id: str) -> Sampled:
    return RUNS


@dataclass
class Source:
    """libvirt; ``all`` and ``one`` do what it does."""

    all: Callable[[], Awaitable[Stats]]
    one: Callable[[str], Awaitable[Sampled]] = good
    rounds: int = 0
    asked: list[str] = field(default_factory=list)

    async def statistics(self) -> Stats:
        self.rounds += 1
        return await self.all()

    async def statistics_of(self, vm_id: str) -> Sampled:
        self.asked.append(vm_id)
        return await self.one(vm_id)


class Host:
    def __init__(self, source: Source, vms: int = 3, *, longest_s: float = 5.0) -> None:
        self.source = source
        self.vms = {vm.vm_id: vm for vm in (ShownVm(new_id()) for _ in range(vms))}
        self.now = 100.0
        self.samples = Samples(lambda: self.now)
        self.answers = Answers(self.samples)
        self.seen: list[tuple[str, DomainState, str]] = []
        self.sampler = Sampler(
            source,
            self.samples,
            self.answers,
            lambda: self.vms,
            seen=lambda *seen: self.seen.append(seen),
            period_s=0.01,
            longest_s=longest_s,
        )

    def sampled(self) -> set[str]:
        return {vm_id for vm_id in self.vms if self.samples.window(vm_id) is not None}

    async def rounds(self, count: int) -> None:
        """Until so many more are over."""
        wanted = self.source.rounds + count + 1
        await until(lambda: self.source.rounds >= wanted)


Make = Callable[..., Host]


@pytest.fixture
async def new() -> AsyncIterator[Make]:
    hosts: list[Host] = []

    def make(source: Source, vms: int = 3, *, longest_s: float = 5.0) -> Host:
        host = Host(source, vms, longest_s=longest_s)
        hosts.append(host)
        host.sampler.start()
        return host

    yield make
    for host in hosts:
        await host.sampler.stop()


def answered(host_vms: Callable[[], list[str]]) -> Callable[[], Awaitable[Stats]]:
    async def statistics() -> Stats:
        return dict.fromkeys(host_vms(), RUNS)

    return statistics


# One call for all


async def test_one_call_samples_all_vms_and_no_foreign_domain(new: Make) -> None:
    foreign = new_id()
    host = new(Source(answered(lambda: [*host.vms, foreign])))
    await host.rounds(1)
    assert host.sampled() == set(host.vms)
    assert host.samples.window(foreign) is None
    assert host.source.asked == []


async def test_without_vms_nothing_is_asked(new: Make) -> None:
    host = new(Source(answered(list)), vms=0)
    await asyncio.sleep(0.05)
    assert host.source.rounds == 0


async def test_a_vm_that_went_down_while_libvirt_was_asked_gets_no_sample(new: Make) -> None:
    async def statistics() -> Stats:
        for vm in list(host.vms.values())[:1]:
            vm.goes_down(exit_for(ExitReason.ADMIN_SHUTDOWN))
        return dict.fromkeys(host.vms, RUNS)

    host = new(Source(statistics))
    await host.rounds(1)
    assert host.sampled() == set(list(host.vms)[1:])


async def test_samples_of_a_vm_that_is_no_more_are_dropped(new: Make) -> None:
    host = new(Source(answered(lambda: list(host.vms))))
    await host.rounds(1)
    gone = next(iter(host.vms))
    del host.vms[gone]
    await host.rounds(1)
    assert host.samples.window(gone) is None


async def test_figures_are_encoded_before_anybody_asks(new: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    host = new(Source(answered(lambda: list(host.vms))))
    await host.rounds(1)
    await host.sampler.stop()

    def made_again(*_given: object) -> None:
        pytest.fail("the figures are made at the answer")

    monkeypatch.setattr(report, "lasting", made_again)
    told = await host.answers.all(list(host.vms.values()))
    assert [b'"vcpuCount":"3"' in one.full for one in told] == [True] * 3


# The call for all hangs or fails


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("libvirt", 15), HypervisorError("read", 1, "odd"), ValueError("odd")]
)
async def test_vms_are_asked_one_by_one_when_they_can_not_be_at_once(new: Make, error: Exception) -> None:
    async def statistics() -> Stats:
        raise error

    host = new(Source(statistics))
    await host.rounds(1)
    assert host.sampled() == set(host.vms)


async def test_one_vm_that_hangs_costs_its_own_figures_only(new: Make) -> None:
    async def one(vm_id: str) -> Sampled:
        return await unanswered() if vm_id == stuck else RUNS

    host = new(Source(unanswered, one), vms=5)  # type: ignore[arg-type]
    stuck = next(iter(host.vms))
    for vm_id in host.vms:
        host.samples.watch(vm_id)
    await host.rounds(1)
    host.now += 61
    await host.rounds(1)
    assert host.sampled() == set(host.vms) - {stuck}
    told = {vm_id: report.stats(vm, host.samples)["monitorResponse"] for vm_id, vm in host.vms.items()}
    assert told == dict.fromkeys(host.vms, "0") | {stuck: "-1"}


async def test_few_vms_are_asked_at_once(new: Make) -> None:
    running, most = 0, 0

    async def one(_vm_id: str) -> Sampled:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return RUNS

    host = new(Source(unanswered, one), vms=7)  # type: ignore[arg-type]
    await host.rounds(1)
    assert most == AT_ONCE
    assert host.sampled() == set(host.vms)


async def test_who_was_not_reached_in_time_comes_first_the_next_time(new: Make) -> None:
    async def one(_vm_id: str) -> Sampled:
        host.now += 1
        await asyncio.sleep(0.05)
        return RUNS

    host = new(Source(unanswered, one), vms=6, longest_s=0.04)  # type: ignore[arg-type]
    await host.rounds(1)
    assert len(host.sampled()) == AT_ONCE  # begun within the time
    await host.rounds(2)
    assert host.sampled() == set(host.vms)


@pytest.mark.parametrize("error", [HypervisorLost("read"), TooManyStuckCalls("libvirt/statistics", 3, "")])
async def test_a_libvirt_that_is_away_is_not_asked_for_each_vm(new: Make, error: Exception) -> None:
    async def away(_vm_id: str = "") -> Sampled:
        raise error

    host = new(Source(away, away), vms=9)  # type: ignore[arg-type]
    await host.rounds(0)
    assert 0 < len(host.source.asked) <= AT_ONCE


async def test_a_vm_that_ended_meanwhile_is_no_trouble(new: Make, caplog: pytest.LogCaptureFixture) -> None:
    async def one(vm_id: str) -> Sampled:
        raise DomainMissing(vm_id)

    host = new(Source(unanswered, one))  # type: ignore[arg-type]
    await host.rounds(1)
    assert [record.message for record in caplog.records if "VM" in record.message.split(":")[0].split()] == []


# Troubles are told


async def test_a_trouble_is_told_once_and_its_end_is(new: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    broken = True

    async def statistics() -> Stats:
        if broken:
            raise DeadlineExceeded("libvirt: read statistics", 15)
        return dict.fromkeys(host.vms, RUNS)

    async def one(_vm_id: str) -> Sampled:
        raise HypervisorError("read", 1, "odd")

    host = new(Source(statistics, one), vms=2)
    await host.rounds(3)
    first, *others = [record.message for record in caplog.records]
    assert first == (
        "no statistics of all VMs at once, they are asked one by one: libvirt: read statistics did not end within 15 s"
    )
    assert sorted(others) == sorted(f"VM {vm_id}: no statistics: libvirt failed to read: odd" for vm_id in host.vms)
    broken = False
    caplog.clear()
    await host.rounds(2)
    assert [record.message for record in caplog.records] == ["statistics of all VMs are told at once again"]
    broken = True
    await host.rounds(1)
    assert "no statistics of all VMs at once" in caplog.records[1].message


async def test_a_defect_does_not_end_the_samples(new: Make, caplog: pytest.LogCaptureFixture) -> None:
    def odd(_vm_id: str, _state: DomainState, _reason: str) -> None:
        raise KeyError("odd")

    host = new(Source(answered(lambda: list(host.vms))))
    host.sampler._seen = odd
    for vm in host.vms.values():
        vm.status.apply(Cause.STANDS, code=PauseCode.NO_ERROR)
    await host.rounds(3)
    (told,) = caplog.records
    assert told.exc_info  # a defect has its traceback


# States


@pytest.mark.parametrize(
    ("stored", "state", "told"),
    [
        (VmState.UP, DomainState.RUNNING, False),
        (VmState.UP, DomainState.PAUSED, True),
        (VmState.UP, DomainState.OFF, True),
        (VmState.UP, None, False),
        (VmState.PAUSED, DomainState.PAUSED, False),
        (VmState.PAUSED, DomainState.RUNNING, True),
        (VmState.PAUSED, DomainState.CRASHED, True),
        (VmState.POWERING_DOWN, DomainState.PAUSED, False),
        (VmState.WAIT_FOR_LAUNCH, DomainState.PAUSED, False),
    ],
)
async def test_a_vm_that_libvirt_has_in_another_state_is_told(
    new: Make, stored: VmState, state: DomainState | None, *, told: bool
) -> None:
    async def statistics() -> Stats:
        return dict.fromkeys(host.vms, Sampled(state, "ioerror", Counters()))

    host = new(Source(statistics), vms=1)
    ((vm_id, vm),) = host.vms.items()
    vm.status = Lifecycle()
    for cause in WAYS[stored]:
        vm.status.apply(cause)
    await host.rounds(1)
    assert set(host.seen) == ({(vm_id, state, "ioerror")} if told else set())


async def test_a_state_that_no_event_told_is_found_by_the_samples(world: World) -> None:
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.reported == "Up")
    world.hypervisor.found[VM].state = DomainState.PAUSED
    world.hypervisor.statistics_now = {VM: {"state.state": 3, "state.reason": 5}}
    await until(lambda: vm.status.reported == "Paused")


async def test_a_wish_for_a_sample_does_not_wait_for_the_period(new: Make) -> None:
    host = new(Source(answered(lambda: list(host.vms))))
    await host.rounds(1)
    await host.sampler.stop()
    host.sampler._period_s = 3600
    host.sampler.start()
    await until(lambda: host.source.rounds)
    before = host.source.rounds
    host.sampler.soon()
    await until(lambda: host.source.rounds > before)


async def test_a_sample_that_began_before_a_vm_was_destroyed_keeps_nothing_of_it(world: World) -> None:
    other = new_id()
    for vm_id in (VM, other):
        await world.vms.create(vm_id, xml_of(vm_id))
    await until(lambda: all(stats["status"] == "Up" for stats in world.vms.all_stats()))
    began, go, kept = asyncio.Event(), asyncio.Event(), world.vms._samples

    async def statistics() -> Stats:
        began.set()
        await go.wait()
        return {VM: RUNS, other: RUNS}

    world.hypervisor.statistics = statistics  # type: ignore[method-assign]
    await began.wait()
    await world.vms.destroy(VM)
    go.set()
    await until(lambda: kept.window(other) is not None)
    assert kept.window(VM) is None
