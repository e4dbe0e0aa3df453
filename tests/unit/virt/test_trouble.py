# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk stops the guest: with which code, what the event names, and when it goes on or ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vdsm.virt import trouble
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.hypervisor import DiskTrouble, DomainState
from vdsm.virt.records import Phase, Record
from vdsm.virt.vm import Vm

from .fakes import DOMAIN, IMAGE, POOL, VM, VOLUME, World, disk, new_id, settle, until, xml_of
from .test_looks import LateLook


async def stopped(world: World, behaviour: str = "", reason: str = "enospc") -> Vm:
    metadata = f"<ovirt-vm:resumeBehavior>{behaviour}</ovirt-vm:resumeBehavior>" if behaviour else ""
    vm = await world.vms.create(VM, xml_of(disks=[disk()], metadata=metadata))
    await until(lambda: vm.status.reported == "Up")
    stop(world, reason)
    await until(lambda: vm.status.reported == "Paused")
    await settle()
    return vm


def stop(world: World, reason: str) -> None:
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.PAUSED, "ioerror"
    world.hypervisor.hear(DiskTrouble(VM, "ua-1", f"/rhev/{IMAGE}/{VOLUME}", reason))


async def test_the_event_names_the_disk(world: World) -> None:
    await stopped(world)
    told = world.events.told[-1][1]
    assert told["pauseCode"] == "ENOSPC"
    assert told["ioerror"] == {"alias": "ua-1", "name": "vda", "path": f"/rhev/{IMAGE}/{VOLUME}"}


async def test_a_vm_that_somebody_paused_names_no_disk(world: World) -> None:
    vm = await stopped(world)
    await vm.running.cont()
    await settle()
    await vm.running.pause()
    assert "ioerror" not in world.events.told[-1][1]


async def test_the_code_outlives_the_agent(world: World) -> None:
    await stopped(world)
    await world.restart()
    assert world.vms.stats(VM)["pauseCode"] == "ENOSPC"


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ({"vda": "no space"}, "ENOSPC"),
        ({"vda": "unspecified"}, "EIO"),
        ({"vda": "unspecified", "vdb": "no space"}, "ENOSPC"),
        ({}, "EOTHER"),
    ],
)
async def test_a_stop_that_nobody_heard_of_has_the_code_that_libvirt_gives(
    world: World, monkeypatch: pytest.MonkeyPatch, errors: dict[str, str], code: str
) -> None:
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: world.vms.get(VM).status.reported == "Up")
    await world.vms.stop()
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.PAUSED, "ioerror"

    async def disk_errors(_vm_id: str) -> dict[str, str]:
        return errors

    monkeypatch.setattr(world.hypervisor, "disk_errors", disk_errors)
    world.vms = world.new_vms()
    await world.vms.start()
    assert world.vms.stats(VM)["pauseCode"] == code


@pytest.mark.parametrize(
    ("behaviour", "goes_on"), [("", True), ("auto_resume", True), ("kill", True), ("leave_paused", False)]
)
async def test_storage_that_is_back_lets_it_go_on_as_its_behaviour_says(
    world: World, behaviour: str, goes_on: bool
) -> None:
    vm = await stopped(world, behaviour)
    world.vms.storage_is_back(DOMAIN)
    await settle()
    assert (vm.status.reported == "Up") is goes_on
    assert ("before_vm_cont" in world.hooks.ran) is goes_on


async def test_another_domain_that_is_back_changes_nothing(world: World) -> None:
    vm = await stopped(world)
    world.vms.storage_is_back(new_id())
    await settle()
    assert vm.status.reported == "Paused"


async def test_what_somebody_paused_stays_paused(world: World) -> None:
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up")
    await vm.running.pause()
    world.vms.storage_is_back(DOMAIN)
    await settle()
    assert vm.status.reported == "Paused"


