# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a VM, step by step: what fails it, what it goes past, when it is tried again, and what the log says."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vdsm.common.errors import AgentError, DeadlineExceeded
from vdsm.virt import ending
from vdsm.virt.errors import DestroyFailed, DomainMissing
from vdsm.virt.hypervisor import Change, Domain, DomainState
from vdsm.virt.qemu_process import QemuProcess
from vdsm.virt.records import Phase
from vdsm.virt.vm import Vm

from .fakes import IMAGE, VM, FakeDomain, World, disk, new_id, refuse, settle, until, xml_of


class Broken(AgentError):
    msg = "broken on purpose"


async def broken(_xml: str) -> str:
    raise Broken()


async def up(world: World, **xml: str) -> Vm:
    vm = await world.vms.create(VM, xml_of(disks=[disk()], **xml))  # type: ignore[arg-type]
    await until(lambda: vm.status.stored == "Up" and "after_vm_start" in world.hooks.ran)
    await settle()
    return vm


def asked(world: World) -> list[str]:
    return [call for call in world.hypervisor.calls if call not in ("define", "launch")]


# What fails it


@pytest.mark.parametrize("error", ["refused", "late"])
async def test_a_definition_that_libvirt_does_not_let_go_of_fails_the_end_with_libvirts_words(
    world: World, error: str
) -> None:
    vm = await up(world)

    async def late(_vm_id: str) -> None:
        raise DeadlineExceeded("libvirt: undefine", 60)

    world.hypervisor.before["undefine"] = refuse("it is used") if error == "refused" else late
    told = "it is used" if error == "refused" else "undefine did not end within 60 s"
    with pytest.raises(DestroyFailed, match=f"VM {VM} could not be stopped: .*{told}"):
        await world.vms.destroy(VM)
    assert vm.status.reported == "Powering down"
    assert world.storage.prepared == {IMAGE}
    assert "after_vm_destroy" not in world.hooks.ran


async def test_a_domain_that_comes_back_again_and_again_fails_the_end(world: World) -> None:
    await up(world)

    async def stays(_vm_id: str) -> None:
        world.hypervisor.calls.append("undefine")

    world.hypervisor.undefine = stays  # type: ignore[method-assign]
    with pytest.raises(DestroyFailed, match="libvirt still has the domain"):
        await world.vms.destroy(VM)
    assert asked(world).count("undefine") == 4
    assert world.storage.prepared == {IMAGE}


async def test_a_domain_that_a_late_start_brought_back_is_ended_as_well(world: World) -> None:
    await up(world)
    real, back = world.hypervisor.undefine, [True]

    async def undefine(vm_id: str) -> None:
        old = world.hypervisor.found[vm_id]
        await real(vm_id)
        if back:
            back.clear()
            world.hypervisor.found[vm_id] = FakeDomain(old.xml, DomainState.RUNNING)

    world.hypervisor.undefine = undefine  # type: ignore[method-assign]
    await world.vms.destroy(VM)
    assert world.hypervisor.found == {}
    assert asked(world) == ["terminate", "undefine", "terminate", "undefine"]


# How QEMU is stopped


async def test_a_term_signal_that_is_late_but_worked_needs_no_kill(world: World) -> None:
    await up(world)

    async def late(vm_id: str) -> None:
        world.hypervisor.found[vm_id].state = DomainState.OFF
        raise DeadlineExceeded("libvirt: end QEMU by SIGTERM", 60)

    world.hypervisor.before["terminate"] = late
    await world.vms.destroy(VM)
    assert "kill" not in asked(world)


