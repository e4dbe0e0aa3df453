# SPDX-License-Identifier: GPL-2.0-or-later
"""/var/lib/vdsm takes no write: that costs records, never VMs, and heals by itself."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from vdsm.common.crashpoints import REGISTRY, CrashPoint
from vdsm.virt import records
from vdsm.virt.errors import NoSuchVm, RecordNotWritten
from vdsm.virt.hypervisor import DomainState, Reconnected
from vdsm.virt.records import Phase, Record, Store
from vdsm.virt.vm import Vm

from .fakes import IMAGE, VM, World, disk, new_id, settle, until, xml_of


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of a record can be written or removed."""

    def full(path: str, *_more: Any, **_named: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "write_atomic", full)
        patch.setattr(records, "remove_durably", full)
        yield


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "RETRY_S", 0.01)
        world = World(tmp_path)
        await world.vms.start()
        yield world
        await world.vms.stop()


async def up(world: World, vm_id: str = VM) -> Vm:
    vm = await world.vms.create(vm_id, xml_of(vm_id, disks=[disk()]))
    await until(lambda: vm.status.reported == "Up" and "after_vm_start" in world.hooks.ran)
    return vm


def phase(world: World) -> str:
    return str(json.loads(Path(world.paths.state, "vms", f"{VM}.json").read_text())["phase"])


async def test_vms_are_found_again_and_the_agent_is_ready(world: World) -> None:
    await up(world)
    with full_disk():
        await world.restart()
        assert world.vms.recovered
        assert world.vms.stats(VM)["status"] == "Up"


