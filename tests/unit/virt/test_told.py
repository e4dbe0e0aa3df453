# SPDX-License-Identifier: GPL-2.0-or-later
"""What an engine is told of a VM in statistics and events, and in which order."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from vdsm.common.clocks import BASE_MS
from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import NoPowerdownWay
from vdsm.virt.hypervisor import (
    BalloonChanged,
    Change,
    ClockShift,
    DeviceAdded,
    DeviceRemoved,
    DiskTrouble,
    DomainState,
    VmEvent,
    Watchdog,
)
from vdsm.virt.power import PowerdownRequest
from vdsm.virt.stats.counters import Counters
from vdsm.virt.vm import Vm

from .fakes import IMAGE, VM, FakeDomain, World, disk, new_id, refuse, settle, until, xml_of

CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='{state}'/></channel>"
ABSENT, CONNECTED = CHANNEL.format(state="disconnected"), CHANNEL.format(state="connected")
LONG = PowerdownRequest(delay_s=0, timeout_s=30, reboot=False, force=False)


def short(**more: bool) -> PowerdownRequest:
    return PowerdownRequest(0, 0.01, **({"reboot": False, "force": False} | more))


async def runs(world: World, **xml: Any) -> Vm:
    vm = await world.vms.create(VM, xml_of(**({"disks": [disk()]} | xml)))
    await until(lambda: vm.launched and "after_vm_start" in world.hooks.ran)
    await settle()
    return vm


def asked(world: World) -> list[str]:
    return [call for call in world.hypervisor.calls if call.startswith(("ask", "reset", "terminate", "kill"))]


# Times


async def test_times_begin_where_the_fields_clock_begins(world: World) -> None:
    await runs(world)
    told = [world.vms.stats(VM), world.vms.brief()[0], world.events.told[-1][1]]
    for times in told:
        assert isinstance(times["statusTime"], str)
        assert int(times["statusTime"]) > BASE_MS
    world.hypervisor.tell(VM, Change.REBOOTED)
    await settle()
    assert int(world.events.told[-1][1]["statusTime"]) >= int(told[-1]["statusTime"])


async def test_elapsed_time_counts_from_the_start_and_from_a_reboot(world: World) -> None:
    vm = await runs(world)
    assert vm.started_at_s is not None and abs(time.time() - vm.started_at_s) < 5
    await vm.change(started_at_s=time.time() - 100)
    assert 100 <= int(world.vms.stats(VM)["elapsedTime"]) <= 102
    world.hypervisor.tell(VM, Change.REBOOTED)
    await settle()
    assert int(world.vms.stats(VM)["elapsedTime"]) <= 1


async def test_elapsed_time_goes_on_over_a_restart_also_without_a_record(world: World) -> None:
    await runs(world)
    assert "startTime" in world.hypervisor.found[VM].xml
    (record,) = (world.root.parent / "state/vms").glob("*.json")
    record.unlink()
    await world.restart()
    assert world.vms.get(VM).started_at_s is not None


async def test_a_shift_of_the_guests_clock_is_told(world: World) -> None:
    await runs(world)
    world.hypervisor.hear(ClockShift(VM, -3600))
    await settle()
    assert world.vms.stats(VM)["timeOffset"] == "-3600"
    world.hypervisor.guest_ends(VM)
    await until(lambda: world.vms.stats(VM)["status"] == "Down")
    assert world.events.downs()[0]["timeOffset"] == "-3600"


# States


async def test_a_guest_with_an_agent_powers_up_until_it_answers(world: World) -> None:
    await runs(world, devices=ABSENT)
    world.hypervisor.tell(VM, Change.AGENT_CONNECTED)
    await settle()
    assert world.events.statuses() == ["Powering up", "Up"]


async def test_a_guest_whose_agent_answers_at_once_is_up(world: World) -> None:
    await runs(world, devices=CONNECTED)
    assert world.events.statuses() == ["Up"]


async def test_a_reboot_is_told_until_the_agent_answers(world: World) -> None:
    await runs(world, devices=CONNECTED)
    world.hypervisor.tell(VM, Change.REBOOTED)
    await settle()
    assert world.vms.stats(VM)["status"] == "RebootInProgress"
    world.hypervisor.tell(VM, Change.AGENT_CONNECTED)
    await settle()
    assert world.events.statuses() == ["Up", "RebootInProgress", "Up"]


@pytest.mark.parametrize(("reason", "code"), [("enospc", "ENOSPC"), ("eio", "EIO"), ("", "EOTHER"), ("odd", "EOTHER")])
async def test_a_pause_by_a_disk_has_the_disks_reason(world: World, reason: str, code: str) -> None:
    vm = await runs(world)
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.PAUSED, "ioerror"
    world.hypervisor.hear(DiskTrouble(VM, "ua-1", "/x", reason))
    world.hypervisor.tell(VM, Change.SUSPENDED_IOERROR)
    await settle()
    assert world.vms.stats(VM)["pauseCode"] == code
    assert world.events.told[-1][1]["pauseCode"] == code
    await vm.running.cont()
    assert "pauseCode" not in world.vms.stats(VM)
    await vm.running.pause()
    world.hypervisor.found[VM].reason = "user"
    await vm.look.fresh()
    assert world.vms.stats(VM)["pauseCode"] == "NOERR"


async def test_a_pause_of_a_disk_that_was_resumed_is_not_the_reason_of_the_next(world: World) -> None:
    vm = await runs(world)
    domain = world.hypervisor.found[VM]
    domain.state, domain.reason = DomainState.PAUSED, "ioerror"
    world.hypervisor.hear(DiskTrouble(VM, "ua-1", "/x", "enospc"))
    await settle()
    await vm.running.cont()
    domain.state = DomainState.PAUSED
    world.hypervisor.tell(VM, Change.SUSPENDED_IOERROR)
    await settle()
    assert world.vms.stats(VM)["pauseCode"] == "EOTHER"


@pytest.mark.parametrize(
    "event",
    [
        DiskTrouble(VM, "ua-1", "/x", "enospc", paused=False),
        Watchdog(VM, "log"),
        BalloonChanged(VM, 1024),
        DeviceAdded(VM, "ua-2"),
        DeviceRemoved(VM, "ua-2"),
    ],
)
async def test_what_stops_no_guest_changes_no_state(world: World, event: VmEvent) -> None:
    vm = await runs(world)
    told = list(world.events.told)
    world.hypervisor.hear(event)
    await settle()
    assert (vm.status.reported, world.events.told) == ("Up", told)
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.PAUSED, "ioerror"
    await vm.look.fresh()
    assert world.vms.stats(VM)["pauseCode"] == "EOTHER"


async def test_a_paused_vm_is_not_paused_again(world: World) -> None:
    vm = await runs(world)
    await vm.running.pause()
    await vm.running.pause()
    assert world.hypervisor.calls.count("pause") == 1


async def test_a_silent_vm_is_told_as_not_responding(world: World) -> None:
    await runs(world)
    assert world.vms.stats(VM)["monitorResponse"] == "0"
    world.vms._samples._now = lambda: time.monotonic() + 61
    assert world.vms.stats(VM)["monitorResponse"] == "-1"


async def test_consoles_are_told_as_text(world: World) -> None:
    spice = "<graphics type='spice' port='5902'><listen address='192.0.2.1'/></graphics>"
    console = f"<graphics type='vnc' port='5901'/>{spice}"
    await runs(world, devices=console)
    assert world.vms.stats(VM)["displayInfo"] == [
        {"type": "vnc", "port": "5901", "tlsPort": "-1", "ipAddress": "0"},
        {"type": "spice", "port": "5902", "tlsPort": "-1", "ipAddress": "192.0.2.1"},
    ]
    assert (world.vms.stats(VM)["clientIp"], world.vms.stats(VM)["vmJobs"]) == ("", {})


async def test_a_balloon_knows_the_memory_that_is_guaranteed(world: World) -> None:
    await runs(world, metadata="<ovirt-vm:minGuaranteedMemoryMb type='int'>512</ovirt-vm:minGuaranteedMemoryMb>")
    world.vms._samples.take(VM, Counters(balloon=True, memory=1, memory_maximum=2))
    assert world.vms.stats(VM)["balloonInfo"]["balloon_min"] == str(512 * 1024)


# Power-down


async def test_the_agent_is_asked_first_then_the_button(world: World) -> None:
    vm = await runs(world, devices=CONNECTED)
    await vm.power.shut_down(short())
    await until(lambda: asked(world) == ["ask_agent_shutdown", "ask_shutdown"])


async def test_a_way_that_fails_is_followed_by_the_next_at_once(world: World) -> None:
    vm = await runs(world, devices=CONNECTED)
    world.hypervisor.before["ask_agent_shutdown"] = refuse("no agent")
    await vm.power.shut_down(LONG)
    await until(lambda: "ask_shutdown" in asked(world))


async def test_a_reboot_asks_the_agent_first(world: World) -> None:
    vm = await runs(world, devices=CONNECTED)
    await vm.power.shut_down(short(reboot=True))
    await until(lambda: asked(world) == ["ask_agent_reboot", "ask_reboot"])
    assert vm.status.reported == "RebootInProgress"


async def test_a_guest_that_obeys_is_not_ended_by_force(world: World) -> None:
    vm = await runs(world)
    await vm.power.shut_down(PowerdownRequest(0, 0.05, reboot=True, force=True))
    await until(lambda: "ask_reboot" in asked(world))
    world.hypervisor.tell(VM, Change.REBOOTED)
    await asyncio.sleep(0.1)
    assert asked(world) == ["ask_reboot"]


async def test_a_second_request_replaces_the_first(world: World) -> None:
    vm = await runs(world)
    await vm.power.shut_down(PowerdownRequest(0, 0.05, reboot=False, force=True))
    await vm.power.shut_down(LONG)
    await asyncio.sleep(0.1)
    assert asked(world) == ["ask_shutdown"]
    assert VM in world.hypervisor.found


async def test_a_guest_without_a_way_is_refused_and_stays_up(world: World) -> None:
    vm = await world.vms.create(VM, xml_of().replace("<acpi/>", ""))
    await until(lambda: vm.status.reported == "Up")
    with pytest.raises(NoPowerdownWay):
        await vm.power.shut_down(short())
    assert vm.status.reported == "Up"
    await vm.power.shut_down(short(force=True))
    await until(lambda: vm.status.down)
    assert "ask_shutdown" not in asked(world)


# The end


async def test_qemu_gets_its_chances_before_it_is_killed(world: World) -> None:
    await runs(world)
    world.hypervisor.before["terminate"] = refuse("it does not listen")
    await world.vms.destroy(VM, graceful_attempts=2)
    assert asked(world) == ["terminate", "terminate", "kill"]


async def test_without_graceful_attempts_qemu_is_killed(world: World) -> None:
    await runs(world)
    await world.vms.destroy(VM, graceful_attempts=0)
    assert asked(world) == ["kill"]


async def test_a_foreign_domain_that_took_the_uuid_is_not_ended(world: World) -> None:
    await runs(world)
    foreign = FakeDomain(f"<domain><name>other</name><uuid>{VM}</uuid></domain>", DomainState.RUNNING)
    world.hypervisor.found[VM] = foreign
    await world.vms.destroy(VM)
    assert world.hypervisor.found == {VM: foreign}
    assert asked(world) == []


async def test_a_vm_of_ours_that_somebody_else_started_is_taken_over_and_not_ended(world: World) -> None:
    world.hypervisor.found[VM] = FakeDomain(xml_of(disks=[disk()]), DomainState.RUNNING)
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up")
    assert world.hypervisor.calls == []
    assert world.storage.prepared == {IMAGE}
    await world.restart()
    assert world.vms.stats(VM)["status"] == "Up"
    await world.vms.destroy(VM)
    assert world.hypervisor.found == {}


async def test_a_start_that_fails_before_libvirt_was_asked_ends_nothing_that_runs(world: World) -> None:
    world.hypervisor.found[VM] = FakeDomain(xml_of(disks=[disk()]), DomainState.RUNNING)
    world.storage.fails[IMAGE] = DeadlineExceeded("prepare", 1.0)
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up")
    assert world.hypervisor.calls == []
    assert world.events.downs() == []


async def test_what_runs_while_a_start_was_interrupted_before_libvirt_was_asked_is_taken_over(world: World) -> None:
    running = world.hooks.hang("before_vm_start")
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await running.wait()
    world.hypervisor.found[VM] = FakeDomain(xml_of(disks=[disk()]), DomainState.RUNNING)
    await world.restart()
    await until(lambda: world.vms.stats(VM)["status"] == "Up")
    assert world.hypervisor.calls == []


async def test_a_definition_that_was_left_makes_way(world: World) -> None:
    world.hypervisor.found[VM] = FakeDomain(xml_of(), DomainState.OFF)
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.reported == "Up")
    assert world.hypervisor.calls == ["undefine", "define", "launch"]


async def test_an_image_that_could_not_be_torn_down_is_tried_again_by_destroy(world: World) -> None:
    await runs(world)
    real, failures = world.storage.teardown_image, [OSError("busy")]

    async def busy(pool_id: str, domain_id: str, image_id: str, *, consumer: str) -> None:
        if failures:
            raise failures.pop()
        await real(pool_id, domain_id, image_id, consumer=consumer)

    world.storage.teardown_image = busy  # type: ignore[method-assign]
    world.hypervisor.guest_ends(VM)
    await until(lambda: world.vms.stats(VM)["status"] == "Down")
    assert world.storage.prepared == {IMAGE}
    await world.vms.destroy(VM)
    assert world.storage.prepared == set()


async def test_events_of_one_vm_say_nothing_of_another(world: World) -> None:
    other = new_id()
    await runs(world)
    await world.vms.create(other, xml_of(other))
    await until(lambda: world.vms.stats(other)["status"] == "Up")
    world.hypervisor.guest_ends(other)
    await until(lambda: world.vms.stats(other)["status"] == "Down")
    assert world.events.statuses() == ["Up"]
    assert world.events.statuses(other) == ["Up", "Powering down", "Down"]
