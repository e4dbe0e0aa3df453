# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends that meet trouble: QEMU that can't be killed, images that stay, starts that hang, a host that goes down."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vdsm.common.errors import CommandNotFound, DeadlineExceeded
from vdsm.virt import qemu_process, release
from vdsm.virt.errors import DestroyFailed, VmIsDown
from vdsm.virt.host_shutdown import HostShutdown, is_going_down
from vdsm.virt.hypervisor import DomainState, Reconnected
from vdsm.virt.qemu_process import QemuProcess
from vdsm.virt.records import Phase
from vdsm.virt.vm import Vm

from .fakes import VM, FakeDomain, World, disk, refuse, settle, until, xml_of

CONNECTED = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("vdsm.virt.ending.RETRY_FIRST_S", 0.02)
    monkeypatch.setattr(release, "GONE_S", 0.05)
    world = World(tmp_path, reconcile_s=0.02)
    await world.vms.start()
    yield world
    await world.vms.stop()


async def up(world: World, devices: str = "") -> Vm:
    vm = await world.vms.create(VM, xml_of(disks=[disk()], devices=devices))
    await until(lambda: vm.status.stored == "Up")
    await settle()
    return vm


async def test_down_is_told_when_the_process_is_gone_not_when_libvirt_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as qemu:
        vm = await up(world)
        world.processes[VM] = QemuProcess(qemu.pid, _started(qemu.pid))
        with pytest.raises(DestroyFailed, match=f"process {qemu.pid}"):
            await world.vms.destroy(VM)
        assert vm.status.reported == "Powering down"
        assert world.storage.prepared
        assert world.events.downs() == []
        qemu.kill()
        qemu.wait()
    await until(lambda: vm.status.down)
    assert world.storage.prepared == set()
    assert len(world.events.downs()) == 1


async def test_a_destroy_that_failed_is_down_later_and_told_once_also_by_the_next_agent(world: World) -> None:
    vm = await up(world)
    world.hypervisor.before["kill"] = world.hypervisor.before["terminate"] = refuse("it hangs")
    with pytest.raises(DestroyFailed):
        await world.vms.destroy(VM)
    world.hypervisor.before.clear()
    await until(lambda: vm.status.down)
    await settle()
    assert len(world.events.downs()) == 1
    await world.restart()
    assert world.vms.stats(VM)["status"] == "Down"
    assert world.events.downs() == []
    await world.vms.destroy(VM)
    assert world.records() == []


async def test_an_end_that_failed_is_tried_again_by_itself(world: World) -> None:
    vm = await up(world)
    world.hypervisor.before["kill"] = world.hypervisor.before["terminate"] = refuse("it hangs")
    with pytest.raises(DestroyFailed):
        await world.vms.destroy(VM)
    assert vm.status.reported == "Powering down"
    world.hypervisor.before.clear()
    await until(lambda: vm.status.down)
    assert world.storage.prepared == set()
    assert len(world.events.downs()) == 1


async def test_a_vm_whose_destroy_failed_is_down_later_and_not_told_again_after_a_restart(world: World) -> None:
    vm = await up(world)
    world.hypervisor.before["kill"] = world.hypervisor.before["terminate"] = refuse("it hangs")
    with pytest.raises(DestroyFailed):
        await world.vms.destroy(VM)
    world.hypervisor.before.clear()
    world.hypervisor.guest_ends(VM)
    vm.ending._next_try_s = 0.0
    await until(lambda: vm.record.told)
    await world.restart()
    assert world.vms.stats(VM)["status"] == "Down"
    await settle()
    assert world.events.told == []
    await world.vms.destroy(VM)
    assert (world.vms.all(), world.records()) == ([], [])


async def test_images_that_stayed_prepared_are_torn_down_later_although_the_engine_let_the_vm_go(world: World) -> None:
    await up(world)
    real = world.storage.teardown_image

    async def hangs(*_ids: str, consumer: str) -> None:
        raise DeadlineExceeded("teardown", 30)

    world.storage.teardown_image = hangs  # type: ignore[method-assign]
    await world.vms.destroy(VM)
    assert world.vms.all() == []
    assert world.storage.prepared
    await world.restart()
    assert world.vms.all() == []
    world.storage.teardown_image = real  # type: ignore[method-assign]
    await until(lambda: world.records() == [])
    assert world.storage.prepared == set()