async def test_a_term_signal_without_effect_is_in_the_log_and_a_kill_follows(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await up(world)
    world.hypervisor.before["terminate"] = refuse("not now")
    await world.vms.destroy(VM)
    assert asked(world) == ["terminate", "kill", "undefine"]
    assert f"VM {VM}: QEMU did not end by SIGTERM: libvirt failed to do it: not now" in caplog.text


async def test_a_kill_that_libvirt_refuses_because_it_ended_is_none(world: World) -> None:
    await up(world)

    async def ended(vm_id: str) -> None:
        world.hypervisor.found[vm_id].state = DomainState.OFF
        await refuse("not running")(vm_id)

    world.hypervisor.before["kill"] = ended
    await world.vms.destroy(VM, graceful_attempts=0)
    assert world.hypervisor.found == {}


async def test_a_domain_that_vanishes_meanwhile_is_gone(world: World) -> None:
    await up(world)

    async def vanishes(vm_id: str) -> None:
        del world.hypervisor.found[vm_id]
        raise DomainMissing(vm_id)

    world.hypervisor.before["terminate"] = vanishes
    await world.vms.destroy(VM)
    assert world.storage.prepared == set()


async def test_a_domain_that_is_off_is_not_stopped(world: World) -> None:
    vm = await up(world)
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    assert asked(world) == ["undefine"]


# What it goes past


async def test_a_hook_that_fails_ends_no_end(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await up(world)
    world.hooks.scripts["before_vm_destroy"] = world.hooks.scripts["after_vm_destroy"] = broken
    await world.vms.destroy(VM)
    assert world.vms.all() == []
    for point in ("before_vm_destroy", "after_vm_destroy"):
        assert f"VM {VM}: {point}: broken on purpose" in caplog.text


async def test_hooks_of_the_end_get_the_running_vms_xml_and_its_properties(world: World) -> None:
    given: dict[str, str] = {}

    def script(point: str) -> None:
        async def keep(xml: str) -> str:
            given[point] = xml
            return xml

        world.hooks.scripts[point] = keep

    await up(world, metadata="<ovirt-vm:custom><ovirt-vm:color>blue</ovirt-vm:color></ovirt-vm:custom>")
    live = world.hypervisor.found[VM].xml
    for point in ("before_vm_destroy", "after_vm_destroy"):
        script(point)
    await world.vms.destroy(VM)
    assert given == {"before_vm_destroy": live, "after_vm_destroy": live}
    assert {(vm.vm_id, vm.custom["color"]) for vm in world.hooks.vms} == {(VM, "blue")}


async def test_the_folder_of_the_vm_goes(world: World) -> None:
    await up(world)
    folder = Path(world.paths.run, VM)
    assert folder.is_dir()
    await world.vms.destroy(VM)
    assert not folder.exists()


async def test_a_foreign_domain_with_its_id_is_left_and_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await up(world)
    xml = f"<domain><name>theirs</name><uuid>{VM}</uuid></domain>"
    world.hypervisor.found[VM] = FakeDomain(xml, DomainState.RUNNING)
    await world.vms.destroy(VM)
    assert f"VM {VM}: domain 'theirs' has its uuid but is not ours: left alone" in caplog.text


async def test_a_saved_memory_is_kept_until_the_engine_forgets_the_vm(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.OFF, "saved"
    world.hypervisor.tell(VM, Change.SAVED)
    await until(lambda: vm.status.down)
    assert f"VM {VM}: libvirt saved its memory: its definition and that state stay" in caplog.text
    assert VM in world.hypervisor.found


async def test_a_saved_memory_goes_when_the_engine_asked_for_the_end(world: World) -> None:
    await up(world)
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.OFF, "saved"
    await world.vms.destroy(VM)
    assert world.hypervisor.found == {}


async def test_the_steps_of_an_end_are_in_the_log_with_their_times(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vdsm.clock")
    await up(world)
    await world.vms.destroy(VM)
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("VM.release")]
    words = line.split()
    assert words[1] == VM
    assert [word for word in words if word in ("qemu", "teardown", "after_vm_destroy")] == [
        "qemu",
        "teardown",
        "after_vm_destroy",
    ]


# Tried again


@pytest.fixture
async def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[World, Vm]]:
    """A VM whose end has failed, with nothing that tries it again but the test."""
    world = World(tmp_path)
    await world.vms.start()
    vm = await up(world)
    world.hypervisor.before["kill"] = world.hypervisor.before["terminate"] = refuse("it hangs")
    with pytest.raises(DestroyFailed):
        await world.vms.destroy(VM)
    yield world, vm
    await world.vms.stop()


async def test_a_failed_end_is_tried_again_after_longer_and_longer_pauses(
    stuck: tuple[World, Vm], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, vm = stuck
    now = time.monotonic()
    began, tries = now, []
    monkeypatch.setattr(ending.time, "monotonic", lambda: now)  # type: ignore[attr-defined]
    for _ in range(50):
        calls = asked(world).count("kill")
        vm.ending.retry()
        await settle()
        if asked(world).count("kill") > calls:
            tries.append(round(now - began))
        now += 15
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert tries[0] == 15
    assert pauses == [30, 60, 120, 240, 240]


async def test_a_failed_end_is_tried_again_at_once_when_its_qemu_has_ended(
    stuck: tuple[World, Vm], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, vm = stuck
    lives = True
    monkeypatch.setattr(ending.qemu_process, "lives", lambda _process: lives)
    await vm.change(process=QemuProcess(1 << 30, 19))
    world.hypervisor.before.clear()
    vm.ending.retry()
    await settle()
    assert vm.ending.failed
    lives = False
    vm.ending.retry()
    await until(lambda: vm.status.down)


async def test_an_end_that_runs_or_is_over_is_not_tried_again(stuck: tuple[World, Vm]) -> None:
    world, vm = stuck
    assert vm.ending.failed
    world.hypervisor.before.clear()
    hang = world.hooks.hang("after_vm_destroy")
    ending = asyncio.create_task(world.vms.destroy(VM))
    await hang.wait()
    assert not vm.ending.failed
    vm.ending.retry()
    assert world.hooks.ran.count("after_vm_destroy") == 1
    world.hooks.scripts.clear()
    ending.cancel()


async def test_a_destroy_that_failed_leaves_the_vm_listed_when_it_ends_later(stuck: tuple[World, Vm]) -> None:
    world, vm = stuck
    world.hypervisor.before.clear()
    vm.ending._next_try_s = 0.0
    await world.vms._reconciler.round()
    await until(lambda: vm.status.down)
    await settle()
    assert world.vms.stats(VM)["status"] == "Down"
    assert [down["exitReason"] for down in world.events.downs()] == [6]
    await world.vms.destroy(VM)
    assert world.vms.all() == []


async def test_a_try_is_in_the_log(stuck: tuple[World, Vm], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt")
    _world, vm = stuck
    vm.ending.retry()
    assert "tried again" not in caplog.text
    vm.ending._next_try_s = 0.0
    vm.ending.retry()
    await settle()
    assert f"VM {VM}: its release is tried again" in caplog.text
    assert f"VM {VM} is not released: VM {VM} could not be stopped" in caplog.text


async def test_a_defect_in_an_end_has_its_traceback_and_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vm = await up(world)

    async def odd(_vm_id: str) -> Domain:
        raise ValueError("odd")

    with monkeypatch.context() as patch:
        patch.setattr(world.hypervisor, "domain", odd)
        with pytest.raises(ValueError, match="odd"):
            await world.vms.destroy(VM)
    (told,) = [r for r in caplog.records if "is not released" in r.getMessage()]
    assert told.exc_info
    assert vm.ending.failed
    await world.vms.destroy(VM)
    assert world.vms.all() == []


# The round of all VMs


async def test_images_of_a_down_vm_are_torn_down_later_and_it_stays_down(world: World) -> None:
    vm = await up(world)
    real = world.storage.teardown_image

    async def busy(*_ids: str, consumer: str) -> None:
        raise OSError("busy")

    world.storage.teardown_image = busy  # type: ignore[method-assign]
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    await settle()
    await world.vms._reconciler.round()
    await settle()
    assert len(vm.record.images) == 1
    world.storage.teardown_image = real  # type: ignore[method-assign]
    await world.vms._reconciler.round()
    await settle()
    assert (vm.record.images, vm.record.phase, world.storage.prepared) == ((), Phase.DOWN, set())
    calls = list(world.storage.calls)
    await world.vms._reconciler.round()
    await settle()
    assert world.storage.calls == calls
    assert world.vms.stats(VM)["status"] == "Down"


async def test_images_of_a_vm_that_runs_are_left_to_it(world: World) -> None:
    await up(world)
    await world.vms._reconciler.round()
    await settle()
    assert world.storage.prepared == {IMAGE}


async def test_one_vm_whose_images_stay_keeps_no_other_waiting(world: World) -> None:
    other, image = new_id(), new_id()
    vm = await up(world)
    second = await world.vms.create(other, xml_of(other, disks=[disk(image=image)]))
    await until(lambda: second.status.reported == "Up")
    real = world.storage.teardown_image
    broken = {IMAGE, image}

    async def busy(pool_id: str, domain_id: str, image_id: str, *, consumer: str) -> None:
        if image_id in broken:
            raise OSError("busy")
        await real(pool_id, domain_id, image_id, consumer=consumer)

    world.storage.teardown_image = busy  # type: ignore[method-assign]
    for vm_id in (VM, other):
        world.hypervisor.guest_ends(vm_id)
    await until(lambda: vm.status.down and second.status.down)
    await settle()
    broken.discard(image)
    await world.vms._reconciler.round()
    await settle()
    assert world.storage.prepared == {IMAGE}


async def test_a_defect_in_one_round_is_told_and_the_next_one_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, reconcile_s=0.005)
    rounds = []

    async def odd() -> None:
        rounds.append(1)
        raise ValueError("odd")

    world.vms._reconciler.round = odd  # type: ignore[method-assign]
    await world.vms.start()
    await until(lambda: len(rounds) >= 3)
    await world.vms.stop()
    told = [r for r in caplog.records if r.getMessage() == "going over the VMs failed"]
    assert len(told) >= 2 and all(r.exc_info for r in told)
