# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs that a disk has paused, when their storage is back: who goes on, who waits, and what ends the waiting."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from vdsm.virt import trouble
from vdsm.virt.hypervisor import Change, DiskTrouble, DomainState
from vdsm.virt.records import Trouble
from vdsm.virt.states import PauseCode
from vdsm.virt.vm import Vm

from .fakes import DOMAIN, IMAGE, VM, VOLUME, World, disk, refuse, settle, until, xml_of
from .test_looks import LateLook

PATH = f"/rhev/{IMAGE}/{VOLUME}"


async def stopped(world: World, behaviour: str = "", reason: str = "enospc", xml: str = "") -> Vm:
    metadata = f"<ovirt-vm:resumeBehavior>{behaviour}</ovirt-vm:resumeBehavior>" if behaviour else ""
    vm = await world.vms.create(VM, xml or xml_of(disks=[disk()], metadata=metadata))
    await until(lambda: vm.status.reported == "Up")
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.PAUSED, "ioerror"
    world.hypervisor.hear(DiskTrouble(VM, "ua-1", PATH, reason))
    await until(lambda: vm.status.reported == "Paused")
    await settle()
    return vm


def waits(world: World) -> asyncio.Semaphore:
    """No VM of the host may go on until it is released."""
    slots = world.vms._parts.hook_slots
    slots._value = 0
    return slots


async def test_what_somebody_paused_while_it_waited_to_go_on_stays_paused(world: World) -> None:
    vm = await stopped(world)
    slots = waits(world)
    world.vms.storage_is_back(DOMAIN)
    await settle()
    await vm.running.pause()
    slots.release()
    await settle()
    assert "resume" not in world.hypervisor.calls
    assert (vm.status.reported, vm.status.pause_code) == ("Paused", "NOERR")


async def test_a_vm_whose_time_ran_out_while_it_waited_does_not_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stopped(world, "kill")
    slots = waits(world)
    world.vms.storage_is_back(DOMAIN)
    await settle()
    monkeypatch.setattr(trouble, "KILL_AFTER_S", 0.0)
    slots.release()
    await settle()
    assert "resume" not in world.hypervisor.calls


class Script:
    """The hook before a resume: it runs until it is told to end."""

    def __init__(self, world: World) -> None:
        self.began, self.go = asyncio.Event(), asyncio.Event()
        world.hooks.scripts["before_vm_cont"] = self._run

    async def _run(self, xml: str) -> str:
        self.began.set()
        await self.go.wait()
        return xml


@pytest.mark.parametrize("asked", ["before the resume", "while its hook runs"])
async def test_a_pause_that_is_answered_while_the_hook_of_a_resume_runs_stands(world: World, asked: str) -> None:
    vm = await stopped(world)
    script = Script(world)
    if asked == "before the resume":
        look = LateLook(world)
        pausing = asyncio.create_task(vm.running.pause())
        await look.began.wait()
        world.vms.storage_is_back(DOMAIN)
        await settle()
        look.go.set()
        await script.began.wait()
    else:
        world.vms.storage_is_back(DOMAIN)
        await script.began.wait()
        pausing = asyncio.create_task(vm.running.pause())
    await pausing
    script.go.set()
    await settle()
    assert "resume" not in world.hypervisor.calls
    assert (vm.status.reported, vm.status.pause_code) == ("Paused", "NOERR")


async def test_a_pause_that_meets_a_resume_in_libvirt_stops_the_guest_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await stopped(world)
    look, written, change = LateLook(world), asyncio.Event(), vm.change

    async def slow(**fields: Any) -> None:
        await written.wait()
        await change(**fields)

    monkeypatch.setattr(vm, "change", slow)
    pausing = asyncio.create_task(vm.running.pause())
    await look.began.wait()
    world.vms.storage_is_back(DOMAIN)
    await settle()
    look.go.set()
    await until(lambda: "resume" in world.hypervisor.calls)
    written.set()
    await pausing
    assert world.hypervisor.found[VM].state is DomainState.PAUSED
    assert vm.status.reported == "Paused"


async def test_what_a_disk_still_had_to_do_and_fails_afterwards_takes_no_pause_back(world: World) -> None:
    vm = await stopped(world)
    await vm.running.pause()
    world.hypervisor.hear(DiskTrouble(VM, "ua-1", PATH, "eio"))
    await settle()
    assert vm.status.pause_code == "NOERR"
    world.vms.storage_is_back(DOMAIN)
    await settle()
    assert "resume" not in world.hypervisor.calls


async def test_a_guest_that_stops_again_as_soon_as_it_was_let_go_on_has_the_new_trouble(world: World) -> None:
    vm = await stopped(world)
    await vm.running.pause()
    world.hypervisor.tell(VM, Change.RESUMED)  # by virsh, and nobody saw it run
    world.hypervisor.hear(DiskTrouble(VM, "ua-1", PATH, "eio"))
    await until(lambda: vm.status.pause_code == "EIO")
    world.vms.storage_is_back(DOMAIN)
    await until(lambda: vm.status.reported == "Up")


async def test_a_vm_whose_time_runs_out_while_its_hook_runs_does_not_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await stopped(world, "kill")
    script = Script(world)
    world.vms.storage_is_back(DOMAIN)
    await script.began.wait()
    monkeypatch.setattr(trouble, "KILL_AFTER_S", 0.0)
    script.go.set()
    await settle()
    assert "resume" not in world.hypervisor.calls
    assert "overtaken by its end" in caplog.text