async def test_vms_are_found_again_without_a_folder_for_records(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await up(world)
    Path(world.paths.state, "vms", f"{VM}.json").unlink()
    Path(world.paths.state, "vms").rmdir()

    def full(path: str, *_more: Any, **_named: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr("vdsm.virt.records.os.makedirs", full)
    await world.restart()
    assert world.vms.stats(VM)["status"] == "Up"


async def test_a_vm_that_died_meanwhile_is_down_after_a_restart(world: World) -> None:
    await up(world)
    with full_disk():
        world.hypervisor.found[VM].state = DomainState.OFF
        await world.restart()
        await until(lambda: world.vms.get(VM).status.down)
    assert world.storage.prepared == set()


async def test_a_vm_is_destroyed_and_stays_forgotten_when_there_is_room_again(world: World) -> None:
    await up(world)
    with full_disk():
        await world.vms.destroy(VM)
        assert world.vms.all() == []
        assert world.hypervisor.found == {}
        assert world.storage.prepared == set()
    await until(lambda: world.records() == [])
    await world.restart()
    assert world.vms.all() == []


async def test_a_qemu_that_died_is_told_as_down(world: World) -> None:
    vm = await up(world)
    with full_disk():
        world.hypervisor.guest_ends(VM)
        await until(lambda: vm.status.down)
        assert [d["exitReason"] for d in world.events.downs()] == [7]
        assert phase(world) == "running"
    await until(lambda: phase(world) == "down")
    await world.restart()
    assert world.vms.stats(VM)["exitReason"] == 7


async def test_a_vm_that_started_meanwhile_runs_on(world: World) -> None:
    vm = await world.vms.create(VM, xml_of())

    async def fill(_vm_id: str) -> None:
        disk_is_full.__enter__()

    disk_is_full = full_disk()
    world.hypervisor.before["launch"] = fill
    await until(lambda: vm.status.reported == "Up")
    await settle()
    assert phase(world) == "launching"
    disk_is_full.__exit__(None, None, None)
    await until(lambda: phase(world) == "running")


POINTS = sorted(name for name in REGISTRY if name.startswith("vm."))
CREATE = [name for name in POINTS if name.startswith("vm.create.")]
# a start whose next word must be on the disk before libvirt hears of it, and can't be
NOT_BEGUN = {f"vm.create.{step}" for step in ("recorded", "drive", "prepared", "hooked")}


@contextmanager
def full_from(point: str) -> Iterator[Callable[[], bool]]:
    """The disk is full from that crash point on; gives whether it was reached."""
    with ExitStack() as filled, pytest.MonkeyPatch.context() as patch:
        reached = []

        def reach(self: CrashPoint) -> None:
            if self.name == point and not reached:
                reached.append(point)
                filled.enter_context(full_disk())

        patch.setattr(CrashPoint, "reach", reach)
        yield lambda: bool(reached)


async def nothing_stays(world: World) -> None:
    await until(lambda: world.records() == [])
    await world.restart()
    assert world.vms.all() == []
    assert (world.hypervisor.found, world.storage.prepared) == ({}, set())


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("point", CREATE)
async def test_a_start_that_finds_no_room_at_a_step_runs_or_is_down_and_leaves_nothing(
    world: World, point: str, restarted: bool
) -> None:
    with full_from(point) as reached:
        vm = await world.vms.create(VM, xml_of(disks=[disk()]))
        await until(lambda: vm.status.reported in ("Up", "Down"))
        assert reached()
        if restarted:
            await world.restart()
            await until(lambda: world.vms.stats(VM)["status"] in ("Up", "Down"))
        down = world.vms.stats(VM)["status"] == "Down"
        assert down is (point in NOT_BEGUN)
        if down:
            assert "No space left" in world.vms.stats(VM)["exitMessage"] or restarted
            assert (world.hypervisor.found, world.storage.prepared) == ({}, set())
        else:
            assert world.hypervisor.found[VM].state is DomainState.RUNNING
            assert world.storage.prepared == {IMAGE}
        await world.vms.destroy(VM)
        assert world.vms.all() == []
    await nothing_stays(world)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("point", [name for name in POINTS if name not in CREATE])
async def test_a_destroy_that_finds_no_room_at_a_step_ends_all_the_same(
    world: World, point: str, restarted: bool
) -> None:
    await up(world)
    with full_from(point) as reached:
        await world.vms.destroy(VM)
        assert reached()
        assert world.vms.all() == []
        assert (world.hypervisor.found, world.storage.prepared) == ({}, set())
        if restarted:  # whose word could not be taken back is told as Down once more
            await world.restart()
            await until(lambda: all(stats["status"] == "Down" for stats in world.vms.all_stats()))
            for vm in world.vms.all():
                await world.vms.destroy(vm.vm_id)
    await nothing_stays(world)


async def test_a_new_vm_is_refused_with_the_reason_and_nothing_of_it_is_left(world: World) -> None:
    with full_disk(), pytest.raises(RecordNotWritten, match=r"/var/lib/vdsm/vms: No space left on device") as refused:
        await world.vms.create(VM, xml_of())
    assert "room" in refused.value.remedy
    assert world.vms.all() == []
    await up(world)


async def test_a_destroy_of_a_vm_that_is_refused_meanwhile_finds_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def full(_path: str, _data: bytes, _mode: int) -> None:
        go.wait()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "write_atomic", full)
    creating = asyncio.create_task(world.vms.create(VM, xml_of(disks=[disk()])))
    await until(lambda: VM in world.vms._vms)
    destroying = asyncio.create_task(world.vms.destroy(VM))
    for _ in range(20):
        await asyncio.sleep(0)
    go.set()
    with pytest.raises(RecordNotWritten):
        await creating
    with pytest.raises(NoSuchVm):
        await destroying
    assert (world.vms.all(), world.events.told) == ([], [])


async def test_a_start_that_cannot_be_recorded_does_not_reach_libvirt(world: World) -> None:
    disk_is_full = full_disk()

    async def script(xml: str) -> str:
        disk_is_full.__enter__()
        return xml

    world.hooks.scripts["before_vm_start"] = script
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.down)
    disk_is_full.__exit__(None, None, None)
    assert world.hypervisor.calls == []
    assert "No space left" in world.events.downs()[0]["exitMessage"]
    assert world.storage.prepared == set()


