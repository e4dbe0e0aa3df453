# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM from create to destroy, with everything that may come in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.virt.errors import CalledBack, DestroyFailed, NoSuchVm, VmCallsHang, VmExists, VmIdDiffers, VmIsDown
from vdsm.virt.hypervisor import Change, DomainState
from vdsm.virt.power import PowerdownRequest
from vdsm.virt.vm import Vm

from .fakes import IMAGE, VM, VOLUME, World, disk, new_id, refuse, settle, until, xml_of

SOFT = PowerdownRequest(delay_s=0, timeout_s=0.05, reboot=False, force=False)


class Broken(AgentError):
    msg = "broken on purpose"


async def up(world: World, xml: str | None = None) -> Vm:
    vm = await world.vms.create(VM, xml or xml_of(disks=[disk()]))
    assert vm.status.reported == "WaitForLaunch"
    await until(lambda: vm.status.reported != "WaitForLaunch")
    return vm


async def test_a_vm_does_not_begin_while_a_call_to_its_earlier_life_hangs(world: World) -> None:
    world.hypervisor.hang.add(VM)
    with pytest.raises(VmCallsHang, match="kill QEMU for 70 s"):
        await world.vms.create(VM, xml_of())
    assert (world.vms.all(), world.records(), world.hypervisor.calls) == ([], [], [])
    world.hypervisor.hang.clear()
    await world.vms.create(VM, xml_of())


async def test_create_answers_first_and_then_starts(world: World) -> None:
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    assert vm.status.reported == "WaitForLaunch"
    assert world.hypervisor.calls == []
    assert world.records() == [VM]
    await until(lambda: vm.status.reported == "Up")
    assert world.hypervisor.calls == ["define", "launch"]
    assert f"/rhev/{IMAGE}/{VOLUME}" in world.hypervisor.found[VM].xml
    await until(lambda: world.hooks.ran == ["before_vm_start", "after_vm_start"])
    assert world.events.statuses() == ["Up"]


async def test_a_hook_rewrites_the_xml(world: World) -> None:
    async def script(xml: str) -> str:
        return xml.replace("<acpi/>", "<acpi/><apic/>")

    world.hooks.scripts["before_vm_start"] = script
    await up(world)
    assert "<apic/>" in world.hypervisor.found[VM].xml


@pytest.mark.parametrize("left", ["", "<domain", "<domain type='kvm'><name>x</name></domain>"])
async def test_what_a_hook_broke_never_reaches_libvirt(world: World, left: str) -> None:
    async def script(xml: str) -> str:
        return left

    world.hooks.scripts["before_vm_start"] = script
    vm = await up(world)
    await until(lambda: vm.status.down)
    assert "define" not in world.hypervisor.calls
    assert world.storage.prepared == set()
    assert len(world.events.downs()) == 1


async def test_a_failing_hook_is_the_one_down_event(world: World) -> None:
    async def script(xml: str) -> str:
        raise Broken()

    world.hooks.scripts["before_vm_start"] = script
    vm = await up(world)
    await until(lambda: vm.status.down)
    (down,) = world.events.downs()
    assert (down["exitCode"], down["exitReason"], down["exitMessage"]) == (1, 1, "broken on purpose")
    assert world.storage.prepared == set()


async def test_launch_flags_of_a_hook_are_used(world: World) -> None:
    async def script(xml: str) -> str:
        path = Path(world.paths.run, VM, "launchflags")
        assert path.read_text() == "0"
        path.write_text("1\n")
        return xml

    world.hooks.scripts["before_vm_start"] = script
    vm = await up(world)
    assert vm.status.reported == "Paused"
    await until(lambda: not Path(world.paths.run, VM, "launchflags").exists())


async def test_a_refused_start_is_down_with_libvirts_words(world: World) -> None:
    world.hypervisor.before["launch"] = refuse("no such machine")
    vm = await up(world)
    await until(lambda: vm.status.down)
    assert "no such machine" in world.events.downs()[0]["exitMessage"]
    assert world.hypervisor.found == {}
    assert world.storage.prepared == set()


async def test_an_image_that_fails_leaves_none_prepared(world: World) -> None:
    second = new_id()
    world.storage.fails[second] = Broken()
    vm = await up(world, xml_of(disks=[disk("vda"), disk("vdb", second)]))
    await until(lambda: vm.status.down)
    assert world.storage.prepared == set()
    assert world.hooks.ran == ["after_vm_destroy"]