async def test_images_left_by_an_earlier_run_go_with_the_next_end_of_the_vm(world: World) -> None:
    await up(world)
    real = world.storage.teardown_image

    async def hangs(*_ids: str, consumer: str) -> None:
        raise DeadlineExceeded("teardown", 30)

    world.storage.teardown_image = hangs  # type: ignore[method-assign]
    await world.vms.destroy(VM)
    vm = await world.vms.create(VM, xml_of())
    assert vm.record.phase is Phase.STARTING and len(vm.record.images) == 1
    await until(lambda: vm.status.reported == "Up")
    world.storage.teardown_image = real  # type: ignore[method-assign]
    await world.vms.destroy(VM)
    assert world.storage.prepared == set()


async def test_a_destroy_that_fails_when_its_caller_has_left_is_no_lost_exception(world: World) -> None:
    lost: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: lost.append(context["message"]))
    await up(world)
    world.hypervisor.before["kill"] = world.hypervisor.before["terminate"] = refuse("it hangs")
    running, go = asyncio.Event(), asyncio.Event()

    async def script(xml: str) -> str:
        running.set()
        await go.wait()
        return xml

    world.hooks.scripts["before_vm_destroy"] = script
    destroying = asyncio.create_task(world.vms.destroy(VM))
    await running.wait()
    destroying.cancel()
    await asyncio.wait([destroying])
    go.set()
    await settle()
    gc.collect()
    assert world.vms.stats(VM)["status"] == "Powering down"
    assert lost == []


async def test_two_destroys_are_one(world: World) -> None:
    await up(world)
    running = world.hooks.hang("before_vm_destroy")
    first = asyncio.create_task(world.vms.destroy(VM))
    await running.wait()
    second = asyncio.create_task(world.vms.destroy(VM))
    await settle()
    assert world.hooks.ran.count("before_vm_destroy") == 1
    for task in (first, second):
        task.cancel()


async def test_a_destroy_while_the_vm_is_being_accepted_leaves_nothing(world: World) -> None:
    creating = asyncio.create_task(world.vms.create(VM, xml_of(disks=[disk()])))
    await until(lambda: VM in world.vms._vms)
    await world.vms.destroy(VM)
    await creating
    await settle()
    assert (world.vms.all(), world.records(), world.storage.prepared) == ([], [], set())
    assert "launch" not in world.hypervisor.calls


async def test_a_destroy_of_a_launch_that_hangs_kills_its_qemu(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vdsm.virt.ending._START_HANGS_S", 0.01)
    killed = asyncio.Event()

    async def hangs(_vm_id: str) -> None:
        await killed.wait()

    async def kill(_vm_id: str) -> None:
        killed.set()

    world.hypervisor.before.update(launch=hangs, kill=kill)
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: "launch" in world.hypervisor.calls)
    await world.vms.destroy(VM)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(0, 10)]
    assert vm.status.down and world.storage.prepared == set()


async def test_a_start_on_dead_storage_delays_no_other_start(tmp_path: Path) -> None:
    world = World(tmp_path, start_slots=1)
    await world.vms.start()
    stuck = asyncio.Event()
    real = world.storage.prepare_image

    async def hangs(*ids: str, consumer: str):  # type: ignore[no-untyped-def]
        if consumer == f"vm:{VM}":
            await stuck.wait()
        return await real(*ids, consumer=consumer)

    world.storage.prepare_image = hangs  # type: ignore[method-assign]
    await world.vms.create(VM, xml_of(disks=[disk()]))
    other = VM[:-1] + "4"
    vm = await world.vms.create(other, xml_of(other, disks=[disk()]))
    await until(lambda: vm.status.reported == "Up")
    stuck.set()
    await world.vms.stop()


async def test_a_freeze_that_hangs_holds_nothing(world: World) -> None:
    vm = await up(world, CONNECTED)

    async def hangs(_vm_id: str) -> int:
        await asyncio.Event().wait()
        return 0

    world.hypervisor.freeze = hangs  # type: ignore[method-assign]
    freezing = asyncio.create_task(vm.agent.freeze())
    await settle()
    await vm.running.pause()
    await vm.running.cont()
    async with asyncio.timeout(1):
        await world.vms.destroy(VM)
    with pytest.raises(VmIsDown):
        await freezing


