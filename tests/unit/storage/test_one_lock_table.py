# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's verbs and the SPM process's tasks exclude each other by the same locks, and no verb waits for itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from inside import ids
from linked import LinkedProcess
from local_world import World
from test_spm_locks import stop_at, stop_first

from storage import locks, qemu_img, turns
from storage.errors import ImageNotFound, VolumeNotFound
from storage.file.files import DomainFiles
from storage.file.volumes import FileVolumes
from storage.locks import LockTimeout
from storage.ondisk.values import DomainStatus
from storage.spm import control, volumes
from storage.spm.errors import NotSpm
from vdsm.common.ids import BLANK_UUID, new_uuid

WAIT_S = 0.05


@pytest.fixture
async def spm(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A pool whose SPM, this host, runs in the test's loop."""
    monkeypatch.setattr(control, "LeasedProcess", LinkedProcess)
    monkeypatch.setattr(turns, "WAIT_S", WAIT_S)
    status = await world.become_spm()
    assert status["taskResult"] == "success", status
    return world


async def _second(world: World) -> str:
    second = new_uuid()
    await world.create_domain(second, world.top / "second")
    return second


async def _still(task: asyncio.Future[Any], seconds: float = 0.1) -> bool:
    done, _ = await asyncio.wait([task], timeout=seconds)
    return not done


async def _create_in(world: World, domain_id: str) -> str:
    image, volume = ids(2)
    new = {"image_id": image, "volume_id": volume, "capacity": 1 << 20, "format": "COW", "allocation": "SPARSE"}
    params = {"domain_id": domain_id, "source_image_id": "", "volume": new}
    return str(await world.storage.pool.call_spm("volume.create", params))


# Verbs that ask the SPM process while they hold a domain


async def test_a_domain_is_attached_used_deactivated_detached_and_removed(spm: World) -> None:
    second = await _second(spm)
    await spm.storage.pool_domains.attach(spm.pool_id, second)
    await spm.storage.pool_domains.activate(spm.pool_id, second)
    assert (await spm.finish(await _create_in(spm, second)))["taskResult"] == "success"
    await spm.storage.pool_domains.deactivate(spm.pool_id, second)
    await spm.storage.pool_domains.detach(spm.pool_id, second)
    await spm.storage.catalogue.format(second)
    assert spm.storage.locks.names == []


async def test_a_map_on_the_master_is_written_while_a_domain_is_attached(spm: World) -> None:
    pool, second = spm.storage.pool, await _second(spm)
    await pool.stop_spm(spm.pool_id)
    await pool.disconnect(spm.pool_id)
    await pool.connect(spm.pool_id, 1, spm.domain_id, 1, None)
    await spm.become_spm()
    await spm.storage.pool_domains.attach(spm.pool_id, second)
    text = (spm.domain / "dom_md" / "metadata").read_text()
    assert f"{second}:Attached" in text
    assert spm.storage.locks.names == []


async def test_a_pool_is_made_and_destroyed(spm: World) -> None:
    pool = spm.storage.pool
    await pool.destroy(spm.pool_id, 1)
    await spm.storage.new_pools.create(spm.pool_id, "again", spm.domain_id, 1, [spm.domain_id], {})
    assert spm.storage.locks.names == []


@pytest.mark.parametrize("verb", ["detach", "destroy"])
async def test_a_domain_does_not_leave_its_pool_under_a_task(
    spm: World, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    pool, second = spm.storage.pool, await _second(spm)
    await spm.storage.pool_domains.attach(spm.pool_id, second)
    making = stop_at(monkeypatch, qemu_img, "create")
    task_id = await _create_in(spm, second)
    await making.reached.wait()
    leaving = {
        "detach": lambda: spm.storage.pool_domains.detach(spm.pool_id, second),
        "destroy": lambda: pool.destroy(spm.pool_id, 1),
    }[verb]
    with pytest.raises(LockTimeout, match=rf"task {task_id} \(createVolume\) had it"):
        await leaving()
    assert second in pool.require(spm.pool_id).domains
    monkeypatch.setattr(turns, "WAIT_S", 5.0)
    waiting = asyncio.ensure_future(leaving())
    assert await _still(waiting)
    making.go.set()
    await waiting
    assert "POOL_UUID=\n" in (spm.top / "second" / second / "dom_md" / "metadata").read_text()


async def test_a_domain_is_deactivated_under_a_task(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It only changes the map: storage that hangs must not keep its domain from being given up."""
    pool, second = spm.storage.pool, await _second(spm)
    await spm.storage.pool_domains.attach(spm.pool_id, second)
    await spm.storage.pool_domains.activate(spm.pool_id, second)
    making = stop_at(monkeypatch, qemu_img, "create")
    task_id = await _create_in(spm, second)
    await making.reached.wait()
    await spm.storage.pool_domains.deactivate(spm.pool_id, second)
    assert pool.require(spm.pool_id).domains[second] is DomainStatus.ATTACHED
    making.go.set()
    await spm.finish(task_id)


async def test_no_task_begins_on_a_domain_that_leaves(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    second = await _second(spm)
    await spm.storage.pool_domains.attach(spm.pool_id, second)
    leaving = stop_at(monkeypatch, DomainFiles, "write_metadata")
    detaching = asyncio.ensure_future(spm.storage.pool_domains.detach(spm.pool_id, second))
    await leaving.reached.wait()
    making = stop_at(monkeypatch, qemu_img, "create")
    task_id = await _create_in(spm, second)
    assert await _still(asyncio.ensure_future(making.reached.wait()))
    leaving.go.set()
    await detaching
    making.go.set()
    await spm.finish(task_id)


async def test_a_domain_stays_locked_while_the_spm_detaches_it_for_a_caller_that_went_away(
    spm: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = await _second(spm)
    await spm.storage.pool_domains.attach(spm.pool_id, second)
    leaving = stop_at(monkeypatch, DomainFiles, "write_metadata")
    detaching = asyncio.ensure_future(spm.storage.pool_domains.detach(spm.pool_id, second))
    await leaving.reached.wait()
    detaching.cancel()
    await asyncio.gather(detaching, return_exceptions=True)
    with pytest.raises(LockTimeout, match=r"StorageDomain\.detach had it"):
        await spm.storage.catalogue.format(second)
    leaving.go.set()
    async with asyncio.timeout(5):
        while spm.storage.locks.names:
            await asyncio.sleep(0.01)


async def test_a_call_while_the_role_ends_leaves_no_lock(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, second = spm.storage.pool, await _second(spm)
    await spm.storage.pool_domains.attach(spm.pool_id, second)
    with monkeypatch.context() as patched:
        patched.setattr(pool.spm, "status", control.SpmStatus.CONTEND)
        with pytest.raises(NotSpm):
            await spm.storage.pool_domains.detach(spm.pool_id, second)
    assert spm.storage.locks.names == []


async def test_who_waits_in_a_process_whose_link_ended_waits_no_more(
    spm: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang for long before it has ended."""
    image, volume = ids(2)
    process = spm.storage.pool.spm._process
    assert isinstance(process, LinkedProcess)
    async with spm.storage.locks.hold([locks.image(spm.domain_id, image)], who="prepare for vm:1"):
        await spm.start_volume(image, volume)
        async with asyncio.timeout(5):
            while not any(state.waiting for state in spm.storage.locks.states()):
                await asyncio.sleep(0.01)
        await process.ours.close()
        async with asyncio.timeout(5):
            while any(state.waiting for state in spm.storage.locks.states()):
                await asyncio.sleep(0.01)


async def test_a_refused_call_leaves_no_lock(spm: World) -> None:
    pool, second = spm.storage.pool, await _second(spm)
    await pool.stop_spm(spm.pool_id)
    with pytest.raises(NotSpm):
        await spm.storage.pool_domains.attach(spm.pool_id, second)
    assert spm.storage.locks.names == []


# Images


async def test_an_image_is_not_prepared_while_a_task_changes_it(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    image, base, leaf = ids(3)
    await spm.create_volume(image, base)
    making = stop_at(monkeypatch, qemu_img, "create")
    task_id = await spm.start_volume(image, leaf, parent_id=base)
    await making.reached.wait()
    preparing = asyncio.ensure_future(spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, leaf))
    assert await _still(preparing)
    making.go.set()
    assert (await spm.finish(task_id))["taskResult"] == "success"
    assert [volume.volume_id for volume in (await preparing).chain] == [base, leaf]


async def test_an_image_is_not_prepared_while_it_is_deleted(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    image, volume = ids(2)
    await spm.create_volume(image, volume)
    deleting = stop_at(monkeypatch, volumes, "refuse_held")
    params = {"domain_id": spm.domain_id, "image_id": image, "force": False}
    task_id = await spm.storage.pool.call_spm("image.delete", params)
    await deleting.reached.wait()
    preparing = asyncio.ensure_future(spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, volume))
    assert await _still(preparing)
    deleting.go.set()
    await spm.finish(task_id)
    with pytest.raises((ImageNotFound, VolumeNotFound)):
        await preparing
    assert spm.storage.images.prepared() == []


async def test_an_image_is_torn_down_while_a_task_changes_it(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VM ends also when a task hangs on its storage."""
    image, base, leaf = ids(3)
    await spm.create_volume(image, base)
    await spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, base)
    making = stop_at(monkeypatch, qemu_img, "create")
    task_id = await spm.start_volume(image, leaf, parent_id=base)
    await making.reached.wait()
    async with asyncio.timeout(5):
        await spm.storage.teardown_image(spm.pool_id, spm.domain_id, image)
    assert spm.storage.images.prepared() == []
    making.go.set()
    await spm.finish(task_id)


async def test_a_task_waits_for_an_image_that_is_being_prepared(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    image, base, leaf = ids(3)
    await spm.create_volume(image, base)
    examining = stop_first(monkeypatch, FileVolumes, "chain", lambda *_: True)
    making = stop_at(monkeypatch, qemu_img, "create")
    preparing = asyncio.ensure_future(spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, base))
    await examining.reached.wait()
    task_id = await spm.start_volume(image, leaf, parent_id=base)
    assert await _still(asyncio.ensure_future(making.reached.wait()))
    examining.go.set()
    making.go.set()
    await preparing
    assert (await spm.finish(task_id))["taskResult"] == "success"


@pytest.mark.parametrize("verb", ["detach", "format"])
async def test_a_domain_does_not_go_while_an_image_of_it_is_prepared(
    spm: World, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    second = await _second(spm)
    if verb == "detach":
        await spm.storage.pool_domains.attach(spm.pool_id, second)
    reading = stop_first(monkeypatch, FileVolumes, "chain", lambda *_: True)
    preparing = asyncio.ensure_future(spm.storage.prepare_image(BLANK_UUID, second, *ids(2)))
    await reading.reached.wait()
    going = {
        "detach": lambda: spm.storage.pool_domains.detach(spm.pool_id, second),
        "format": lambda: spm.storage.catalogue.format(second),
    }[verb]
    with pytest.raises(LockTimeout, match=r"Image\.prepare had it"):
        await going()
    reading.go.set()
    with pytest.raises((ImageNotFound, VolumeNotFound)):
        await preparing
    await going()


async def test_no_image_of_a_domain_that_leaves_is_prepared(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    second = await _second(spm)
    await spm.storage.pool_domains.attach(spm.pool_id, second)
    leaving = stop_at(monkeypatch, DomainFiles, "write_metadata")
    detaching = asyncio.ensure_future(spm.storage.pool_domains.detach(spm.pool_id, second))
    await leaving.reached.wait()
    preparing = asyncio.ensure_future(spm.storage.prepare_image(BLANK_UUID, second, *ids(2)))
    assert await _still(preparing)
    leaving.go.set()
    await detaching
    with pytest.raises((ImageNotFound, VolumeNotFound)):
        await preparing


async def test_another_image_is_prepared_while_a_task_runs(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    image, volume, other, wanted = ids(4)
    await spm.create_volume(other, wanted)
    making = stop_at(monkeypatch, qemu_img, "create")
    task_id = await spm.start_volume(image, volume)
    await making.reached.wait()
    await spm.storage.prepare_image(spm.pool_id, spm.domain_id, other, wanted)
    making.go.set()
    await spm.finish(task_id)