async def test_storage_that_cannot_write_its_own_records_keeps_no_vm_from_ending(world: World) -> None:
    vm = await up(world)

    async def full(pool_id: str, domain_id: str, image_id: str, *, consumer: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    world.storage.teardown_image = full  # type: ignore[method-assign]
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)


async def test_one_vm_that_cannot_be_recovered_is_tried_again_and_hides_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdsm.virt.recover.RETRY_S", 0.01)
    other = new_id()
    await up(world)
    await world.vms.create(other, xml_of(other))
    await until(lambda: world.vms.get(other).status.reported == "Up")
    real, failures = world.storage.resume_prepared, ["odd"]

    async def odd(images: Any, *, consumer: str) -> Any:
        if failures:
            raise ValueError(failures.pop())
        return await real(images, consumer=consumer)

    world.storage.resume_prepared = odd  # type: ignore[method-assign]
    await world.restart()
    await until(lambda: world.vms.recovered)
    assert sorted(stats["status"] for stats in world.vms.all_stats()) == ["Up", "Up"]
    assert world.events.statuses(other) == ["Up"]


async def test_a_later_word_is_not_overwritten_by_one_that_was_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RETRY_S", 0.01)
    kept = Store(str(tmp_path))
    await kept.create(Record(vm_id=VM, name="x", phase=Phase.STARTING, xml=""))
    with full_disk():
        await kept.change(VM, phase=Phase.RUNNING)
    await kept.change(VM, phase=Phase.DOWN)
    await kept._payer  # type: ignore[misc]
    (found,) = Store(str(tmp_path)).load()
    assert found.phase is Phase.DOWN


async def test_a_change_that_must_be_on_disk_and_is_not_has_not_happened(tmp_path: Path) -> None:
    kept = Store(str(tmp_path))
    await kept.create(Record(vm_id=VM, name="x", phase=Phase.STARTING, xml=""))
    with full_disk(), pytest.raises(RecordNotWritten):
        await kept.commit(VM, phase=Phase.LAUNCHING)
    assert kept.get(VM) == Record(vm_id=VM, name="x", phase=Phase.STARTING, xml="")


async def test_a_write_goes_on_when_its_caller_leaves_and_the_next_one_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Store(str(tmp_path))
    await kept.create(Record(vm_id=VM, name="x", phase=Phase.STARTING, xml=""))
    began, go, phases = threading.Event(), threading.Event(), []

    def slow(_path: str, data: bytes, _mode: int) -> None:
        began.set()
        go.wait()
        phases.append(json.loads(data)["phase"])

    monkeypatch.setattr(records, "write_atomic", slow)
    left = asyncio.create_task(kept.change(VM, phase=Phase.LAUNCHING))
    await asyncio.to_thread(began.wait)
    left.cancel()
    later = asyncio.create_task(kept.change(VM, phase=Phase.RUNNING))
    await asyncio.sleep(0.02)
    go.set()
    await later
    assert phases == ["launching", "running"]


