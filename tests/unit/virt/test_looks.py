# SPDX-License-Identifier: GPL-2.0-or-later
"""Events say that something happened; what is, a look at libvirt finds. Late events and late looks change nothing."""

from __future__ import annotations

import asyncio

import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import DomainMissing
from vdsm.virt.hypervisor import Change, Domain, DomainState, Reconnected
from vdsm.virt.look import Look
from vdsm.virt.power import PowerdownRequest
from vdsm.virt.vm import Vm

from .fakes import VM, World, disk, settle, until, xml_of


async def up(world: World) -> Vm:
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up" and "after_vm_start" in world.hooks.ran)
    await settle()
    return vm


class LateLook:
    """The first look that follows gets what libvirt said when it began, but only once it is let go."""

    def __init__(self, world: World) -> None:
        self._hypervisor = world.hypervisor
        self._real = world.hypervisor.domain
        self.began, self.go = asyncio.Event(), asyncio.Event()
        world.hypervisor.domain = self._domain  # type: ignore[method-assign]

    async def _domain(self, vm_id: str) -> Domain:
        if self.began.is_set():
            return await self._real(vm_id)
        seen = await self._real(vm_id)
        self.began.set()
        await self.go.wait()
        return seen


@pytest.mark.parametrize("change", [Change.STOPPED, Change.CRASHED, Change.MIGRATED, Change.SAVED])
async def test_a_stop_of_an_earlier_run_ends_no_running_vm(world: World, change: Change) -> None:
    vm = await up(world)
    world.hypervisor.tell(VM, change)
    await settle()
    assert vm.status.reported == "Up"
    assert not {"kill", "terminate", "undefine"} & set(world.hypervisor.calls)
    assert world.storage.prepared
    assert world.events.statuses() == ["Up"]


async def test_a_stale_stop_says_nothing_of_the_end_that_comes_later(world: World) -> None:
    vm = await up(world)
    world.hypervisor.tell(VM, Change.MIGRATED)
    await settle()
    world.hypervisor.found[VM].state = DomainState.OFF
    world.hypervisor.tell(VM, Change.STOPPED)
    await until(lambda: vm.status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(1, 2)]


async def test_a_shutdown_that_became_a_reset_is_not_the_reason_of_a_later_crash(world: World) -> None:
    vm = await up(world)
    world.hypervisor.tell(VM, Change.SHUTDOWN_GUEST)
    world.hypervisor.tell(VM, Change.RESUMED)
    await settle()
    world.hypervisor.found[VM].state = DomainState.OFF
    world.hypervisor.tell(VM, Change.STOPPED)
    await until(lambda: vm.status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(1, 2)]


async def test_a_guest_that_is_shutting_down_keeps_its_reason(world: World) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state = DomainState.SHUTTING_DOWN
    world.hypervisor.tell(VM, Change.SHUTDOWN_GUEST)
    await settle()
    world.hypervisor.found[VM].state = DomainState.OFF
    world.hypervisor.tell(VM, Change.STOPPED)
    await until(lambda: vm.status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(0, 7)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Change.STOPPED, (1, 2)),
        (Change.CRASHED, (1, 2)),
        (Change.MIGRATED, (0, 4)),
        (Change.SAVED, (0, 5)),
    ],
)
async def test_why_a_domain_stopped_is_told(world: World, change: Change, told: tuple[int, int]) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state = DomainState.OFF
    world.hypervisor.tell(VM, change)
    await until(lambda: vm.status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [told]
    assert world.storage.prepared == set()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("shutdown", (0, 7)),
        ("crashed", (1, 2)),
        ("migrated", (0, 4)),
        ("saved", (0, 5)),
        ("failed", (1, 3)),
        ("", (1, 2)),
    ],
)
async def test_why_a_domain_is_off_comes_from_libvirt_when_events_were_lost(
    world: World, word: str, told: tuple[int, int]
) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.OFF, word
    world.hypervisor.hear(Reconnected())
    await until(lambda: vm.status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [told]


async def test_a_crash_after_an_ignored_shutdown_is_a_crash(world: World) -> None:
    vm = await up(world)
    await vm.power.shut_down(PowerdownRequest(0, 0.01, reboot=False, force=False))
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.OFF, "crashed"
    world.hypervisor.tell(VM, Change.CRASHED)
    await until(lambda: vm.status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(1, 2)]


async def test_what_the_engine_asked_for_is_the_reason_whatever_the_guest_says(world: World) -> None:
    vm = await up(world)
    await vm.power.shut_down(PowerdownRequest(0, 5, reboot=False, force=False))
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(0, 6)]


async def test_a_late_look_raises_no_vm_that_is_down(world: World) -> None:
    vm = await up(world)
    late = LateLook(world)
    look = asyncio.create_task(vm.look.fresh())
    await late.began.wait()
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    late.go.set()
    await look
    assert vm.status.reported == "Down"
    assert world.events.statuses() == ["Up", "Powering down", "Down"]


async def test_a_late_look_says_not_up_while_the_vm_goes_down(world: World) -> None:
    vm = await up(world)
    late = LateLook(world)
    look = asyncio.create_task(vm.look.fresh())
    await late.began.wait()
    hold = asyncio.Event()

    async def script(xml: str) -> str:
        await hold.wait()
        return xml

    world.hooks.scripts["after_vm_destroy"] = script
    destroying = asyncio.create_task(world.vms.destroy(VM))
    await until(lambda: "after_vm_destroy" in world.hooks.ran)
    late.go.set()
    await look
    assert vm.status.reported == "Powering down"
    hold.set()
    await destroying
    assert world.events.statuses() == ["Up", "Powering down", "Down"]


