# SPDX-License-Identifier: GPL-2.0-or-later
"""What a new agent makes of what a killed one left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import Recovering
from vdsm.virt.hypervisor import Change, Domain, DomainState, Reconnected

from .fakes import IMAGE, VM, FakeDomain, World, disk, new_id, settle, until, xml_of

Images = list[tuple[str, str, str, str]]


async def up(world: World) -> None:
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up" and "after_vm_start" in world.hooks.ran)


async def test_a_running_vm_is_taken_over(world: World) -> None:
    await up(world)
    world.storage.prepared.clear()
    await world.restart()
    assert world.vms.stats(VM)["status"] == "Up"
    assert world.storage.prepared == {IMAGE}
    assert world.hypervisor.calls == ["define", "launch"]
    assert world.hooks.ran.count("after_vm_start") == 1


async def test_a_vm_that_died_meanwhile_is_down_once(world: World) -> None:
    await up(world)
    world.hypervisor.found[VM] = FakeDomain(world.hypervisor.found[VM].xml, DomainState.OFF, "crashed")
    await world.restart()
    await until(lambda: world.vms.get(VM).status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(1, 2)]
    assert world.storage.prepared == set()
    await world.restart()
    assert world.vms.stats(VM)["exitReason"] == 2
    assert world.events.downs() == []


async def test_a_vm_that_somebody_destroyed_meanwhile_ended_in_order(world: World) -> None:
    await up(world)
    world.hypervisor.found[VM] = FakeDomain(world.hypervisor.found[VM].xml, DomainState.OFF, "destroyed")
    await world.restart()
    await until(lambda: world.vms.get(VM).status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(0, 6)]


async def test_a_vm_that_vanished_is_reported(world: World) -> None:
    await up(world)
    world.hypervisor.found.clear()
    await world.restart()
    await until(lambda: world.vms.get(VM).status.down)
    assert world.vms.stats(VM)["exitReason"] == 9
    assert world.storage.prepared == set()


async def test_a_start_that_the_agents_end_interrupted_is_down_with_a_reason(world: World) -> None:
    running = world.hooks.hang("before_vm_start")
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await running.wait()
    await world.restart()
    await until(lambda: world.vms.get(VM).status.down)
    (down,) = world.events.downs()
    assert "ended while it was starting" in down["exitMessage"]
    assert world.storage.prepared == set()
    assert world.hypervisor.calls == []


async def test_foreign_domains_are_left_alone(world: World) -> None:
    foreign = FakeDomain(f"<domain><name>other</name><uuid>{VM}</uuid></domain>", DomainState.RUNNING)
    world.hypervisor.found[VM] = foreign
    await world.restart()
    assert world.vms.all() == []
    assert world.hypervisor.found == {VM: foreign}
    assert world.hypervisor.calls == []


async def test_a_foreign_domain_of_the_same_uuid_is_not_touched_by_create(world: World) -> None:
    foreign = FakeDomain(f"<domain><name>other</name><uuid>{VM}</uuid></domain>", DomainState.RUNNING)
    world.hypervisor.found[VM] = foreign
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.down)
    assert "not the agent's" in world.events.downs()[0]["exitMessage"]
    assert world.hypervisor.found == {VM: foreign}


async def test_what_cannot_be_read_is_told_and_not_destroyed(world: World) -> None:
    await up(world)
    world.hypervisor.found[VM].xml = "<domain"
    await world.restart()
    assert world.vms.stats(VM)["status"] == "Up"
    assert VM in world.vms.problems
    assert world.hypervisor.found[VM].state is DomainState.RUNNING


async def test_an_unreadable_record_is_kept_and_its_vm_taken_over(world: World) -> None:
    await up(world)
    path = Path(world.paths.state, "vms", f"{VM}.json")
    path.write_text("{broken")
    await world.restart()
    assert world.vms.stats(VM)["status"] == "Up"
    assert VM in world.vms.problems
    assert path.read_text() == "{broken"


async def test_a_lost_record_is_rebuilt_from_metadata(world: World) -> None:
    await up(world)
    Path(world.paths.state, "vms", f"{VM}.json").unlink()
    await world.restart()
    await world.vms.destroy(VM)
    assert world.storage.prepared == set()
    assert world.hypervisor.found == {}


async def test_verbs_wait_for_the_recovery(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(Recovering):
        world.vms.all()


async def test_vms_are_told_again_when_libvirt_comes_back(world: World) -> None:
    await up(world)
    world.events.told.clear()
    world.hypervisor.hear(Reconnected())
    await until(lambda: world.events.statuses() == ["Up"])
    del world.hypervisor.found[VM]
    world.hypervisor.hear(Reconnected())
    await until(lambda: len(world.events.downs()) == 1)


async def test_an_image_that_a_running_vm_shares_survives_the_release_of_another(world: World) -> None:
    dead, *running = sorted(new_id() for _ in range(7))
    shared_id = new_id()
    shared = disk("vdb", shared_id)
    for vm_id in (dead, *running):
        own = disk("vda", new_id())
        await world.vms.create(vm_id, xml_of(vm_id, disks=[own, shared] if vm_id in (dead, running[-1]) else [own]))
    await until(lambda: all(stats["status"] == "Up" for stats in world.vms.all_stats()))
    world.hypervisor.found[dead].state = DomainState.OFF
    go, real = asyncio.Event(), world.storage.resume_prepared

    async def slow(images: Images, *, consumer: str) -> Images:
        await go.wait()
        return await real(images, consumer=consumer)

    world.storage.resume_prepared = slow  # type: ignore[method-assign]
    restarting = asyncio.create_task(world.restart())
    await until(lambda: "after_vm_destroy" in world.hooks.ran)  # the dead one is released before the others are there
    go.set()
    await restarting
    assert shared_id in world.storage.prepared
    assert len(world.storage.prepared) == 1 + len(running)


async def test_a_qemu_that_died_at_its_start_is_down_before_the_hook_ends(world: World) -> None:
    real = world.hypervisor.launch

    async def launch(vm_id: str, flags: int) -> Domain:
        domain = await real(vm_id, flags)
        world.hypervisor.found[vm_id].state = DomainState.OFF
        world.hypervisor.tell(vm_id, Change.CRASHED)
        return domain

    hold = asyncio.Event()

    async def script(xml: str) -> str:
        await hold.wait()
        return xml

    world.hypervisor.launch = launch  # type: ignore[method-assign]
    world.hooks.scripts["after_vm_start"] = script
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.down)
    assert not hold.is_set()


async def interrupted(world: World, point: str) -> asyncio.Task[None]:
    """A destroy that hangs in the hook or call ``point``; the next one does not."""
    reached = asyncio.Event()

    async def hang(xml: str) -> str:
        world.hooks.scripts.pop(point, None)
        world.hypervisor.before.pop(point, None)
        reached.set()
        await asyncio.sleep(60)
        return xml

    async def hang_call(vm_id: str) -> None:
        await hang(vm_id)

    world.hooks.scripts[point] = hang
    world.hypervisor.before[point] = hang_call
    destroying = asyncio.create_task(world.vms.destroy(VM))
    await reached.wait()
    return destroying


@pytest.mark.parametrize("point", ["terminate", "undefine", "after_vm_destroy"])
async def test_a_destroy_that_the_agents_end_interrupted_is_finished_and_forgotten(world: World, point: str) -> None:
    await up(world)
    destroying = await interrupted(world, point)
    await world.restart()
    await until(lambda: world.vms.all() == [])
    await asyncio.wait([destroying])
    assert world.hypervisor.found == {}
    assert world.storage.prepared == set()
    assert world.records() == []


async def test_an_end_that_the_agents_end_interrupted_keeps_its_reason(world: World) -> None:
    await up(world)
    reached = world.hooks.hang("after_vm_destroy")
    world.hypervisor.guest_ends(VM)
    await reached.wait()
    world.hooks.scripts.clear()
    await world.restart()
    await until(lambda: world.vms.get(VM).status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(0, 7)]


async def test_a_vm_that_was_launched_as_the_agent_ended_gets_its_hook(world: World) -> None:
    launched, real = asyncio.Event(), world.hypervisor.launch

    async def launch(vm_id: str, flags: int) -> Domain:
        await real(vm_id, flags)
        launched.set()
        await asyncio.sleep(60)
        raise AssertionError

    world.hypervisor.launch = launch  # type: ignore[method-assign]
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await launched.wait()
    await world.restart()
    assert world.vms.stats(VM)["status"] == "Up"
    await until(lambda: world.hooks.ran.count("after_vm_start") == 1)


async def test_a_domain_that_cannot_be_read_and_is_off_is_nobodys(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.hypervisor.found[VM] = FakeDomain("<domain", DomainState.OFF)
    await world.restart()
    assert world.vms.all() == []
    assert f"domain {VM} (unreadable) can't be understood and is left alone: " in caplog.text
    assert VM in world.hypervisor.found
    world.hypervisor.found[VM].state = DomainState.RUNNING
    await world.restart()
    assert world.vms.stats(VM)["status"] == "Up"


async def test_images_of_a_running_vm_that_nobody_has_on_record_are_prepared_again_once_storage_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdsm.virt.recover.STORAGE_RETRY_FIRST_S", 0.01)
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: world.vms.get(VM).status.reported == "Up")
    world.storage.users.clear()
    world.storage.calls.clear()
    world.storage.fails[IMAGE] = DeadlineExceeded("prepare", 30)
    await world.restart()
    assert world.vms.stats(VM)["status"] == "Up"
    await until(lambda: world.storage.calls.count(f"prepare {IMAGE}") >= 2)
    world.storage.fails.clear()
    await asyncio.sleep(0.1)
    calls = len(world.storage.calls)
    await asyncio.sleep(0.1)
    assert len(world.storage.calls) == calls


async def test_images_that_are_on_record_are_not_prepared_again(world: World) -> None:
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: world.vms.get(VM).status.reported == "Up")
    world.storage.calls.clear()
    await world.restart()
    await settle()
    assert world.storage.calls == []
