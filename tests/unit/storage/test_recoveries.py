# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks that another SPM left, and the limits of what a stored step back may do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from inside import Spm, ids
from local_world import World

from storage import qemu_img
from storage.errors import IoFailed, StorageNotResponding
from storage.file.io import FileIo
from storage.file.volumes import FileVolumes
from storage.ondisk import volume_metadata
from storage.tasks.record import TaskRecord
from storage.tasks.states import State
from storage.tasks.store import TaskStore
from vdsm.common.ids import new_uuid

FILE = "fileVolume\nobject = FileVolume\nfunction = "


def _left(world: World, state: str, *recoveries: str, verb: str = "createVolume") -> str:
    """A task as the field's SPM stores it: ``recoveries`` are lines from the module's name on."""
    task_id = new_uuid()
    folder = world.domain / "master" / "tasks" / task_id
    folder.mkdir(parents=True)
    (folder / f"{task_id}.task").write_text(
        f"id = {task_id}\nname = {verb}\ntag = spm\n"
        f"store = /rhev/data-center/{world.pool_id}/mastersd/master/tasks\nrecoveryPolicy = auto\n"
        "persistPolicy = auto\ncleanPolicy = manual\npriority = low\n"
        f"state = {state}\nnjobs = 1\nnrecoveries = {len(recoveries)}\nmetadataVersion = 1\n"
    )
    (folder / f"{task_id}.job.0").write_text(f"name = {verb}\nruncmd = bound method of <x>\n")
    for n, lines in enumerate(recoveries):
        (folder / f"{task_id}.recover.{n}").write_text(f"name = step {n}\nmoduleName = {lines}\n")
    return task_id


class Left:
    """A volume that the field's SPM was making, and the lines of its steps back."""

    def __init__(self, world: World, image: str, parent: str = "") -> None:
        self.world, self.image, self.parent, self.volume = world, image, parent, new_uuid()
        self.folder = world.domain / "images" / image
        far = f"/rhev/data-center/mnt/srv:_export/{world.domain_id}/images/{image}"
        sd, self.path = world.domain_id, f"{far}/{self.volume}"
        self.new_folder = f"sd\nobject = StorageDomain\nfunction = create_image_rollback\nparams = {far}"
        self.sentinel = f"{FILE}startCreateVolumeRollback\nparams = {sd},{image},{self.volume}"
        self.half = f"{FILE}halfbakedVolumeRollback\nparams = {sd},{self.volume},{self.path}"
        self.up = f"volume\nobject = Volume\nfunction = parentVolumeRollback\nparams = {sd},{image},{parent}"
        self.meta = f"{FILE}createVolumeMetadataRollback\nparams = {self.path}"
        pool = f"/rhev/data-center/{world.pool_id}"
        self.made = f"{FILE}createVolumeRollback\nparams = {pool},{sd},{image},{self.volume},{far}"

    def payload(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / self.volume).write_bytes(b"payload")
        (self.folder / self.volume).chmod(0o660)

    def metadata(self) -> None:
        """A child of the parent, with the field's lease beside it."""
        like = (self.folder / f"{self.parent}.meta").read_text()
        changed = {"PUUID": self.parent, "VOLTYPE": "LEAF", "FORMAT": "COW"}
        lines = [f"{k}={changed.get(k, v)}" for k, _, v in (line.partition("=") for line in like.splitlines()) if v]
        (self.folder / f"{self.volume}.meta").write_text("\n".join([*lines, "EOF", ""]))
        (self.folder / f"{self.volume}.lease").write_bytes(b"")


async def _child_left(inside: Spm, image: str, base: str) -> Left:
    """The field's SPM died when the child was whole and its parent internal; no SPM runs."""
    await inside.create(image, base)
    await inside.stop()
    left = Left(inside.world, image, base)
    left.payload()
    left.metadata()
    meta = left.folder / f"{base}.meta"
    meta.write_text(meta.read_text().replace("VOLTYPE=LEAF", "VOLTYPE=INTERNAL"))
    return left


async def _next(world: World) -> Spm:
    spm = Spm(world)
    await spm.start()
    return spm


async def test_a_payload_that_the_field_left_is_undone(inside: Spm) -> None:
    await inside.stop()
    left = Left(inside.world, new_uuid())
    left.payload()
    task_id = _left(inside.world, "running", left.new_folder, left.sentinel, left.half)
    spm = await _next(inside.world)
    assert spm.server.role.tasks.status(task_id)["taskResult"] == "cleanSuccess"
    assert spm.images() == {}
    await spm.stop()