async def test_a_guest_that_ends_while_the_host_goes_down_was_ended_by_it(tmp_path: Path) -> None:
    async def yes() -> bool:
        return True

    world = World(tmp_path, host_goes_down=yes)
    await world.vms.start()
    vm = await up(world)
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    assert [(d["exitCode"], d["exitReason"]) for d in world.events.downs()] == [(1, 11)]
    await world.vms.stop()


async def test_a_host_that_goes_down_waits_until_the_engine_has_let_its_vms_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def yes() -> bool:
        return True

    world = World(tmp_path, host_goes_down=yes)
    await world.vms.start()
    await up(world)
    waiting = asyncio.create_task(world.vms.farewell())
    await settle()
    assert not waiting.done()
    await world.vms.destroy(VM)
    async with asyncio.timeout(1):
        await waiting
    await up(world)
    monkeypatch.setattr("vdsm.virt.host_shutdown.FAREWELL_S", 0.01)
    async with asyncio.timeout(1):
        await world.vms.farewell()
    await world.vms.stop()


async def test_a_host_that_stays_up_waits_for_no_engine(world: World) -> None:
    await up(world)
    async with asyncio.timeout(1):
        await world.vms.farewell()


@pytest.mark.parametrize(
    ("jobs", "down"),
    [
        ("12 shutdown.target start waiting\n13 x.service stop running\n", True),
        ("12 shutdown.target stop waiting\n", False),
        ("12 x-shutdown.target start waiting\n", False),
        ("", False),
    ],
)
def test_a_host_goes_down_when_systemd_has_that_job(jobs: str, down: bool) -> None:
    assert is_going_down(jobs) is down


async def test_many_guests_that_end_at_once_are_one_question() -> None:
    asked, now = [], [100.0]

    async def ask() -> bool:
        asked.append(now[0])
        return now[0] > 110

    host = HostShutdown(ask, lambda: now[0])
    assert not await host.goes_down() and not await host.goes_down()
    now[0] = 103.0
    assert not await host.goes_down()
    now[0] = 120.0
    assert await host.goes_down()
    now[0] = 150.0
    assert await host.goes_down()
    assert asked == [100.0, 103.0, 120.0]


async def test_a_guest_that_ends_while_systemd_is_asked_waits_for_the_answer() -> None:
    go = asyncio.Event()

    async def ask() -> bool:
        await go.wait()
        return True

    host = HostShutdown(ask)
    guests = [asyncio.create_task(host.goes_down()) for _ in range(3)]
    await settle()
    guests[0].cancel()
    go.set()
    assert await asyncio.gather(*guests[1:]) == [True, True]


async def test_systemd_that_does_not_answer_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def missing(_argv: list[str], *, timeout_s: float) -> None:
        raise CommandNotFound("systemctl")

    monkeypatch.setattr("vdsm.virt.host_shutdown._SYSTEMD", "/")
    monkeypatch.setattr("vdsm.virt.host_shutdown.commands.run", missing)
    assert not await HostShutdown().goes_down()


# The process


def _started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


async def test_a_process_is_found_by_the_uuid_of_its_command_line_and_waited_for() -> None:
    argv = [sys.executable, "-c", "input()", "-name", "x", "-uuid", VM]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as qemu:
        found = (await asyncio.to_thread(qemu_process.find_all))[VM]
        assert found == QemuProcess(qemu.pid, _started(qemu.pid))
        assert qemu_process.lives(found)
        assert not await qemu_process.wait_gone(found, 0.01)
        waiting = asyncio.create_task(qemu_process.wait_gone(found, 10))
        qemu.kill()
        assert await waiting
        # nobody has reaped it yet: a zombie has no disk open
        assert Path(f"/proc/{qemu.pid}").exists()
        assert not qemu_process.lives(found)
    assert await qemu_process.wait_gone(found, 0.01)
    assert VM not in qemu_process.find_all()


async def test_a_number_that_somebody_else_has_by_now_is_not_the_process() -> None:
    other = QemuProcess(os.getpid(), _started(os.getpid()) + 1)
    assert not qemu_process.lives(other)
    assert await qemu_process.wait_gone(other, 0.01)


