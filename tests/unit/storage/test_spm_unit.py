# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM role and its tasks on a local folder, with a real SPM process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest
from local_world import World

from storage.errors import ImageNotFound
from storage.spm import process as spm_process
from storage.spm.control import SpmStatus
from storage.spm.errors import NotSpm, SpmHangs
from storage.tasks.record import Recovery, TaskRecord
from storage.tasks.record import encode as encode_record
from storage.tasks.runner import UnknownTask
from storage.tasks.states import State
from vdsm.common.ids import new_uuid


def _meta(world: World, image: str, volume: str) -> dict[str, str]:
    text = (world.domain / "images" / image / f"{volume}.meta").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _alive(pid: int) -> bool:
    """A zombie that nobody reaped yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


async def _until_dead(*pids: int) -> None:
    async with asyncio.timeout(5):
        while any(_alive(pid) for pid in pids):
            await asyncio.sleep(0.01)


async def _until_free(world: World) -> None:
    async with asyncio.timeout(10):
        while world.storage.pool.spm.status is not SpmStatus.FREE:
            await asyncio.sleep(0.01)


async def test_the_role_is_taken_and_given_back(world: World) -> None:
    assert (await world.storage.pool.spm_report(world.pool_id)).status is SpmStatus.FREE
    assert (await world.become_spm())["taskResult"] == "success"
    report = await world.storage.pool.spm_report(world.pool_id)
    assert (report.status, report.host_id) == (SpmStatus.SPM, 1)
    pid = world.storage.pool.spm.pid
    assert pid is not None
    await world.storage.pool.stop_spm(world.pool_id)
    assert not _alive(pid)
    report = await world.storage.pool.spm_report(world.pool_id)
    assert (report.status, report.host_id) == (SpmStatus.FREE, -1)
    with pytest.raises(NotSpm):
        await world.storage.pool.stop_spm(world.pool_id)


async def test_starting_twice_is_success(spm: World) -> None:
    pid = spm.storage.pool.spm.pid
    assert (await spm.become_spm())["taskResult"] == "success"
    assert spm.storage.pool.spm.pid == pid


async def test_a_failed_start_leaves_no_process_and_no_role(world: World) -> None:
    (world.domain / "master").rename(world.domain / "away")
    (world.domain / "master").write_text("no folder")
    status = await world.become_spm()
    assert status["taskResult"] == "cleanSuccess"
    assert status["code"] != 0
    assert world.storage.pool.spm.status is SpmStatus.FREE
    assert world.storage.pool.spm.pid is None


async def test_the_lease_of_another_process_is_respected(world: World, tmp_path: Path) -> None:
    ids = world.domain / "dom_md" / "ids"
    holder = subprocess.Popen(["flock", "--no-fork", str(ids), "sleep", "60"])
    try:
        async with asyncio.timeout(5):
            while (await world.storage.pool.spm_report(world.pool_id)).host_id == -1:
                await asyncio.sleep(0.01)
        status = await world.become_spm()
        assert (status["code"], status["taskResult"]) == (651, "cleanSuccess")
        assert "held by another" in status["message"]
    finally:
        holder.kill()
        holder.wait()


async def test_killing_the_spm_process_ends_the_role_only(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume)
    pid = spm.storage.pool.spm.pid
    assert pid is not None
    children = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(pid)], text=True).split()
    assert children
    os.kill(pid, signal.SIGKILL)
    await _until_free(spm)
    await _until_dead(*map(int, children))
    assert await spm.storage.volumes.images(spm.domain_id) == [image]
    with pytest.raises(NotSpm):
        await spm.start_volume(new_uuid(), new_uuid())
    assert (await spm.become_spm())["taskResult"] == "success"


async def test_an_spm_process_without_agent_ends(spm: World) -> None:
    pid = spm.storage.pool.spm.pid
    assert pid is not None
    process = spm.storage.pool.spm._process
    assert process is not None
    await process._link.close()
    await _until_free(spm)
    assert not _alive(pid)


async def test_a_role_whose_process_cannot_be_killed_is_free_once_it_has_ended(
    spm: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = spm.storage.pool.spm.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it does not end by itself, and signals do nothing
    with monkeypatch.context() as patch:
        patch.setattr(spm_process, "END_S", 0.1)
        patch.setattr(spm_process, "DEATH_S", 0.1)
        patch.setattr(spm_process.groups, "kill_group", lambda pid: None)
        with pytest.raises(SpmHangs, match=str(pid)):
            await asyncio.wait_for(spm.storage.pool.stop_spm(spm.pool_id), 5)
    assert spm.storage.pool.spm.status is SpmStatus.CONTEND
    os.kill(pid, signal.SIGKILL)
    await _until_free(spm)
    assert (await spm.become_spm())["taskResult"] == "success"


async def test_volumes_of_both_formats_and_allocations(spm: World) -> None:
    for volume_format, allocation in (("RAW", "SPARSE"), ("RAW", "PREALLOCATED"), ("COW", "SPARSE")):
        image, volume = new_uuid(), new_uuid()
        status = await spm.create_volume(image, volume, format=volume_format, allocation=allocation)
        assert status["taskResult"] == "success", status
        meta = _meta(spm, image, volume)
        assert (meta["FORMAT"], meta["TYPE"], meta["VOLTYPE"]) == (volume_format, allocation, "LEAF")
        size = (spm.domain / "images" / image / volume).stat()
        if volume_format == "RAW":
            assert size.st_size == 1 << 20
        if allocation == "PREALLOCATED":
            assert size.st_blocks * 512 >= 1 << 20


async def test_a_child_makes_its_parent_internal_and_its_removal_a_leaf_again(spm: World) -> None:
    image, base, leaf = new_uuid(), new_uuid(), new_uuid()
    await spm.create_volume(image, base)
    await spm.create_volume(image, leaf, parent_id=base)
    assert _meta(spm, image, base)["VOLTYPE"] == "INTERNAL"
    params = {"domain_id": spm.domain_id, "image_id": image, "volume_ids": [base], "force": False}
    status = await spm.finish(await spm.storage.pool.call_spm("volume.delete", params))
    assert (status["code"], status["taskResult"]) == (204, "cleanSuccess")
    assert _meta(spm, image, base)["LEGALITY"] == "LEGAL"
    status = await spm.finish(await spm.storage.pool.call_spm("volume.delete", {**params, "volume_ids": [leaf]}))
    assert status["taskResult"] == "success"
    assert _meta(spm, image, base)["VOLTYPE"] == "LEAF"
    assert spm.image_files(image) == {base, f"{base}.meta"}


async def test_a_clone_links_the_template_into_its_image(spm: World) -> None:
    template_image, template, image, volume = new_uuid(), new_uuid(), new_uuid(), new_uuid()
    await spm.create_volume(template_image, template)
    status = await spm.create_volume(image, volume, parent_id=template, source_image_id=template_image)
    assert status["taskResult"] == "success", status
    folder = spm.domain / "images"
    assert _meta(spm, template_image, template)["VOLTYPE"] == "SHARED"
    assert (folder / image / template).samefile(folder / template_image / template)
    assert spm.image_files(image) == {template, f"{template}.meta", volume, f"{volume}.meta"}
    params = {"domain_id": spm.domain_id, "image_id": template_image, "force": False}
    status = await spm.finish(await spm.storage.pool.call_spm("image.delete", params))
    assert status["code"] == 223


async def test_a_failed_create_leaves_nothing(spm: World) -> None:
    image = new_uuid()
    status = await spm.create_volume(image, new_uuid(), parent_id=new_uuid())
    assert (status["code"], status["taskResult"]) == (201, "cleanSuccess")
    assert not (spm.domain / "images" / image).exists()


async def test_creating_a_volume_twice_keeps_the_first(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume, description="first")
    status = await spm.create_volume(image, volume, description="second")
    assert status["code"] == 212
    assert _meta(spm, image, volume)["DESCRIPTION"] == "first"


async def test_an_image_is_removed_as_a_whole(spm: World) -> None:
    image = new_uuid()
    await spm.create_volume(image, new_uuid())
    params = {"domain_id": spm.domain_id, "image_id": image, "force": False}
    assert (await spm.finish(await spm.storage.pool.call_spm("image.delete", params)))["taskResult"] == "success"
    assert os.listdir(spm.domain / "images") == []
    assert (await spm.finish(await spm.storage.pool.call_spm("image.delete", params)))["code"] == 268
    with pytest.raises(ImageNotFound):
        await spm.storage.volumes.of_image(spm.domain_id, image)


async def test_a_raw_volume_grows_and_does_not_shrink(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume, format="RAW")
    params = {"domain_id": spm.domain_id, "image_id": image, "volume_id": volume}
    status = await spm.finish(await spm.storage.pool.call_spm("volume.extend_size", {**params, "size": 2 << 20}))
    assert status["taskResult"] == "success"
    assert _meta(spm, image, volume)["CAP"] == str(2 << 20)
    assert (spm.domain / "images" / image / volume).stat().st_size == 2 << 20
    status = await spm.finish(await spm.storage.pool.call_spm("volume.extend_size", {**params, "size": 1 << 20}))
    assert status["code"] == 232


@pytest.mark.parametrize("allocation", ["SPARSE", "PREALLOCATED"])
async def test_a_volume_longer_than_its_metadata_says_is_not_cut(spm: World, allocation: str) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume, format="RAW", allocation=allocation)
    payload = spm.domain / "images" / image / volume
    os.truncate(payload, 4 << 20)
    params = {"domain_id": spm.domain_id, "image_id": image, "volume_id": volume, "size": 2 << 20}
    status = await spm.finish(await spm.storage.pool.call_spm("volume.extend_size", params))
    assert status["code"] == 232
    assert payload.stat().st_size == 4 << 20


async def test_description_and_legality_are_written(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume)
    ids = {"domain_id": spm.domain_id, "image_id": image, "volume_id": volume}
    await spm.storage.pool.call_spm("volume.describe", {**ids, "description": "Grüße"})
    await spm.storage.pool.call_spm("volume.set_legality", {**ids, "legality": "ILLEGAL"})
    meta = _meta(spm, image, volume)
    assert (meta["DESCRIPTION"], meta["LEGALITY"]) == ("Grüße", "ILLEGAL")


async def test_a_finished_create_can_be_reverted(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    task_id = await spm.start_volume(image, volume)
    await spm.finish(task_id)
    await spm.storage.tasks.revert(task_id)
    assert (await spm.finish(task_id))["taskResult"] == "cleanSuccess"
    assert not (spm.domain / "images" / image).exists()


async def test_tasks_are_told_until_they_are_cleared(spm: World) -> None:
    task_id = await spm.start_volume(new_uuid(), new_uuid())
    await spm.finish(task_id)
    (told,) = await spm.storage.tasks.of_spm()
    assert (told["taskID"], told["verb"], told["tag"]) == (task_id, "createVolume", "spm")
    assert spm.stored_tasks() == [task_id]
    await spm.storage.tasks.clear(task_id)
    assert spm.stored_tasks() == []
    with pytest.raises(UnknownTask):
        await spm.storage.tasks.status(task_id)


async def test_a_finished_task_outlives_its_spm(spm: World) -> None:
    task_id = await spm.start_volume(new_uuid(), new_uuid())
    await spm.finish(task_id)
    await spm.storage.pool.stop_spm(spm.pool_id)
    with pytest.raises(UnknownTask):
        await spm.storage.tasks.status(task_id)
    await spm.become_spm()
    assert (await spm.storage.tasks.status(task_id))["taskResult"] == "success"


def _store(world: World, *steps: Recovery) -> str:
    """A task as another host's SPM left it, interrupted."""
    task = TaskRecord(new_uuid(), "createVolume", State.RUNNING, "/elsewhere", recoveries=steps)
    folder = world.domain / "master" / "tasks" / task.task_id
    folder.mkdir(parents=True)
    for name, data in encode_record(task).items():
        (folder / name).write_bytes(data)
    return task.task_id


