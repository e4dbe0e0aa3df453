# SPDX-License-Identifier: GPL-2.0-or-later
"""How a guest is asked to end or to start anew: in which order, for how long, and what is told meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from vdsm.virt import power
from vdsm.virt.errors import NoPowerdownWay, VmStarting
from vdsm.virt.hypervisor import Change, DomainState
from vdsm.virt.power import PowerdownRequest
from vdsm.virt.vm import Vm

from .fakes import VM, World, refuse, settle, until, xml_of

CONNECTED = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>"


async def up(world: World, *, devices: str = "", acpi: bool = True, metadata: str = "") -> Vm:
    xml = xml_of(devices=devices, metadata=metadata)
    vm = await world.vms.create(VM, xml if acpi else xml.replace("<acpi/>", ""))
    await until(lambda: vm.status.stored == "Up" and "after_vm_start" in world.hooks.ran)
    await settle()
    return vm


def request(delay_s: float = 0.0, timeout_s: float = 30.0, **more: bool) -> PowerdownRequest:
    return PowerdownRequest(delay_s, timeout_s, **({"reboot": False, "force": False} | more))


def asked(world: World) -> list[str]:
    return [call for call in world.hypervisor.calls if call not in ("define", "launch")]


def ended(world: World) -> list[tuple[int, int]]:
    return [(down["exitCode"], down["exitReason"]) for down in world.events.downs()]


async def test_an_agent_gets_delay_and_timeout_and_the_button_the_timeout(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await up(world, devices=CONNECTED)
    waits: list[float | None] = []
    real = asyncio.timeout

    def timeout(seconds: float | None) -> Any:
        waits.append(seconds)
        return real(0.001 if seconds in (35.0, 30.0) else seconds)

    monkeypatch.setattr(power.asyncio, "timeout", timeout)
    await vm.power.shut_down(request(5.0, force=True))
    await until(lambda: vm.status.down)
    assert [seconds for seconds in waits if seconds in (35.0, 30.0)] == [35.0, 30.0]
    assert asked(world)[:2] == ["ask_agent_shutdown", "ask_shutdown"]


async def test_an_agent_alone_is_a_way(world: World) -> None:
    vm = await up(world, devices=CONNECTED, acpi=False)
    await vm.power.shut_down(request(timeout_s=0.01))
    await until(lambda: asked(world) == ["ask_agent_shutdown"])
    await asyncio.sleep(0.03)
    assert asked(world) == ["ask_agent_shutdown"]


async def test_a_guest_without_a_way_is_refused_with_what_to_do(world: World) -> None:
    vm = await up(world, acpi=False)
    with pytest.raises(NoPowerdownWay, match=VM) as refused:
        await vm.power.shut_down(request())
    assert "force" in refused.value.remedy
    assert world.events.statuses() == ["Up"]
    assert vm.record.asked is None


async def test_it_is_told_at_once_and_for_five_minutes(world: World) -> None:
    vm = await up(world)
    await vm.power.shut_down(request())
    assert world.events.statuses() == ["Up", "Powering down"]
    later = time.monotonic() + 299
    vm.status._now = lambda: later
    assert vm.status.reported == "Powering down"
    later += 2
    assert vm.status.reported == "Up"


async def test_a_reboot_is_told_for_a_minute(world: World) -> None:
    vm = await up(world)
    await vm.power.shut_down(request(reboot=True))
    assert world.events.statuses() == ["Up", "RebootInProgress"]
    later = time.monotonic() + 59
    vm.status._now = lambda: later
    assert vm.status.reported == "RebootInProgress"
    later += 2
    assert vm.status.reported == "Up"


@pytest.mark.parametrize(("timeout_s", "lasts_s"), [(30.0, 300.0), (400.0, 1201.0)])
async def test_the_admin_is_the_reason_as_long_as_the_guest_is_asked(
    world: World, timeout_s: float, lasts_s: float
) -> None:
    vm = await up(world, devices=CONNECTED)
    await vm.power.shut_down(PowerdownRequest(401.0 if timeout_s > 300 else 0.0, timeout_s, reboot=False, force=False))
    assert vm.record.asked == 6
    assert vm.record.asked_until_s - time.monotonic() == pytest.approx(lasts_s, abs=2)


async def test_a_guest_that_obeys_was_shut_down_by_the_admin(world: World) -> None:
    vm = await up(world)
    await vm.power.shut_down(request())
    await until(lambda: "ask_shutdown" in asked(world))
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    assert ended(world) == [(0, 6)]


async def test_a_reboot_that_was_asked_for_is_no_reason_of_a_later_end(world: World) -> None:
    vm = await up(world)
    await vm.power.shut_down(request(reboot=True))
    await until(lambda: "ask_reboot" in asked(world))
    world.hypervisor.tell(VM, Change.REBOOTED)
    await settle()
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    assert ended(world) == [(0, 7)]


async def test_force_follows_where_no_way_is_left(world: World) -> None:
    vm = await up(world, devices=CONNECTED)
    world.hypervisor.before["ask_agent_reboot"] = refuse("no agent")
    world.hypervisor.before["ask_reboot"] = refuse("no button")
    await vm.power.shut_down(request(reboot=True, force=True))
    await until(lambda: "reset" in asked(world))
    assert asked(world) == ["ask_agent_reboot", "ask_reboot", "reset"]
    assert world.events.downs() == []


@pytest.mark.parametrize("why", ["forced", "no reboots"])
async def test_what_the_agent_ends_by_itself_has_the_hook_of_a_destroy_while_it_runs(world: World, why: str) -> None:
    vm = await up(world, metadata="<ovirt-vm:destroy_on_reboot type='bool'>true</ovirt-vm:destroy_on_reboot>")
    running = []

    async def script(xml: str) -> str:
        running.append(world.hypervisor.found[VM].state is DomainState.RUNNING)
        return xml

    world.hooks.scripts["before_vm_destroy"] = script
    if why == "forced":
        await vm.power.shut_down(request(timeout_s=0.01, force=True))
    else:
        world.hypervisor.tell(VM, Change.REBOOTED)
    await until(lambda: vm.status.down)
    assert running == [True]
    assert [d["exitReason"] for d in world.events.downs()] == [6 if why == "forced" else 13]


async def test_a_forced_end_gives_qemu_no_further_grace(world: World) -> None:
    vm = await up(world)
    await vm.power.shut_down(request(timeout_s=0.01, force=True))
    await until(lambda: vm.status.down)
    assert "terminate" not in asked(world)
    assert ended(world) == [(0, 6)]


async def test_a_reset_that_fails_is_told_and_costs_nothing_else(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    vm = await up(world)
    world.hypervisor.before["reset"] = refuse("no reset")
    await vm.power.shut_down(request(timeout_s=0.01, reboot=True, force=True))
    await until(lambda: "no reset" in caplog.text)
    assert vm.status.stored == "Up"


async def test_which_way_failed_and_which_was_ignored_is_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt")
    vm = await up(world, devices=CONNECTED)
    world.hypervisor.before["ask_agent_shutdown"] = refuse("agent is away")
    await vm.power.shut_down(request(timeout_s=0.01, force=True))
    await until(lambda: vm.status.down)
    told = [record.getMessage() for record in caplog.records]
    assert any(VM in line and "guest agent" in line and "agent is away" in line for line in told)
    assert any(VM in line and "ACPI" in line and "did not obey" in line for line in told)
    assert any(VM in line and "ended by force" in line for line in told)


async def test_requests_that_come_together_leave_one_chain(world: World) -> None:
    vm = await up(world)
    force, soft = request(timeout_s=0.02, force=True), request()
    await asyncio.gather(vm.power.shut_down(force), vm.power.shut_down(soft))
    await asyncio.sleep(0.05)
    assert not vm.status.ending


async def test_what_is_asked_waits_for_the_vms_turn_but_an_agent_does_not(world: World) -> None:
    vm = await up(world, devices=CONNECTED)
    async with vm._turn("test"):
        await vm.power.shut_down(request(timeout_s=0.01))
        await until(lambda: asked(world) == ["ask_agent_shutdown"])
        await asyncio.sleep(0.03)
        assert asked(world) == ["ask_agent_shutdown"]
    await until(lambda: asked(world) == ["ask_agent_shutdown", "ask_shutdown"])


# Reboots


async def test_the_next_reboot_ends_the_vm_when_that_was_asked_for_also_after_a_restart(world: World) -> None:
    vm = await up(world)
    await vm.power.destroy_on_reboot()
    await world.restart()
    world.hypervisor.tell(VM, Change.REBOOTED)
    await until(lambda: world.vms.get(VM).status.down)
    assert ended(world) == [(0, 13)]


async def test_a_reboot_ends_a_vm_whose_metadata_say_so(world: World) -> None:
    vm = await up(world, metadata="<ovirt-vm:destroy_on_reboot type='bool'>true</ovirt-vm:destroy_on_reboot>")
    world.hypervisor.tell(VM, Change.REBOOTED)
    await until(lambda: vm.status.down)
    assert ended(world) == [(0, 13)]


async def test_a_reboot_of_a_guest_without_an_agent_is_told_and_it_is_up(world: World) -> None:
    vm = await up(world)
    before = vm.started_at_s
    world.hypervisor.tell(VM, Change.REBOOTED)
    await settle()
    assert world.events.statuses() == ["Up", "Up"]
    assert vm.started_at_s is not None and before is not None and vm.started_at_s > before


async def test_one_reboot_is_told_once_though_the_firmware_resets_the_machine_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaBIOS on q35 does so at each reset: QEMU tells two or three within a tenth of a second."""
    vm = await up(world)
    now = time.monotonic()
    monkeypatch.setattr(power, "_now", lambda: now)
    for _ in range(3):
        world.hypervisor.tell(VM, Change.REBOOTED)
    await settle()
    assert world.events.statuses() == ["Up", "Up"]
    now += 2.1
    world.hypervisor.tell(VM, Change.REBOOTED)
    await settle()
    assert world.events.statuses() == ["Up", "Up", "Up"]
    vm.abandon()


async def test_a_vm_that_is_still_being_started_can_not_be_shut_down(world: World) -> None:
    running = world.hooks.hang("before_vm_start")
    vm = await world.vms.create(VM, xml_of())
    await running.wait()
    with pytest.raises(VmStarting, match="Can't shut down VM"):
        await vm.power.shut_down(request())
    with pytest.raises(VmStarting, match="set what a reboot means for"):
        await vm.power.destroy_on_reboot()