class TestKill:
    @pytest.fixture
    async def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        world = World(tmp_path, reconcile_s=0.01)
        await world.vms.start()
        yield world
        await world.vms.stop()

    async def test_after_its_time_it_is_ended(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        vm = await stopped(world, "kill")
        monkeypatch.setattr(trouble, "KILL_AFTER_S", 0.0)
        await until(lambda: vm.status.down)
        assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(1, 14)]
        assert "terminate" not in world.hypervisor.calls

    @pytest.mark.parametrize("behaviour", ["", "leave_paused"])
    async def test_other_behaviours_end_nothing(
        self, world: World, monkeypatch: pytest.MonkeyPatch, behaviour: str
    ) -> None:
        vm = await stopped(world, behaviour)
        monkeypatch.setattr(trouble, "KILL_AFTER_S", 0.0)
        await vm_rounds(world)
        assert vm.status.reported == "Paused"

    async def test_before_its_time_it_is_left(self, world: World) -> None:
        vm = await stopped(world, "kill")
        await vm_rounds(world)
        assert vm.status.reported == "Paused"

    async def test_an_overdue_vm_does_not_go_on(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        await stopped(world, "kill")
        monkeypatch.setattr(trouble, "KILL_AFTER_S", 0.0)
        world.vms.storage_is_back(DOMAIN)
        await settle()
        assert "resume" not in world.hypervisor.calls

    async def test_the_time_counts_from_the_first_trouble(self, world: World) -> None:
        vm = await stopped(world, "kill")
        first = vm.record.trouble
        stop(world, "eio")
        await until(lambda: vm.status.pause_code == "EIO")
        again = vm.record.trouble
        assert first is not None and again is not None and again.since_s == first.since_s


async def vm_rounds(world: World) -> None:
    await world.vms._reconciler.round()
    await settle()


async def test_images_of_another_vm_that_hang_delay_no_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "KILL_AFTER_S", 0.0)
    vm = await stopped(world, "kill")
    left = Record(vm_id=new_id(), name="x", phase=Phase.LEFT, xml="", images=(ImageId(POOL, DOMAIN, IMAGE, VOLUME),))
    world.vms._parts.records.take_over(left)

    async def hangs(*_ids: str, consumer: str) -> None:
        await asyncio.Event().wait()

    world.storage.teardown_image = hangs  # type: ignore[method-assign]
    await world.vms._reconciler.round()
    await settle()
    await world.vms._reconciler.round()
    assert vm.ending.begun


async def test_a_look_that_began_before_the_trouble_does_not_take_it_back(world: World) -> None:
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up" and "after_vm_start" in world.hooks.ran)
    await settle()
    late = LateLook(world)
    vm.look.soon()
    await late.began.wait()
    stop(world, "enospc")
    await settle()
    late.go.set()
    await until(lambda: vm.status.reported == "Paused")
    await settle()
    assert world.vms.stats(VM)["pauseCode"] == "ENOSPC"


async def test_a_trouble_of_which_no_event_told_has_libvirts_code_and_its_time_counts(world: World) -> None:
    metadata = "<ovirt-vm:resumeBehavior>kill</ovirt-vm:resumeBehavior>"
    vm = await world.vms.create(VM, xml_of(disks=[disk()], metadata=metadata))
    await until(lambda: vm.status.reported == "Up")
    found = world.hypervisor.found[VM]
    found.state, found.reason, found.disk_errors = DomainState.PAUSED, "ioerror", {"vda": "no space"}
    vm.look.soon()
    await until(lambda: world.vms.stats(VM).get("pauseCode") == "ENOSPC")
    assert vm.record.trouble is not None


async def test_it_goes_on_although_its_trouble_is_not_seen_yet_when_its_storage_is_back(world: World) -> None:
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up" and "after_vm_start" in world.hooks.ran)
    late = LateLook(world)
    vm.look.soon()
    await late.began.wait()
    stop(world, "eio")
    await until(lambda: vm.record.trouble is not None)
    world.vms.storage_is_back(DOMAIN)
    await settle()
    late.go.set()
    await until(lambda: "resume" in world.hypervisor.calls)
    await until(lambda: vm.status.reported == "Up")


async def test_what_was_asked_of_the_storage_before_it_was_back_stops_it_once(world: World) -> None:
    """The kernel gives it up afterwards. A disk that fails again and again is another thing: it stands."""
    vm = await stopped(world, reason="eio")
    world.vms.storage_is_back(DOMAIN)
    await until(lambda: vm.status.reported == "Up")
    stop(world, "eio")
    await until(lambda: world.hypervisor.calls.count("resume") == 2)
    await until(lambda: vm.status.reported == "Up")
    stop(world, "eio")
    await until(lambda: vm.status.reported == "Paused")
    await settle()
    assert (vm.status.reported, world.hypervisor.calls.count("resume")) == ("Paused", 2)


async def test_long_after_its_storage_was_back_a_trouble_is_a_new_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await stopped(world, reason="eio")
    world.vms.storage_is_back(DOMAIN)
    await until(lambda: vm.status.reported == "Up")
    now = trouble.time.monotonic()
    monkeypatch.setattr(trouble, "time", SimpleNamespace(monotonic=lambda: now + trouble.LATE_S + 1))
    stop(world, "eio")
    await until(lambda: vm.status.reported == "Paused")
    await settle()
    assert vm.status.reported == "Paused"


async def test_late_trouble_of_a_vm_that_is_to_stay_lets_nothing_go_on(world: World) -> None:
    vm = await stopped(world, "leave_paused", reason="eio")
    world.vms.storage_is_back(DOMAIN)
    stop(world, "eio")
    await settle()
    assert (vm.status.reported, "resume" in world.hypervisor.calls) == ("Paused", False)