async def test_an_interrupted_task_of_another_host_is_undone(world: World) -> None:
    image, volume = new_uuid(), new_uuid()
    folder = world.domain / "images" / image
    folder.mkdir()
    (folder / volume).write_bytes(b"half")
    elsewhere = f"/rhev/data-center/mnt/other:_place/{world.domain_id}/images/{image}"
    task_id = _store(
        world,
        Recovery("dir", "sd", "StorageDomain", "create_image_rollback", (elsewhere,)),
        Recovery("rollback sentinel", "fileVolume", "FileVolume", "startCreateVolumeRollback"),
        Recovery(
            "half",
            "fileVolume",
            "FileVolume",
            "halfbakedVolumeRollback",
            (world.domain_id, volume, f"{elsewhere}/{volume}"),
        ),
    )
    assert (await world.become_spm())["taskResult"] == "success"
    status = await world.storage.tasks.status(task_id)
    assert (status["taskState"], status["taskResult"], status["code"]) == ("finished", "cleanSuccess", 411)
    assert not folder.exists()


@pytest.mark.parametrize(
    "step",
    [
        Recovery("x", "os", "path", "system", ("rm -rf /",)),
        Recovery("x", "fileVolume", "FileVolume", "shareVolumeRollback", ("/etc/passwd",)),
        Recovery("x", "sd", "StorageDomain", "create_image_rollback", ("/a/images/../../etc",)),
        Recovery("x", "fileVolume", "FileVolume", "createVolumeRollback", ("/", "../..", "a", "b", "c")),
        Recovery("x", "volume", "Volume", "parentVolumeRollback", ("a",)),
    ],
    ids=lambda step: step.function,
)
async def test_a_stored_step_that_is_not_ours_is_not_done(world: World, step: Recovery) -> None:
    task_id = _store(world, step)
    assert (await world.become_spm())["taskResult"] == "success"
    status = await world.storage.tasks.status(task_id)
    assert status["taskResult"] == "cleanFailure"
    assert "cannot be done" in status["message"]


