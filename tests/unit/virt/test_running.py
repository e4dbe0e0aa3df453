# SPDX-License-Identifier: GPL-2.0-or-later
"""Pause and resume that meet, also from inside each other's hooks: an answer is true, and nobody waits for himself."""

from __future__ import annotations

import asyncio

import pytest

from vdsm.virt.errors import CalledBack, HypervisorError, Superseded, VmIsDown
from vdsm.virt.hypervisor import DiskTrouble, DomainState
from vdsm.virt.vm import Vm

from .fakes import VM, World, disk, refuse, settle, until, xml_of


async def up(world: World, metadata: str = "") -> Vm:
    vm = await world.vms.create(VM, xml_of(disks=[disk()], metadata=metadata))
    await until(lambda: vm.status.reported == "Up")
    await settle()
    return vm


def paused(world: World) -> bool:
    return world.hypervisor.found[VM].state is DomainState.PAUSED


async def test_a_pause_during_the_hook_of_a_resume_wins_and_the_resume_says_so(world: World) -> None:
    vm = await up(world)
    await vm.running.pause()
    go = asyncio.Event()

    async def script(xml: str) -> str:
        await go.wait()
        return xml

    world.hooks.scripts["before_vm_cont"] = script
    resuming = asyncio.create_task(vm.running.cont())
    await settle()
    await vm.running.pause()
    go.set()
    with pytest.raises(Superseded, match="resume was overtaken by pause"):
        await resuming
    assert paused(world)
    assert vm.status.reported == "Paused"


async def test_a_resume_during_the_hook_of_a_pause_wins(world: World) -> None:
    vm = await up(world)
    go = asyncio.Event()

    async def script(xml: str) -> str:
        await go.wait()
        return xml

    world.hooks.scripts["before_vm_pause"] = script
    pausing = asyncio.create_task(vm.running.pause())
    await settle()
    await vm.running.cont()
    go.set()
    with pytest.raises(Superseded, match="pause was overtaken by resume"):
        await pausing
    assert not paused(world)


async def test_two_resumes_at_once_are_both_done(world: World) -> None:
    vm = await up(world)
    await vm.running.pause()

    async def refuse_what_runs(_vm_id: str) -> None:
        if not paused(world):
            raise HypervisorError("resume the domain", 55, "domain is already running")

    world.hypervisor.before["resume"] = refuse_what_runs
    await asyncio.gather(vm.running.cont(), vm.running.cont())
    assert world.hypervisor.calls.count("resume") == 2
    assert vm.status.reported == "Up"


async def test_a_resume_that_libvirt_refuses_is_no_success(world: World) -> None:
    vm = await up(world)
    await vm.running.pause()
    world.hypervisor.before["resume"] = refuse("no")
    with pytest.raises(HypervisorError):
        await vm.running.cont()


async def test_a_hook_may_destroy_its_own_vm(world: World) -> None:
    vm = await up(world)
    await vm.running.pause()

    async def script(xml: str) -> str:
        await world.vms.destroy(VM)
        return xml

    world.hooks.scripts["before_vm_cont"] = script
    with pytest.raises(VmIsDown):
        await vm.running.cont()
    assert world.vms.all() == []
    assert "resume" not in world.hypervisor.calls


async def test_the_same_verb_from_inside_its_own_hook_is_refused(world: World) -> None:
    vm = await up(world)

    async def script(xml: str) -> str:
        with pytest.raises(CalledBack):
            await vm.running.pause()
        return xml

    world.hooks.scripts["before_vm_pause"] = script
    await vm.running.pause()
    assert paused(world)


async def test_a_failing_before_vm_pause_leaves_it_running(world: World) -> None:
    vm = await up(world)

    async def script(xml: str) -> str:
        raise VmIsDown(VM, "as a test")

    world.hooks.scripts["before_vm_pause"] = script
    with pytest.raises(VmIsDown):
        await vm.running.pause()
    assert not paused(world)


async def test_hooks_after_pause_and_cont_run_in_their_order(world: World) -> None:
    vm = await up(world)
    await vm.running.pause()
    await vm.running.cont()
    await until(lambda: "after_vm_cont" in world.hooks.ran)
    assert [point for point in world.hooks.ran if point.endswith(("_pause", "_cont"))] == [
        "before_vm_pause",
        "after_vm_pause",
        "before_vm_cont",
        "after_vm_cont",
    ]


async def test_a_hung_hook_behind_an_event_delays_no_event(world: World) -> None:
    vm = await up(world)
    running = world.hooks.hang("after_vm_pause")
    await vm.running.pause()
    await running.wait()
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)


async def test_a_start_as_paused_is_continued_by_its_own_hook(world: World) -> None:
    async def script(xml: str) -> str:
        vm = world.vms.get(VM)
        assert paused(world)
        assert vm.status.reported == "WaitForLaunch"
        await vm.running.cont()
        return xml

    world.hooks.scripts["after_vm_start"] = script
    metadata = "<ovirt-vm:launchPaused>true</ovirt-vm:launchPaused>"
    vm = await up(world, metadata)
    assert not paused(world)
    assert vm.status.reported == "Up"
    assert world.events.statuses() == ["Up"]


async def test_a_hook_after_the_start_that_resumes_a_running_vm_changes_nothing(world: World) -> None:
    async def script(xml: str) -> str:
        await world.vms.get(VM).running.cont()
        return xml

    world.hooks.scripts["after_vm_start"] = script
    await up(world)
    assert "resume" not in world.hypervisor.calls


async def test_up_is_told_when_the_hook_after_the_start_has_ended(world: World) -> None:
    running = world.hooks.hang("after_vm_start")
    vm = await world.vms.create(VM, xml_of())
    await running.wait()
    await settle()
    assert vm.status.reported == "WaitForLaunch"
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.ending.begun)
    await until(lambda: vm.status.down)
    assert world.events.statuses()[-1] == "Down"


async def test_a_pause_of_a_vm_that_a_disk_has_stopped_makes_it_stay(world: World) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.PAUSED, "ioerror"
    world.hypervisor.hear(DiskTrouble(VM, "ua-1", "/x", "enospc"))
    await until(lambda: vm.status.pause_code == "ENOSPC")
    await vm.running.pause()
    assert vm.status.pause_code == "NOERR"
    await vm.resume_behaviour.storage_is_back()
    assert paused(world)
    assert "pause" not in world.hypervisor.calls


async def test_a_resume_is_not_done_because_an_event_is_late(world: World) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state = DomainState.PAUSED  # by somebody, and nobody told yet
    await vm.running.cont()
    assert world.hypervisor.found[VM].state is DomainState.RUNNING


async def test_a_pause_is_not_done_because_an_event_is_late(world: World) -> None:
    vm = await up(world)
    await vm.running.pause()
    world.hypervisor.found[VM].state = DomainState.RUNNING
    await vm.running.pause()
    assert world.hypervisor.found[VM].state is DomainState.PAUSED