async def test_destroy_leaves_nothing(world: World) -> None:
    await up(world)
    await world.vms.destroy(VM)
    assert world.vms.all() == []
    assert world.records() == []
    assert world.hypervisor.found == {}
    assert world.storage.prepared == set()
    assert [d["exitReason"] for d in world.events.downs()] == [6]
    assert world.hooks.ran == ["before_vm_start", "after_vm_start", "before_vm_destroy", "after_vm_destroy"]


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_vm_that_is_down_has_its_hook_before_it_is_let_go(world: World, restarted: bool) -> None:
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.reported == "Up" and "after_vm_start" in world.hooks.ran)
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    if restarted:
        await world.restart()
    world.hooks.ran.clear()
    await world.vms.destroy(VM)
    assert world.hooks.ran == ["before_vm_destroy"]
    assert world.vms.all() == []


async def test_destroy_during_a_hook_kills_the_hook(world: World) -> None:
    running = world.hooks.hang("before_vm_start")
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await running.wait()
    async with asyncio.timeout(2):
        await world.vms.destroy(VM)
    assert "define" not in world.hypervisor.calls
    assert [d["exitReason"] for d in world.events.downs()] == [10]
    assert world.storage.prepared == set()


async def test_qemu_that_cannot_be_stopped_keeps_its_images(world: World) -> None:
    await up(world)
    world.hypervisor.before["terminate"] = world.hypervisor.before["kill"] = refuse("stuck in the kernel")
    with pytest.raises(DestroyFailed, match="stuck"):
        await world.vms.destroy(VM)
    assert world.storage.prepared == {IMAGE}
    world.hypervisor.before.clear()
    await world.vms.destroy(VM)
    assert world.storage.prepared == set()
    assert len(world.events.downs()) == 1


async def test_a_guest_that_ends_is_cleaned_and_stays_listed(world: World) -> None:
    vm = await up(world)
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    assert [d["exitReason"] for d in world.events.downs()] == [7]
    assert world.storage.prepared == set()
    assert world.vms.stats(VM)["status"] == "Down"
    await world.vms.destroy(VM)
    assert len(world.events.downs()) == 1


async def test_a_killed_qemu_is_an_error(world: World) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state = DomainState.OFF
    world.hypervisor.tell(VM, Change.CRASHED)
    world.hypervisor.tell(VM, Change.STOPPED)
    await until(lambda: vm.status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(1, 2)]


async def test_pause_and_cont(world: World) -> None:
    vm = await up(world)
    await vm.running.pause()
    assert world.vms.stats(VM)["pauseCode"] == "NOERR"
    await vm.running.cont()
    assert world.events.statuses() == ["Up", "Paused", "Up"]
    assert "before_vm_cont" in world.hooks.ran


async def test_a_hook_that_resumes_its_own_vm_is_refused_at_once(world: World) -> None:
    vm = await up(world)
    await vm.running.pause()

    async def script(xml: str) -> str:
        assert world.vms.stats(VM)["status"] == "Paused"
        with pytest.raises(CalledBack):
            await vm.running.cont()
        return xml

    world.hooks.scripts["before_vm_cont"] = script
    async with asyncio.timeout(1):
        await vm.running.cont()
    assert vm.status.reported == "Up"
    assert world.hypervisor.calls.count("resume") == 1


async def test_a_failing_before_vm_cont_leaves_it_paused(world: World) -> None:
    vm = await up(world)
    await vm.running.pause()

    async def script(xml: str) -> str:
        raise Broken()

    world.hooks.scripts["before_vm_cont"] = script
    with pytest.raises(Broken):
        await vm.running.cont()
    assert vm.status.reported == "Paused"
    assert "resume" not in world.hypervisor.calls


async def test_a_guest_that_ignores_shutdown_is_not_killed(world: World) -> None:
    vm = await up(world)
    await vm.power.shut_down(SOFT)
    assert vm.status.reported == "Powering down"
    await asyncio.sleep(0.15)
    assert world.hypervisor.calls[-1] == "ask_shutdown"
    assert VM in world.hypervisor.found


async def test_shutdown_with_force_ends_it_after_the_timeout(world: World) -> None:
    vm = await up(world)
    await vm.power.shut_down(PowerdownRequest(0, 0.05, reboot=False, force=True))
    await until(lambda: vm.status.down)
    assert [d["exitReason"] for d in world.events.downs()] == [6]
    with pytest.raises(VmIsDown):
        await vm.power.shut_down(SOFT)