async def test_a_vm_that_goes_on_is_in_the_log_and_one_that_can_not_with_the_reason(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt")
    vm = await stopped(world)
    world.hypervisor.before["resume"] = refuse("no lock")
    world.vms.storage_is_back(DOMAIN)
    await until(lambda: f"VM {VM} can't go on though its storage is back: " in caplog.text)
    assert "no lock" in caplog.text
    assert vm.status.reported == "Paused"
    world.hypervisor.before.clear()
    world.vms.storage_is_back(DOMAIN)
    await until(lambda: vm.status.reported == "Up")
    await settle()
    assert f"VM {VM} goes on: its storage is back" in caplog.text


async def test_a_behaviour_that_nobody_knows_lets_it_go_on(world: World) -> None:
    vm = await stopped(world, "a later word")
    world.vms.storage_is_back(DOMAIN)
    await until(lambda: vm.status.reported == "Up")


@pytest.mark.parametrize(("paused_s", "overdue"), [(79.0, False), (81.0, True)])
async def test_eighty_seconds_are_too_long(world: World, paused_s: float, overdue: bool) -> None:
    vm = await stopped(world, "kill")
    await vm.change(trouble=Trouble(PauseCode.NO_SPACE, time.monotonic() - paused_s))
    assert vm.resume_behaviour.overdue() is overdue


async def test_what_somebody_paused_is_never_overdue(world: World) -> None:
    vm = await stopped(world, "kill")
    await vm.running.pause()
    await vm.change(trouble=Trouble(PauseCode.NO_ERROR, time.monotonic() - 1000))
    assert not vm.resume_behaviour.overdue()


async def test_a_vm_that_runs_is_not_asked_to_go_on(world: World) -> None:
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up")
    await settle()
    world.vms.storage_is_back(DOMAIN)
    await settle()
    assert "before_vm_cont" not in world.hooks.ran


# Which disk it was


@pytest.mark.parametrize(("path", "name"), [(PATH, "vda"), ("/elsewhere", ""), ("", "")])
async def test_the_disk_is_named_by_its_path(world: World, path: str, name: str) -> None:
    vm = await stopped(world, xml=xml_of(disks=[disk(), ("<disk><target dev='sdc'/></disk>", "")]))
    world.hypervisor.hear(DiskTrouble(VM, "ua-2", path, "eio"))
    await until(lambda: vm.status.pause_code == "EIO")
    await settle()
    assert world.events.told[-1][1]["ioerror"] == {"alias": "ua-2", "name": name, "path": path}


async def test_trouble_without_an_alias_names_no_disk(world: World) -> None:
    vm = await stopped(world)
    world.hypervisor.hear(DiskTrouble(VM, "", PATH, "eio"))
    await until(lambda: vm.status.pause_code == "EIO")
    await settle()
    assert "ioerror" not in world.events.told[-1][1]


@pytest.mark.parametrize(("reason", "code"), [("eperm", "EPERM"), ("eother", "EOTHER"), ("eio", "EIO")])
async def test_each_error_of_qemu_has_its_code(world: World, reason: str, code: str) -> None:
    await stopped(world, reason=reason)
    assert world.events.told[-1][1]["pauseCode"] == code


@pytest.mark.parametrize(("reason", "told"), [("enospc", "enospc"), ("", "EOTHER")])
async def test_the_admin_finds_disk_and_reason_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture, reason: str, told: str
) -> None:
    await stopped(world, reason=reason)
    assert f"VM {VM} is paused: disk ua-1 ({PATH}): {told}" in caplog.text


async def test_an_error_that_the_guest_was_told_of_is_in_the_log_and_pauses_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up")
    world.hypervisor.hear(DiskTrouble(VM, "ua-1", PATH, "eio", paused=False))
    await settle()
    assert f"VM {VM}: disk ua-1 ({PATH}): eio, told to the guest" in caplog.text
    assert vm.record.trouble is None


@pytest.mark.parametrize("error", ["refused", "unknown word"])
async def test_a_stop_that_libvirt_can_not_explain_is_other(
    world: World, caplog: pytest.LogCaptureFixture, error: str
) -> None:
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up")
    await world.vms.stop()
    found = world.hypervisor.found[VM]
    found.state, found.reason, found.disk_errors = DomainState.PAUSED, "ioerror", {"vda": "odd"}
    if error == "refused":
        world.hypervisor.before["disk_errors"] = refuse("it hangs")
    world.vms = world.new_vms()
    await world.vms.start()
    assert world.vms.stats(VM)["pauseCode"] == "EOTHER"
    assert ("which disk paused it" in caplog.text) is (error == "refused")


async def test_what_was_heard_is_not_asked_for_again(world: World) -> None:
    await stopped(world)
    await world.restart()
    assert "disk_errors" not in world.hypervisor.calls


async def test_trouble_is_over_when_the_guest_runs(world: World) -> None:
    vm = await stopped(world)
    await vm.running.cont()
    await settle()
    assert vm.record.trouble is None
    await world.restart()
    assert "pauseCode" not in world.vms.stats(VM)