async def test_a_stop_is_found_although_an_older_look_has_no_answer_yet(world: World) -> None:
    vm = await up(world)
    late = LateLook(world)
    world.hypervisor.tell(VM, Change.RESUMED)
    await late.began.wait()
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    late.go.set()
    await settle()
    assert world.events.statuses() == ["Up", "Powering down", "Down"]


async def test_looks_that_events_ask_for_are_answered_in_order(world: World) -> None:
    vm = await up(world)
    late = LateLook(world)
    world.hypervisor.found[VM].state = DomainState.PAUSED
    world.hypervisor.tell(VM, Change.SUSPENDED)
    await late.began.wait()
    world.hypervisor.found[VM].state = DomainState.RUNNING
    world.hypervisor.tell(VM, Change.RESUMED)
    late.go.set()
    await settle()
    assert vm.status.reported == "Up"


def domain(state: DomainState = DomainState.RUNNING) -> Domain:
    return Domain(VM, "x", state, "", "", state is not DomainState.OFF)


class Asked:
    """A look's reader and taker: answers one by one, an exception is raised, an event is waited for."""

    def __init__(self, *answers: Domain | Exception | asyncio.Event) -> None:
        self.answers = list(answers)
        self.taken: list[tuple[Domain | None, int]] = []

    async def read(self, _vm_id: str) -> Domain:
        answer = self.answers.pop(0)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return domain()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def take(self, seen: Domain | None, number: int) -> None:
        self.taken.append((seen, number))

    def look(self, retry_s: float = 0.001) -> Look:
        return Look(VM, self.read, self.take, retry_s=retry_s)


async def test_a_look_without_an_answer_is_made_again() -> None:
    asked = Asked(DeadlineExceeded("look", 1), DeadlineExceeded("look", 1), domain())
    asked.look().soon()
    await until(lambda: asked.taken)
    assert asked.taken == [(domain(), 1)]


async def test_who_waits_for_a_look_hears_that_its_first_try_got_no_answer() -> None:
    asked = Asked(DeadlineExceeded("look", 1), domain())
    look = asked.look()
    assert await look.fresh() is False
    assert await look.fresh() is True


async def test_a_missing_domain_is_an_answer() -> None:
    asked = Asked(DomainMissing(VM))
    assert await asked.look().fresh() is True
    assert asked.taken == [(None, 1)]


async def test_many_events_during_a_look_are_one_more_look() -> None:
    go = asyncio.Event()
    asked = Asked(go, domain(), domain())
    look = asked.look()
    look.soon()
    await settle()
    for _ in range(50):
        look.soon()
    go.set()
    await settle()
    assert [number for _, number in asked.taken] == [1, 51]


async def test_a_new_wish_does_not_wait_for_the_pause_after_a_failure() -> None:
    asked = Asked(DeadlineExceeded("look", 1), domain())
    look = asked.look(retry_s=1000)
    await look.fresh()
    async with asyncio.timeout(1):
        assert await look.fresh()


async def test_what_a_dropped_look_finds_is_never_taken() -> None:
    go = asyncio.Event()
    asked = Asked(go, domain(DomainState.PAUSED))
    look = asked.look()
    waiting = asyncio.create_task(look.fresh())
    await settle()
    look.at_once()
    await settle()
    go.set()
    await settle()
    assert asked.taken == [(domain(DomainState.PAUSED), 2)]
    assert await waiting


async def test_a_closed_look_keeps_nobody_waiting() -> None:
    look = Asked(asyncio.Event()).look()
    waiting = asyncio.create_task(look.fresh())
    await settle()
    look.close()
    assert await waiting is False
    assert await look.fresh() is False


async def test_a_memory_that_somebody_saved_is_not_deleted_with_the_domain(world: World) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.OFF, "saved"
    world.hypervisor.tell(VM, Change.SAVED)
    await until(lambda: vm.status.down)
    assert "undefine" not in world.hypervisor.calls
    assert world.storage.prepared == set()


async def test_a_vm_that_died_while_libvirt_was_away_is_found_by_a_later_look(world: World) -> None:
    vm = await up(world)
    vm.look._retry_s = 0.01
    real, calls = world.hypervisor.domain, 0

    async def domain(vm_id: str) -> Domain:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise DeadlineExceeded("libvirt: look at the domain", 20)
        return await real(vm_id)

    world.hypervisor.domain = domain  # type: ignore[method-assign]
    world.hypervisor.found[VM].state = DomainState.OFF
    world.hypervisor.hear(Reconnected())
    await until(lambda: vm.status.down)


async def test_an_end_of_which_no_event_told_is_found_by_the_next_sample(world: World) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.OFF, "shutdown"
    await until(lambda: vm.status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(0, 7)]


async def test_a_saved_memory_goes_when_the_engine_has_let_the_vm_go(world: World) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.OFF, "saved"
    world.hypervisor.tell(VM, Change.SAVED)
    await until(lambda: vm.status.down)
    assert VM in world.hypervisor.found
    await world.vms.destroy(VM)
    assert world.hypervisor.found == {}
    await world.restart()
    assert (world.vms.all(), world.events.told) == ([], [])