def test_a_zombie_whose_threads_still_hang_lives(tmp_path: Path) -> None:
    process = tmp_path / "7"
    (process / "task/7").mkdir(parents=True)
    (process / "task/8").mkdir()
    (process / "stat").write_text(f"7 (a) b) Z {' '.join(str(n) for n in range(1, 40))}")
    found = QemuProcess(7, 19)
    assert qemu_process.lives(found, str(tmp_path))
    (process / "task/8").rmdir()
    assert not qemu_process.lives(found, str(tmp_path))


def test_a_uuid_that_is_no_argument_of_uuid_is_not_it(tmp_path: Path) -> None:
    for pid, argv in ((1, ["x", VM]), (2, ["x", "-uuid"]), (3, ["x", "a-uuid", VM])):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes("\0".join(argv).encode())
    (tmp_path / "self").mkdir()
    assert qemu_process.find_all(proc=str(tmp_path)) == {}


def test_a_command_line_of_another_user_is_no_qemu(tmp_path: Path) -> None:
    for pid, user in ((1, 1000), (2, 107)):
        process = tmp_path / str(pid)
        process.mkdir()
        (process / "cmdline").write_bytes(f"qemu\0-uuid\0{VM}\0".encode())
        (process / "stat").write_text(f"{pid} (q) S {' '.join(str(n) for n in range(1, 40))}")
        (process / "status").write_text(f"Name:\tq\nUid:\t0\t{user}\t0\t0\n")
    assert qemu_process.find_all({0, 107}, str(tmp_path)) == {VM: QemuProcess(2, 19)}
    (tmp_path / "2/status").unlink()
    assert qemu_process.find_all({0, 107}, str(tmp_path)) == {}


