# SPDX-License-Identifier: GPL-2.0-or-later
"""A recovery that does not succeed at once: tried again, without harm to what it has found already."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt import recover
from vdsm.virt.errors import HypervisorLost, Recovering
from vdsm.virt.hypervisor import Change, ClockShift, Domain, DomainState

from .fakes import IMAGE, VM, FakeDomain, World, disk, new_id, settle, until, xml_of
from .test_full_disk import full_disk


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover, "RETRY_S", 0.01)
    monkeypatch.setattr("vdsm.virt.records.RETRY_S", 0.01)


async def up(world: World, *vm_ids: str) -> None:
    for vm_id in vm_ids or (VM,):
        await world.vms.create(vm_id, xml_of(vm_id, disks=[disk()]))
    await until(lambda: all(stats["status"] == "Up" for stats in world.vms.all_stats()))
    await settle()


def fails_once(world: World, monkeypatch: pytest.MonkeyPatch, vm_id: str, before: Any = None) -> None:
    """The first try to take ``vm_id`` over fails, after ``before``."""
    real, failures = world.storage.resume_prepared, [ValueError("odd")]

    async def odd(images: Any, *, consumer: str) -> Any:
        if failures and consumer == f"vm:{vm_id}":
            if before is not None:
                await before()
            raise failures.pop()
        return await real(images, consumer=consumer)

    monkeypatch.setattr(world.storage, "resume_prepared", odd)


@pytest.mark.parametrize("error", [HypervisorLost("list domains"), DeadlineExceeded("list", 20), ValueError("odd")])
async def test_libvirt_that_does_not_answer_is_asked_again_and_no_verb_is_answered_before(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    await up(world)
    real, go = world.hypervisor.domains, asyncio.Event()

    async def domains() -> list[Domain]:
        if not go.is_set():
            raise error
        return await real()

    monkeypatch.setattr(world.hypervisor, "domains", domains)
    monkeypatch.setattr("vdsm.virt.vms._RECOVERY_WAIT_S", 0.03)
    await world.restart()
    assert not world.vms.recovered
    with pytest.raises(Recovering):
        world.vms.all_stats()
    assert str(error) in caplog.text and "can't be recovered yet" in caplog.text
    go.set()
    await until(lambda: world.vms.recovered)
    assert world.vms.stats(VM)["status"] == "Up"


async def test_a_vm_that_was_found_keeps_what_was_learnt_of_it_while_another_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(new_id() for _ in range(2))
    await up(world, first, second)

    async def guest_sets_its_clock() -> None:
        world.hypervisor.hear(ClockShift(first, 77))
        await until(lambda: first in world.vms._vms)
        world.hypervisor.hear(ClockShift(first, 77))
        await settle()

    fails_once(world, monkeypatch, second, guest_sets_its_clock)
    with full_disk():
        await world.restart()
        await until(lambda: world.vms.recovered)
        assert world.vms.stats(first)["timeOffset"] == "77"

    def on_disk() -> Any:
        return json.loads(Path(world.paths.state, "vms", f"{first}.json").read_text())["time_offset_s"]

    await until(lambda: on_disk() == 77)


async def test_a_vm_without_a_record_can_be_ended_although_another_was_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(new_id() for _ in range(2))
    await up(world, first, second)
    Path(world.paths.state, "vms", f"{first}.json").unlink()
    fails_once(world, monkeypatch, second)
    await world.restart()
    await until(lambda: world.vms.recovered)
    await world.vms.destroy(first)
    assert first not in world.hypervisor.found
    assert [vm.vm_id for vm in world.vms.all()] == [second]


async def test_a_vm_is_told_once_although_another_was_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(new_id() for _ in range(2))
    await up(world, first, second)
    fails_once(world, monkeypatch, second)
    await world.restart()
    await until(lambda: world.vms.recovered)
    await settle()
    assert (world.events.statuses(first), world.events.statuses(second)) == (["Up"], ["Up"])


async def test_a_start_that_was_interrupted_gets_its_hook_although_it_was_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched, real = asyncio.Event(), world.hypervisor.launch

    async def launch(vm_id: str, flags: int) -> Domain:
        await real(vm_id, flags)
        launched.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(world.hypervisor, "launch", launch)
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await launched.wait()
    fails_once(world, monkeypatch, VM)
    await world.restart()
    await until(lambda: world.vms.recovered)
    await until(lambda: world.hooks.ran.count("after_vm_start") == 1)
    assert world.vms.get(VM).record.phase == "running"


async def test_an_end_that_is_finished_after_a_restart_leaves_no_problem_of_the_vm(world: World) -> None:
    await up(world)
    world.hypervisor.found[VM].xml = "<domain"
    hung = world.hooks.hang("after_vm_destroy")
    destroying = asyncio.create_task(world.vms.destroy(VM))
    await hung.wait()
    world.hypervisor.found[VM] = FakeDomain("<domain", DomainState.OFF)
    world.hooks.scripts.clear()
    await world.restart()
    await until(lambda: world.vms.all() == [])
    assert world.vms.problems == {}
    await asyncio.wait([destroying])


@pytest.mark.parametrize(("change", "reason"), [(Change.SHUTDOWN_GUEST, 7), (Change.MIGRATED, 4)])
async def test_why_a_vm_ended_while_it_was_taken_over_is_heard(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Change, reason: int
) -> None:
    await up(world)
    real = world.storage.resume_prepared

    async def meanwhile(images: Any, *, consumer: str) -> Any:
        world.hypervisor.found[VM].state = DomainState.OFF
        world.hypervisor.tell(VM, change)
        world.hypervisor.tell(VM, Change.STOPPED)
        return await real(images, consumer=consumer)

    monkeypatch.setattr(world.storage, "resume_prepared", meanwhile)
    await world.restart()
    await until(lambda: world.vms.get(VM).status.down)
    assert [down["exitReason"] for down in world.events.downs()] == [reason]


# What is told


async def test_what_could_not_be_understood_is_in_the_log_and_among_the_problems(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await up(world)
    path = Path(world.paths.state, "vms", f"{VM}.json")
    path.write_text("{broken")
    await world.restart()
    assert str(path) in world.vms.problems[VM]
    assert f"is left as it is: {path}: " in caplog.text
    await world.vms.destroy(VM)
    assert world.vms.problems == {}


async def test_the_log_says_what_was_found(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt")
    await up(world)
    foreign = new_id()
    xml = f"<domain><name>x</name><uuid>{foreign}</uuid></domain>"
    world.hypervisor.found[foreign] = FakeDomain(xml, DomainState.RUNNING)
    await world.restart()
    assert "recovered 1 VMs; 1 domains are not ours" in caplog.text
    assert f"VM {VM}: take over, reported as Up" in caplog.text


async def test_a_down_vm_whose_event_was_not_told_is_told_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await up(world)
    with monkeypatch.context() as patch:
        patch.setattr(world.vms.get(VM), "tell", lambda: None)
        world.hypervisor.guest_ends(VM)
        await until(lambda: world.vms.get(VM).status.down)
        await settle()
    await world.vms.get(VM).change(told=False)
    await world.restart()
    assert [down["exitReason"] for down in world.events.downs()] == [7]
    await world.restart()
    assert world.events.downs() == []
    assert world.vms.stats(VM)["exitReason"] == 7


async def test_a_down_vm_without_a_recorded_reason_says_so(world: World) -> None:
    await up(world)
    world.hypervisor.guest_ends(VM)
    await until(lambda: world.vms.get(VM).status.down)
    await settle()
    path = Path(world.paths.state, "vms", f"{VM}.json")
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"exit": None}))
    await world.restart()
    told = world.vms.stats(VM)
    assert (told["exitCode"], told["exitReason"], told["exitMessage"]) == (1, 1, "The reason was not recorded")


# What needs storage


async def test_storage_is_tried_again_after_longer_and_longer_pauses_until_the_vm_ends(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await up(world)
    world.storage.users.clear()
    world.storage.fails[IMAGE] = OSError("dead")
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        known = 1 <= seconds <= 60
        if known:
            pauses.append(seconds)
        await real(0.001 if known else seconds)

    monkeypatch.setattr(recover.asyncio, "sleep", sleep)
    await world.restart()
    await until(lambda: len(pauses) >= 8)
    assert pauses[:8] == [2, 4, 8, 16, 32, 60, 60, 60]
    assert f"VM {VM}: its storage is not there yet: dead" in caplog.text
    await world.vms.destroy(VM)
    await settle()
    tries = world.storage.calls.count(f"prepare {IMAGE}")
    await real(0.02)
    assert world.storage.calls.count(f"prepare {IMAGE}") == tries