async def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{VM}.json.abc").write_text("{")
    Store(str(tmp_path)).load()
    assert list(tmp_path.iterdir()) == []


async def test_a_record_and_its_folder_are_for_the_agent_only(tmp_path: Path) -> None:
    kept = Store(str(tmp_path / "vms"))
    await kept.create(Record(vm_id=VM, name="x", phase=Phase.RUNNING, xml=""))
    assert [os.stat(p).st_mode & 0o777 for p in (tmp_path / "vms", tmp_path / "vms" / f"{VM}.json")] == [0o700, 0o600]


async def test_writes_of_one_record_never_overlap_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = 0, 0

    def slow(_path: str, _data: bytes, _mode: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        running -= 1

    monkeypatch.setattr(records, "write_atomic", slow)
    kept = Store(str(tmp_path))
    await kept.create(Record(vm_id=VM, name="x", phase=Phase.RUNNING, xml=""))
    await asyncio.gather(*(kept.change(VM, started_at_s=float(n)) for n in range(5)))
    assert most == 1
    assert len(kept._turns) == 0


async def test_a_change_whose_caller_left_is_owed_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RETRY_S", 0.01)
    kept = Store(str(tmp_path))
    await kept.create(Record(vm_id=VM, name="x", phase=Phase.STARTING, xml=""))
    began, go = threading.Event(), threading.Event()

    def full(_path: str, _data: bytes, _mode: int) -> None:
        began.set()
        go.wait()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomic", full)
        left = asyncio.create_task(kept.change(VM, phase=Phase.DOWN))
        await asyncio.to_thread(began.wait)
        left.cancel()
        go.set()
        await asyncio.wait(kept._writing)
    assert kept._payer is not None
    await kept._payer
    assert [record.phase for record in Store(str(tmp_path)).load()] == [Phase.DOWN]


async def test_a_write_that_comes_as_another_gets_its_turn_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = 0, 0

    def slow(_path: str, _data: bytes, _mode: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        running -= 1

    monkeypatch.setattr(records, "write_atomic", slow)
    kept = Store(str(tmp_path))
    await kept.create(Record(vm_id=VM, name="x", phase=Phase.RUNNING, xml=""))
    first = asyncio.create_task(kept.change(VM, started_at_s=1.0))
    second = asyncio.create_task(kept.change(VM, started_at_s=2.0))
    first.add_done_callback(lambda _first: later.append(asyncio.create_task(kept.change(VM, started_at_s=3.0))))
    later: list[asyncio.Task[Record]] = []
    await asyncio.gather(first, second)
    await later[0]
    assert most == 1


async def test_nothing_stays_of_a_refused_vm_of_which_something_was_heard_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RETRY_S", 0.01)
    kept = Store(str(tmp_path))
    real, writes = records.write_atomic, []

    def full_once(path: str, data: bytes, mode: int) -> None:
        writes.append(path)
        if len(writes) == 1:
            time.sleep(0.05)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data, mode)

    monkeypatch.setattr(records, "write_atomic", full_once)
    creating = asyncio.create_task(kept.create(Record(vm_id=VM, name="x", phase=Phase.STARTING, xml="")))
    await until(lambda: writes)
    await kept.change(VM, time_offset_s=5)
    with pytest.raises(RecordNotWritten):
        await creating
    if kept._payer is not None:
        await kept._payer
    assert (kept.all(), list(tmp_path.iterdir())) == ([], [])


async def test_a_step_that_was_not_recorded_takes_nothing_else_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RETRY_S", 0.01)
    kept = Store(str(tmp_path))
    await kept.create(Record(vm_id=VM, name="x", phase=Phase.STARTING, xml=""))
    real, writes = records.write_atomic, []

    def full_once(path: str, data: bytes, mode: int) -> None:
        writes.append(path)
        if len(writes) == 1:
            time.sleep(0.05)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data, mode)

    monkeypatch.setattr(records, "write_atomic", full_once)
    committing = asyncio.create_task(kept.commit(VM, phase=Phase.LAUNCHING))
    await until(lambda: writes)
    await kept.change(VM, time_offset_s=5)
    with pytest.raises(RecordNotWritten):
        await committing
    if kept._payer is not None:
        await kept._payer
    (found,) = Store(str(tmp_path)).load()
    assert (found.phase, found.time_offset_s) == (Phase.STARTING, 5)


async def test_a_vm_that_is_refused_while_libvirt_comes_back_is_never_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def full(_path: str, _data: bytes, _mode: int) -> None:
        go.wait()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "write_atomic", full)
    creating = asyncio.create_task(world.vms.create(VM, xml_of()))
    await until(lambda: VM in world.vms._vms)
    world.hypervisor.hear(Reconnected())
    await asyncio.sleep(0.02)
    go.set()
    with pytest.raises(RecordNotWritten):
        await creating
    await settle()
    assert world.events.told == []
    assert not [task for task in asyncio.all_tasks() if VM in task.get_name()]