@pytest.mark.parametrize("state", ["running", "recovering", "racquiring", "aborting", "raborting", "waitrecover"])
async def test_a_child_that_the_field_left_is_undone_from_every_state(inside: Spm, state: str) -> None:
    image, base = ids(2)
    left = await _child_left(inside, image, base)
    task_id = _left(inside.world, state, left.sentinel, left.half, left.up, left.meta)
    spm = await _next(inside.world)
    assert spm.server.role.tasks.status(task_id)["taskResult"] == "cleanSuccess"
    assert spm.roles(image) == {base: "LEAF"}
    await spm.stop()


async def test_a_damaged_parent_keeps_no_other_step_back_from_being_done(inside: Spm) -> None:
    image, base = ids(2)
    await inside.create(image, base)
    await inside.stop()
    left = Left(inside.world, image, base)
    left.payload()
    (left.folder / f"{base}.meta").write_text("no metadata\n")
    task_id = _left(inside.world, "running", left.sentinel, left.half, left.up, left.meta)
    spm = await _next(inside.world)
    assert spm.server.role.tasks.status(task_id)["taskResult"] == "cleanSuccess"
    assert sorted(path.name for path in left.folder.iterdir()) == [base, f"{base}.meta"]
    await spm.stop()


async def test_a_finished_creation_of_the_field_is_kept_and_can_be_reverted(inside: Spm) -> None:
    image, base = ids(2)
    left = await _child_left(inside, image, base)
    task_id = _left(inside.world, "finished", left.made)
    spm = await _next(inside.world)
    assert spm.server.role.tasks.status(task_id)["taskResult"] == "success"
    assert left.volume in os.listdir(left.folder)
    await spm.serve("task.revert", {"task_id": task_id})
    assert (await spm.wait(task_id)).state == "recovered"
    assert spm.roles(image) == {base: "LEAF"}
    await spm.stop()


@pytest.mark.parametrize(
    "lines",
    [
        f"{FILE}renameVolumeRollback\nparams = /a,/b",
        "blockVolume\nobject = BlockVolume\nfunction = halfbakedVolumeRollback\nparams = a,b,/dev/a/b",
        "task\nobject = Task\nfunction = notHere\nparams = x",
    ],
)
async def test_a_step_of_the_field_that_is_not_known_keeps_no_spm_from_starting(world: World, lines: str) -> None:
    left = Left(world, new_uuid())
    left.payload()
    task_id = _left(world, "running", left.new_folder, left.sentinel, left.half, lines)
    spm = await _next(world)
    status = spm.server.role.tasks.status(task_id)
    assert status["taskResult"] == "cleanFailure"
    assert "it is not known here" in status["message"]
    assert spm.images() == {}
    await spm.stop()


async def test_a_legacy_step_that_kills_a_process_kills_none(world: World) -> None:
    kill = f"taskManager\nobject = X\nfunction = killProcRollback\nparams = {os.getpid()},1"
    task_id = _left(world, "running", kill)
    spm = await _next(world)
    assert spm.server.role.tasks.status(task_id)["taskResult"] == "cleanSuccess"
    await spm.stop()


def _file(folder: Path) -> None:
    (folder / new_uuid()).write_text("x")


def _closed(folder: Path) -> None:
    task = folder / new_uuid()
    task.mkdir()
    (task / f"{task.name}.task").symlink_to("/proc/kcore/none")


def _huge(folder: Path) -> None:
    task = folder / new_uuid()
    task.mkdir()
    (task / f"{task.name}.task").write_text("id = x\n" + "r = " + "x" * 70000)


def _inner(folder: Path) -> None:
    task = folder / new_uuid()
    (task / f"{task.name}.task").mkdir(parents=True)


@pytest.mark.parametrize("odd", [_file, _closed, _huge, _inner], ids=lambda make: make.__name__)
async def test_an_odd_entry_keeps_no_spm_from_starting_and_is_told(world: World, odd: Callable[[Path], None]) -> None:
    folder = world.domain / "master" / "tasks"
    odd(folder)
    events = world.storage._events.subscribe("test")
    assert (await world.become_spm())["taskResult"] == "success"
    async with asyncio.timeout(5):
        async for event in events:
            if event.operation == "odd_task":
                break
    assert "left alone" in event.params["message"]
    assert len(os.listdir(folder)) == 1