async def test_a_forced_reboot_resets_and_ends_nothing(world: World) -> None:
    vm = await up(world)
    await vm.power.shut_down(PowerdownRequest(0, 0.05, reboot=True, force=True))
    await until(lambda: "reset" in world.hypervisor.calls)
    assert world.hypervisor.calls[-2:] == ["ask_reboot", "reset"]
    assert vm.status.reported == "RebootInProgress"


async def test_four_start_at_once(world: World) -> None:
    go = asyncio.Event()

    async def wait(_vm_id: str) -> None:
        await go.wait()

    world.hypervisor.before["launch"] = wait
    vms = [await world.vms.create(vm_id, xml_of(vm_id)) for vm_id in (new_id() for _ in range(6))]
    await asyncio.sleep(0.1)
    assert world.hypervisor.calls.count("launch") == 4
    go.set()
    await until(lambda: all(vm.status.reported == "Up" for vm in vms))


async def test_a_shared_image_is_torn_down_with_its_last_user(world: World) -> None:
    other = new_id()
    await up(world)
    await world.vms.create(other, xml_of(other, disks=[disk()]))
    await until(lambda: world.vms.get(other).status.reported == "Up")
    await world.vms.destroy(VM)
    assert world.storage.prepared == {IMAGE}
    await world.vms.destroy(other)
    assert world.storage.prepared == set()


async def test_wrong_input_changes_nothing(world: World) -> None:
    for xml in ("", "<domain", "x" * 100, xml_of(disks=[disk(image="../x")])):
        with pytest.raises(InvalidParameter, match="'xml'"):
            await world.vms.create(VM, xml)
    with pytest.raises(VmIdDiffers, match="vmID"):
        await world.vms.create(new_id(), xml_of())
    with pytest.raises(NoSuchVm):
        world.vms.get(VM)
    assert world.records() == []


async def test_a_vm_exists_once(world: World) -> None:
    await up(world)
    with pytest.raises(VmExists, match="Up"):
        await world.vms.create(VM, xml_of())


async def test_destroy_on_reboot_ends_with_its_reason(world: World) -> None:
    vm = await up(world, xml_of(more="<on_reboot>destroy</on_reboot>"))
    world.hypervisor.tell(VM, Change.REBOOTED)
    await until(lambda: vm.status.down)
    assert [d["exitReason"] for d in world.events.downs()] == [13]


async def test_a_vm_of_an_older_engine_starts_paused(world: World) -> None:
    vm = await up(world, xml_of(disks=[disk()], metadata="<launchPaused>true</launchPaused>"))
    assert vm.status.reported == "Paused"


async def test_a_vm_with_a_direct_lun_starts_and_tells_of_it(world: World) -> None:
    lun = (
        "<disk type='block' device='lun'><source dev='/dev/mapper/3600140'/><target dev='sda'/></disk>",
        "<ovirt-vm:device devtype='disk' name='sda'><ovirt-vm:GUID>3600140</ovirt-vm:GUID>"
        "<ovirt-vm:imageID>3600140</ovirt-vm:imageID></ovirt-vm:device>",
    )
    await up(world, xml_of(disks=[lun]))
    assert world.storage.calls == []
    assert "/dev/mapper/3600140" in world.hypervisor.found[VM].xml


async def test_a_start_is_given_up_before_the_hooks_of_its_destroy_run(world: World) -> None:
    running, killed = asyncio.Event(), asyncio.Event()

    async def start_script(xml: str) -> str:
        running.set()
        try:
            await asyncio.sleep(60)
        finally:
            killed.set()
        return xml

    async def destroy_script(xml: str) -> str:
        async with asyncio.timeout(2):
            await killed.wait()
        return xml

    world.hooks.scripts |= {"before_vm_start": start_script, "before_vm_destroy": destroy_script}
    await world.vms.create(VM, xml_of())
    await running.wait()
    await world.vms.destroy(VM)
    assert world.hooks.ran == ["before_vm_start", "before_vm_destroy", "after_vm_destroy"]


async def test_a_defect_after_the_start_ends_no_running_vm(world: World) -> None:
    async def script(xml: str) -> str:
        raise ValueError("a defect")

    world.hooks.scripts["after_vm_start"] = script
    vm = await up(world)
    await until(lambda: "after_vm_start" in world.hooks.ran)
    await settle()
    assert vm.status.reported == "Up"
    assert world.hypervisor.calls == ["define", "launch"]
