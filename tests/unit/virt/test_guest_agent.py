# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest agent: asked while it is connected, and never waited for longer than its VM lives."""

from __future__ import annotations

import asyncio

import pytest

from vdsm.virt.errors import HypervisorError, NoGuestAgent, VmIsDown, VmStarting
from vdsm.virt.hypervisor import Change
from vdsm.virt.vm import Vm

from .fakes import VM, World, refuse, settle, until, xml_of

CHANNEL = "<channel type='unix'><target type='virtio' name='{name}' state='{state}'/></channel>"
CONNECTED = CHANNEL.format(name="org.qemu.guest_agent.0", state="connected")
ABSENT = CHANNEL.format(name="org.qemu.guest_agent.0", state="disconnected")
OTHER = CHANNEL.format(name="com.redhat.spice.0", state="connected")


async def up(world: World, devices: str = CONNECTED) -> Vm:
    vm = await world.vms.create(VM, xml_of(devices=devices))
    await until(lambda: vm.status.stored == "Up")
    await settle()
    return vm


async def test_the_count_of_frozen_file_systems_is_the_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = await up(world)
    asked = []

    async def frozen(vm_id: str) -> int:
        asked.append(vm_id)
        return 3

    async def thawed(vm_id: str) -> int:
        asked.append(vm_id)
        return 2

    monkeypatch.setattr(world.hypervisor, "freeze", frozen)
    monkeypatch.setattr(world.hypervisor, "thaw", thawed)
    assert (await vm.agent.freeze(), await vm.agent.thaw()) == (3, 2)
    assert asked == [VM, VM]


@pytest.mark.parametrize("devices", ["", ABSENT, OTHER])
async def test_a_guest_without_an_agent_is_not_asked(world: World, devices: str) -> None:
    vm = await up(world, devices)
    for ask in (vm.agent.freeze, vm.agent.thaw):
        with pytest.raises(NoGuestAgent, match=VM) as refused:
            await ask()
        assert "qemu-guest-agent" in refused.value.remedy
    assert not {"freeze", "thaw"} & set(world.hypervisor.calls)


async def test_events_say_whether_it_is_connected_more_truly_than_the_xml(world: World) -> None:
    vm = await up(world, ABSENT)
    world.hypervisor.tell(VM, Change.AGENT_CONNECTED)
    await settle()
    assert await vm.agent.thaw() == 1
    world.hypervisor.tell(VM, Change.AGENT_DISCONNECTED)
    await settle()
    with pytest.raises(NoGuestAgent):
        await vm.agent.thaw()


async def test_an_agent_that_left_is_not_asked_whatever_the_xml_still_says(world: World) -> None:
    vm = await up(world, CONNECTED)
    world.hypervisor.tell(VM, Change.AGENT_DISCONNECTED)
    await settle()
    with pytest.raises(NoGuestAgent):
        await vm.agent.freeze()


async def test_other_events_say_nothing_of_the_agent(world: World) -> None:
    vm = await up(world)
    world.hypervisor.tell(VM, Change.RESUMED)
    await settle()
    assert await vm.agent.freeze() == 1


async def test_an_agent_that_answers_again_is_no_news(world: World) -> None:
    await up(world)
    told = list(world.events.told)
    world.hypervisor.tell(VM, Change.AGENT_DISCONNECTED)
    world.hypervisor.tell(VM, Change.AGENT_CONNECTED)
    await settle()
    assert world.events.told == told


async def test_a_refusal_of_the_guest_is_told_as_it_is(world: World) -> None:
    vm = await up(world)
    world.hypervisor.before["freeze"] = refuse("the guest says no")
    with pytest.raises(HypervisorError, match="the guest says no"):
        await vm.agent.freeze()


async def test_the_end_of_the_vm_ends_the_waiting_and_says_for_what(world: World) -> None:
    vm = await up(world)

    async def hangs(_vm_id: str) -> None:
        await asyncio.Event().wait()

    world.hypervisor.before["thaw"] = hangs
    asking = asyncio.create_task(vm.agent.thaw())
    await settle()
    await world.vms.destroy(VM)
    with pytest.raises(VmIsDown, match=f"Can't thaw VM {VM}: it does not run"):
        await asking


async def test_a_vm_that_does_not_run_is_not_asked(world: World) -> None:
    running = world.hooks.hang("before_vm_start")
    vm = await world.vms.create(VM, xml_of(devices=CONNECTED))
    await running.wait()
    with pytest.raises(VmStarting, match=f"Can't freeze VM {VM}: it is still being started"):
        await vm.agent.freeze()
    await world.vms.destroy(VM)
    with pytest.raises(VmIsDown, match=f"Can't thaw VM {VM}"):
        await vm.agent.thaw()