async def test_a_domain_that_is_off_but_whose_process_lives_is_not_undefined(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as qemu:
        await up(world)
        world.processes[VM] = QemuProcess(qemu.pid, _started(qemu.pid))
        world.hypervisor.found[VM].state = DomainState.OFF
        with pytest.raises(DestroyFailed):
            await world.vms.destroy(VM)
        assert "undefine" not in world.hypervisor.calls
        qemu.kill()
    await until(lambda: world.vms.all() == [] or world.vms.get(VM).status.down)


async def test_a_vm_whose_earlier_qemu_still_hangs_is_not_started_over_it(world: World) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as qemu:
        world.processes[VM] = QemuProcess(qemu.pid, _started(qemu.pid))
        vm = await world.vms.create(VM, xml_of(disks=[disk()]))
        await until(lambda: vm.status.reported in ("Down", "Powering down"))
        assert "define" not in world.hypervisor.calls
        qemu.kill()
        qemu.wait()
        await until(lambda: vm.status.down)
        assert f"process {qemu.pid}" in world.events.downs()[0]["exitMessage"]


async def test_a_vm_that_libvirt_lost_is_told_by_name_once_and_so_is_its_return(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt")

    def told() -> int:
        lines = [record.getMessage() for record in caplog.records]
        return sum(line.startswith(f"VM {VM}: libvirt ") and "its QEMU runs: it is left as" in line for line in lines)

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as qemu:
        world.hypervisor.before["launch"] = lambda _vm_id: _known(world, qemu.pid)
        vm = await up(world)
        lost = world.hypervisor.found.pop(VM)
        for _ in range(3):
            await vm.look.fresh()
        assert told() == 1
        caplog.clear()
        await world.restart()
        assert told() == 1
        world.hypervisor.found[VM] = lost
        await world.vms.get(VM).look.fresh()
        assert f"VM {VM}: libvirt knows it again, or its QEMU has ended" in caplog.text
        qemu.kill()
        qemu.wait()


async def test_a_vm_that_libvirt_lost_is_left_as_it_is_while_its_qemu_runs(world: World) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as qemu:
        world.hypervisor.before["launch"] = lambda _vm_id: _known(world, qemu.pid)
        vm = await up(world)
        lost = world.hypervisor.found.pop(VM)
        world.hypervisor.hear(Reconnected())
        await settle()
        assert vm.status.reported == "Up"
        await world.restart()
        vm = world.vms.get(VM)
        assert vm.status.reported == "Up"
        world.hypervisor.found[VM] = lost
        world.hypervisor.found[VM].state = DomainState.PAUSED
        await until(lambda: vm.status.reported == "Paused")
        del world.hypervisor.found[VM]
        with pytest.raises(DestroyFailed, match=f"end process {qemu.pid}"):
            await world.vms.destroy(VM)
        assert world.storage.prepared
        qemu.kill()
        qemu.wait()
    await until(lambda: vm.status.down)


async def test_a_domain_that_is_off_for_no_reason_is_lost_as_well(world: World) -> None:
    """libvirt lost what it knew of running domains, and still has the definition."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as qemu:
        world.hypervisor.before["launch"] = lambda _vm_id: _known(world, qemu.pid)
        vm = await up(world)
        world.hypervisor.found[VM].state = DomainState.OFF
        world.hypervisor.hear(Reconnected())
        await settle()
        assert vm.status.reported == "Up"
        await world.restart()
        vm = world.vms.get(VM)
        assert vm.status.reported == "Up"
        assert world.events.downs() == []
        assert world.storage.prepared
        qemu.kill()
        qemu.wait()
    await until(lambda: vm.status.down)


async def test_a_domain_that_is_off_for_a_reason_has_ended_though_its_process_lingers(world: World) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as qemu:
        world.hypervisor.before["launch"] = lambda _vm_id: _known(world, qemu.pid)
        vm = await up(world)
        world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.OFF, "crashed"
        world.hypervisor.hear(Reconnected())
        await until(lambda: vm.status.reported == "Powering down")
        qemu.kill()
    await until(lambda: vm.status.down)


async def _known(world: World, pid: int) -> None:
    world.processes[VM] = QemuProcess(pid, _started(pid))


async def test_a_process_that_was_killed_and_sleeps_in_the_kernel_hangs(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    stat = tmp_path / "7/stat"
    rest = " ".join(str(n) for n in range(1, 40))
    stat.write_text(f"7 (q) D {rest}")
    assert qemu_process.hangs(QemuProcess(7, 19), str(tmp_path))
    stat.write_text(f"7 (q) S {rest}")
    assert not qemu_process.hangs(QemuProcess(7, 19), str(tmp_path))
    assert not qemu_process.hangs(QemuProcess(7, 20), str(tmp_path))


async def test_a_new_life_waits_for_a_teardown_of_the_old_one_and_no_later_one_takes_its_images(world: World) -> None:
    await up(world)
    real, go, failing = world.storage.teardown_image, asyncio.Event(), [True]

    async def teardown(*ids: str, consumer: str) -> None:
        if failing:
            raise DeadlineExceeded("teardown", 30)
        await go.wait()
        await real(*ids, consumer=consumer)

    world.storage.teardown_image = teardown  # type: ignore[method-assign]
    await world.vms.destroy(VM)
    failing.clear()
    await asyncio.sleep(0.05)  # the reconciler's teardown hangs now
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await settle()
    assert vm.status.reported == "WaitForLaunch"
    go.set()
    await until(lambda: vm.status.reported == "Up")
    await asyncio.sleep(0.05)
    assert world.storage.prepared


async def test_a_second_qemu_that_somebody_started_keeps_the_images_as_well(world: World) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as first:
        world.hypervisor.before["launch"] = lambda _vm_id: _known(world, first.pid)
        vm = await up(world)
        first.kill()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as second:
        await _known(world, second.pid)
        del world.hypervisor.found[VM]
        with pytest.raises(DestroyFailed, match=f"process {second.pid}"):
            await world.vms.destroy(VM)
        assert world.storage.prepared
        second.kill()
    await until(lambda: vm.status.down)


async def test_a_foreign_domain_that_runs_is_refused_by_its_name_not_as_a_process_to_end(world: World) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as theirs:
        await _known(world, theirs.pid)
        xml = f"<domain type='qemu'><name>theirs</name><uuid>{VM}</uuid><devices/></domain>"
        world.hypervisor.found[VM] = FakeDomain(xml, DomainState.RUNNING)
        vm = await world.vms.create(VM, xml_of(disks=[disk()]))
        await until(lambda: vm.status.down)
        message = world.events.downs()[0]["exitMessage"]
        assert "theirs" in message and str(theirs.pid) not in message
        assert world.hypervisor.found[VM].state is DomainState.RUNNING
        theirs.kill()