async def test_a_creation_that_fails_is_undone_to_the_last_file(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    image, base, volume = ids(3)
    await inside.create(image, base)

    async def full(*_args: object, **_named: object) -> None:
        raise IoFailed("write", "x", "EIO", "Input/output error")

    monkeypatch.setattr("storage.qemu_img.create", full)
    for names in ((image, volume, base), ids(2), (new_uuid(), volume, base, image)):
        assert (await inside.wait(await inside.begin(*names))).state == "recovered"
    assert {i: set(v) for i, v in inside.images().items()} == {image: {base}}


async def test_a_creation_that_is_stopped_is_undone(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    image, base, volume = ids(3)
    await inside.create(image, base)
    reached = asyncio.Event()

    async def hangs(*_args: object, **_named: object) -> None:
        reached.set()
        await asyncio.sleep(60)

    monkeypatch.setattr("storage.qemu_img.create", hangs)
    task_id = await inside.begin(image, volume, base)
    await reached.wait()
    await inside.serve("task.stop", {"task_id": task_id})
    assert (await inside.wait(task_id)).state == "recovered"
    assert inside.roles(image) == {base: "LEAF"}


async def test_a_failed_creation_whose_end_was_not_stored_takes_no_later_volume_with_it(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, volume = ids(2)
    save = TaskStore.save

    async def refused(store: TaskStore, record: TaskRecord) -> None:
        if record.state in (State.RECOVERED, State.FAILED):
            raise IoFailed("write_atomic", "x", "EIO", "broken")
        await save(store, record)

    async def no_metadata(*_: object, **__: object) -> None:
        raise IoFailed("write_atomic", "x", "EIO", "broken")

    with monkeypatch.context() as broken:
        broken.setattr(TaskStore, "save", refused)
        broken.setattr(FileVolumes, "write", no_metadata)  # the last step: all are stored
        assert (await inside.wait(await inside.begin(image, volume))).state == State.FAILED
    await inside.create(image, volume)
    await inside.stop()
    spm = await _next(inside.world)
    assert spm.roles(image) == {volume: "LEAF"}
    await spm.stop()


async def test_while_an_end_cannot_be_stored_no_task_begins(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    image, volume = ids(2)
    save = TaskStore.save

    async def refused(store: TaskStore, record: TaskRecord) -> None:
        if record.state in (State.RECOVERED, State.FAILED):
            raise IoFailed("write_atomic", "x", "EIO", "broken")
        await save(store, record)

    async def no_format(*_: object, **__: object) -> None:
        raise IoFailed("create", "x", "EIO", "broken")

    monkeypatch.setattr(TaskStore, "save", refused)
    with monkeypatch.context() as broken:
        broken.setattr(qemu_img, "create", no_format)
        failed = await inside.begin(image, volume)
        await inside.wait(failed)
    with pytest.raises(IoFailed):
        await inside.begin(image, volume)
    await inside.serve("task.clear", {"task_id": failed})  # nothing of it is stored any more
    await inside.create(image, volume)


async def test_reverting_a_creation_spares_a_volume_that_does_not_say_when_it_was_made(inside: Spm) -> None:
    image, kept, volume = ids(3)
    await inside.create(image, kept)
    made = await inside.create(image, volume)
    meta = inside.world.domain / "images" / image / f"{volume}.meta"
    meta.write_text("damaged\n")
    await inside.serve("task.revert", {"task_id": made})
    assert (await inside.wait(made)).state == State.FAILED
    assert meta.with_suffix("").exists()


async def test_reverting_a_creation_spares_a_later_volume_of_the_same_id(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, kept, volume = ids(3)
    await inside.create(image, kept)
    monkeypatch.setattr(volume_metadata, "now_ctime", lambda: 1_700_000_000)
    first = await inside.create(image, volume)
    assert (await inside.delete(image, volume)).state == State.FINISHED
    monkeypatch.setattr(volume_metadata, "now_ctime", lambda: 1_700_000_009)
    second = await inside.create(image, volume)
    await inside.stop()
    spm = await _next(inside.world)  # it knows them from the storage
    await spm.serve("task.revert", {"task_id": first})
    reverted = await spm.wait(first)
    assert reverted.state == State.FAILED and reverted.outcome is not None
    assert "not the one that the task made" in reverted.outcome.message
    assert volume in spm.roles(image)
    await spm.serve("task.revert", {"task_id": second})
    assert (await spm.wait(second)).state == State.RECOVERED
    assert volume not in spm.roles(image)
    await spm.stop()


async def test_a_volume_in_use_keeps_its_metadata_when_its_creation_is_undone(inside: Spm) -> None:
    image, base = ids(2)
    await inside.create(image, base)
    await inside.stop()
    left = Left(inside.world, image, base)
    left.payload()
    left.metadata()
    task_id = _left(inside.world, "running", left.sentinel, left.half, left.up, left.meta)
    inside.world.storage.in_use.add(inside.world.domain_id, image, "vm:1", [left.volume])
    spm = await _next(inside.world)
    status = spm.server.role.tasks.status(task_id)
    assert status["taskResult"] == "cleanFailure" and "vm:1" in status["message"]
    assert {left.volume, f"{left.volume}.meta"} <= set(os.listdir(left.folder))
    await spm.stop()


async def test_a_payload_of_somebody_else_is_not_undone(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came between the look and the creation."""
    image, base, volume = ids(3)
    await inside.create(image, base)
    path = inside.path / "images" / image / volume
    exists = type(inside.domains).get  # any call before the payload is made

    async def getting(domains: object, domain_id: str) -> object:
        domain = await exists(domains, domain_id)  # type: ignore[arg-type]
        create = domain.files.io.create

        async def late(target: str, **named: int) -> None:
            if target == domain.files.volume(image, volume):
                path.write_bytes(b"somebody else's")
            await create(target, **named)

        monkeypatch.setattr(domain.files.io, "create", late)
        return domain

    monkeypatch.setattr(type(inside.domains), "get", getting)
    record = await inside.wait(await inside.begin(image, volume, base))
    assert record.outcome is not None
    assert record.outcome.code == 212
    assert path.read_bytes() == b"somebody else's"


async def test_a_template_that_could_not_be_read_is_not_deleted(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    template, base, image, volume = ids(4)
    await inside.create(template, base)
    await inside.create(image, volume, base, template)
    read = FileVolumes.read

    async def silent(volumes: FileVolumes, asked: str, volume_id: str) -> object:
        if asked == template:
            raise StorageNotResponding("x", "read_direct", 60.0)
        return await read(volumes, asked, volume_id)

    with monkeypatch.context() as patched:
        patched.setattr(FileVolumes, "read", silent)
        outcome = (await inside.delete_image(template)).outcome
        domain = await inside.domains.get(inside.world.domain_id)
        with pytest.raises(StorageNotResponding):
            await domain.volumes.delete_image(template)
    assert outcome is not None
    assert outcome.code == 200
    assert set(inside.images()) == {template, image}


@pytest.mark.parametrize("whole", [True, False])
async def test_a_template_with_damaged_metadata_is_kept_while_it_is_used(inside: Spm, whole: bool) -> None:
    template, base, image, volume = ids(4)
    await inside.create(template, base)
    await inside.create(image, volume, base, template)
    meta = inside.path / "images" / template / f"{base}.meta"
    kept = meta.read_text()
    if not whole:
        meta.write_text("CAP=much\nEOF\n")
    outcome = (await inside.delete_image(template)).outcome
    assert outcome is not None
    assert outcome.code == 223
    meta.write_text(kept)
    assert (await inside.delete_image(image)).state == "finished"
    assert (await inside.delete_image(template)).state == "finished"


async def test_a_reverted_creation_keeps_a_volume_that_got_a_child(inside: Spm) -> None:
    image, base, volume, child = ids(4)
    await inside.create(image, base)
    made = await inside.create(image, volume, base)
    await inside.create(image, child, volume)
    await inside.serve("task.revert", {"task_id": made})
    assert (await inside.wait(made)).state == "failed"
    assert inside.roles(image) == {base: "INTERNAL", volume: "INTERNAL", child: "LEAF"}


async def test_the_deletion_of_an_image_that_was_cut_off_is_ended_by_doing_it_again(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, volume = ids(2)
    await inside.create(image, volume)

    async def hangs(_io: FileIo, path: str) -> None:
        if os.path.exists(path):  # the image has this name already
            raise StorageNotResponding(path, "discard", 60.0)

    with monkeypatch.context() as broken:
        broken.setattr(FileIo, "discard", hangs)
        assert (await inside.delete_image(image)).state != State.FINISHED
    assert os.listdir(inside.path / "images") == [f"_remove_me_{image}"]
    again = await inside.delete_image(image)
    assert again.state == State.FINISHED
    assert os.listdir(inside.path / "images") == []
    gone = (await inside.delete_image(image)).outcome
    assert gone is not None and gone.code == 268


@pytest.mark.parametrize("which", ["internal", "shared"])
async def test_a_volume_that_cannot_be_extended_says_so_with_the_fields_code(inside: Spm, which: str) -> None:
    image, base, middle, leaf = ids(4)
    await inside.create(image, base)
    if which == "internal":
        await inside.create(image, middle, base)
        await inside.create(image, leaf, middle)
    else:
        await inside.create(new_uuid(), leaf, base, image)
    volume = middle if which == "internal" else base
    params = {"domain_id": inside.world.domain_id, "image_id": image, "volume_id": volume, "size": 4 << 20}
    outcome = (await inside.wait(str(await inside.serve("volume.extend_size", params)))).outcome
    assert outcome is not None
    assert outcome.code == 213