async def test_left_overs_are_removed_at_the_start(world: World) -> None:
    removed = world.domain / "images" / f"_remove_me_{new_uuid()}"
    removed.mkdir()
    (removed / new_uuid()).write_bytes(b"x")
    await world.become_spm()
    assert os.listdir(world.domain / "images") == []


async def test_a_stop_in_the_middle_of_tasks_leaves_them_to_the_next(spm: World) -> None:
    images = [new_uuid() for _ in range(12)]
    started = [await spm.start_volume(image, new_uuid(), format="RAW", capacity=8 << 20) for image in images]
    await spm.storage.pool.stop_spm(spm.pool_id)
    await spm.become_spm()
    listed = await spm.storage.volumes.images(spm.domain_id)
    for task_id, image in zip(started, images, strict=True):
        try:
            result = (await spm.storage.tasks.status(task_id))["taskResult"]
        except UnknownTask:  # it had not begun
            result = "unknown"
        assert (result == "success") == (image in listed)
        assert bool(spm.image_files(image)) == (image in listed)


async def test_the_spm_process_has_nothing_of_the_agents_environment_but_what_is_meant_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD_X", "secret")
    monkeypatch.setenv("VDSM_OF_A_TEST", "meant")
    await world.become_spm()
    data = Path(f"/proc/{world.storage.pool.spm.pid}/environ").read_text()
    found = dict(line.split("=", 1) for line in data.split("\0") if line)
    assert found["VDSM_OF_A_TEST"] == "meant"
    others = {name for name in found if not name.startswith(("VDSM_", "SANLOCK_", "PYTHON"))}
    assert others == {"PATH", "LC_ALL"}
