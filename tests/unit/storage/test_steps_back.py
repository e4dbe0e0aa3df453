# SPDX-License-Identifier: GPL-2.0-or-later
"""A change that died at any of its steps is undone by us and by the field's SPM, each to a clean domain.

What is stored is decoded by a reader that imports nothing of the agent and compared by value; what the field's SPM does
with it is a model written from the same facts (`tests.decoder.steps_back`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from inside import Spm, ids
from local_world import World
from spm_flows import FLOWS, Flow, extend

from storage.domain import Garbage
from storage.file.volumes import FileVolumes
from tests.decoder import domain as decoder
from tests.decoder import steps_back, tasks
from vdsm.common.crashpoints import REGISTRY, CrashPoint


@dataclass
class Death:
    """``look`` is called at each crash point that is reached while ``armed``; ``reached`` names them.

    What lies on the disk at that moment is what a death there leaves.
    """

    armed: bool = False
    reached: list[str] = field(default_factory=list)
    look: Callable[[str], None] | None = None

    def reach(self, point: CrashPoint) -> None:
        if not self.armed or point.name.startswith("spm.st"):
            return
        self.reached.append(point.name)
        if self.look is not None:
            self.look(point.name)


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch) -> Death:
    made = Death()
    monkeypatch.setattr(CrashPoint, "reach", lambda point: made.reach(point))
    return made


async def _run(world: World, death: Death, flow: Flow, names: list[str]) -> dict[str, Any]:
    """What was there before."""
    spm = Spm(world)
    await spm.start()
    await flow.before(spm, names)
    before = volumes(spm.path)
    for task_id in [record.task_id for record in spm.server.role.tasks.all()]:
        await spm.serve("task.clear", {"task_id": task_id})
    death.reached, death.armed = [], True
    try:
        task_id = await flow.change(spm, names)
        assert (await spm.wait(str(task_id))).state == "finished"
    finally:
        death.armed = False
        await spm.stop()
    return before


def volumes(domain: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """Images with their volumes' roles and capacities; ValueError for anything that is not whole."""
    return {
        image: {volume: (v.fields["VOLTYPE"], v.fields["CAP"]) for volume, v in found.items()}
        for image, found in decoder.decode(domain).images.items()
    }


def _field_becomes_spm(domain: Path) -> dict[str, str]:
    """How each stored task ends there. Opening a domain collects the images that were marked as removed."""
    stored = tasks.decode(domain / "master" / "tasks")
    ended = {i: t.state if t.state in tasks.DONE else steps_back.undo(t, domain) for i, t in stored.items()}
    for name in os.listdir(domain / "images"):
        if name.startswith("_remove_me_"):
            shutil.rmtree(domain / "images" / name)
    return ended


# what a change changes of a domain
CHANGED = ("images", "master")


def _save(domain: Path, saved: Path) -> None:
    """Hard links and all."""
    saved.mkdir()
    subprocess.check_call(["cp", "-a", "--sparse=always", *(str(domain / name) for name in CHANGED), str(saved)])


def _put_back(domain: Path, saved: Path) -> None:
    """Once: ``saved`` is empty then."""
    for name in CHANGED:
        shutil.rmtree(domain / name)
        (saved / name).rename(domain / name)


# the others differ from these by nothing that a crash could show
DYING = ["new image", "child", "clone", "delete a leaf", "delete a clone's leaf", "delete an image", "extend"]


@pytest.mark.parametrize("name", DYING)
async def test_a_change_that_died_is_undone_by_either_spm(
    world: World, death: Death, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths: list[tuple[str, Path, Path]] = []

    def look(point: str) -> None:
        saved = (world.top / f"{len(deaths)}.ours", world.top / f"{len(deaths)}.field")
        for folder in saved:
            _save(world.domain, folder)
        deaths.append((f"{name}: died at {point} ({len(deaths) + 1})", *saved))

    death.look = look
    before = await _run(world, death, FLOWS[name], ids(6))
    for where, ours, fields in deaths:
        _put_back(world.domain, fields)
        ended = _field_becomes_spm(world.domain)
        assert set(ended.values()) <= {"recovered", "finished"}, f"{where}: {ended}"
        _check(world.domain, before, "finished" in ended.values(), where, name)
        _put_back(world.domain, ours)
        with monkeypatch.context() as patched:
            if name != "delete an image":  # which leaves nothing but garbage on purpose
                patched.setattr(FileVolumes, "collect_garbage", _collects_nothing)
            spm = Spm(world)
            await spm.start()
        results = {spm.server.role.tasks.status(task.task_id)["taskResult"] for task in spm.server.role.tasks.all()}
        assert results <= {"success", "cleanSuccess"}, f"{where}: {results}"
        _check(world.domain, before, "success" in results, where, name)
        await spm.stop()
    assert len(deaths) > 3


async def test_these_changes_have_every_point_of_volumes_images_and_tasks(world: World, death: Death) -> None:
    reached: set[str] = set()
    for name in ("clone", "delete a leaf", "delete an image", "extend"):
        await _run(world, death, FLOWS[name], ids(6))
        reached |= set(death.reached)
    flows = ("volume.", "image.", "task.start.", "task.undo.", "task.end.", "spm.volume.", "spm.image.")
    assert reached == {point for point in REGISTRY if point.startswith(flows)}


async def _collects_nothing(_volumes: FileVolumes, _claimed: object) -> Garbage:
    return Garbage((), ())


def _check(domain: Path, before: dict[str, Any], done: bool, where: str, name: str) -> None:
    """As before, or as after: nothing between. What a deletion had begun may be done to its end."""
    after = volumes(domain)
    if done:
        assert after != before, where
    elif name == "new image":
        assert after == {}, where
    elif name in ("child", "extend"):
        assert after == before or (name == "extend" and after != before), f"{where}: {after}"
    elif "clone" in name and not name.startswith("delete"):
        assert after.keys() == before.keys(), f"{where}: {after}"


# What is stored, by value


def expected_recoveries(world: World, i: list[str], flow: str) -> list[list[tuple[str, str, tuple[str, ...]]]]:
    sd, images = world.domain_id, f"{_domain_path(world)}/images"
    base = {"new image": (i[0], i[1], ""), "child": (i[0], i[2], i[1]), "clone": (i[3], i[2], i[1])}
    image, volume, parent = base[flow]
    path, file = f"{images}/{image}/{volume}", "fileVolume.FileVolume."
    folder = (f"create image rollback: {image}", "sd.StorageDomain.create_image_rollback", (f"{images}/{image}",))
    link = f"{images}/{image}/{parent}"
    share = (f"Share volume rollback: {link}", file + "shareVolumeRollback", (link,))
    sentinel = ("rollback sentinel", file + "startCreateVolumeRollback", (sd, image, volume))
    half = ("Halfbaked volume rollback", file + "halfbakedVolumeRollback", (sd, volume, path))
    up = (f"parent volume rollback: {parent}", "volume.Volume.parentVolumeRollback", (sd, image, parent))
    metadata = ("Create volume metadata rollback", file + "createVolumeMetadataRollback", (path,))
    pool = f"/rhev/data-center/{world.pool_id}"
    made = ("Create volume rollback", file + "createVolumeRollback", (pool, sd, image, volume, f"{images}/{image}"))
    return {
        "new image": [
            [folder],
            [folder, sentinel, half],
            [folder, sentinel, half, metadata],
            [folder, made],
        ],
        "child": [[sentinel, half], [sentinel, half, up], [sentinel, half, up, metadata], [made]],
        "clone": [
            [folder],
            [folder, share],
            [folder, share, sentinel, half],
            [folder, share, sentinel, half, metadata],
            [folder, share, made],
        ],
    }[flow]


def _domain_path(world: World) -> str:
    mount = world.storage.domains.source.known([world.domain_id])[world.domain_id]["mount"]
    return f"{mount}/{world.domain_id}"


@pytest.mark.parametrize("name", ["new image", "child", "clone"])
async def test_recoveries_are_stored_as_the_field_reads_them(world: World, death: Death, name: str) -> None:
    seen: list[list[tuple[str, str, tuple[str, ...]]]] = []

    def look(point: str) -> None:
        if point in ("task.undo.stored", "task.end.stored"):
            (task,) = tasks.decode(world.domain / "master" / "tasks").values()
            assert (task.fields["name"], task.job) == ("createVolume", "createVolume")
            seen.append([(r.name, r.call, r.params) for r in task.recoveries])

    death.look = look
    names = ids(6)
    await _run(world, death, FLOWS[name], names)
    assert seen == expected_recoveries(world, names, name)


async def test_a_deletion_stores_what_removes_its_rest(world: World, death: Death) -> None:
    seen: list[list[tuple[str, tuple[str, ...]]]] = []

    def look(point: str) -> None:
        if point in ("task.undo.stored", "task.end.stored"):
            (task,) = tasks.decode(world.domain / "master" / "tasks").values()
            seen.append([(r.call, r.params) for r in task.recoveries])

    death.look = look
    i = ids(6)
    await _run(world, death, FLOWS["delete a leaf"], i)
    path = f"{_domain_path(world)}/images/{i[0]}/{i[2]}"
    half = ("fileVolume.FileVolume.halfbakedVolumeRollback", (world.domain_id, i[2], path))
    up = ("volume.Volume.parentVolumeRollback", (world.domain_id, i[0], i[1]))
    assert seen == [[up, half], []]


async def test_jobs_are_named_as_the_field_names_them(inside: Spm) -> None:
    image, volume = ids(2)
    await inside.create(image, volume, format="RAW")
    await inside.wait(await extend(inside, image, volume))
    await inside.delete_image(image)
    stored = tasks.decode(inside.path / "master" / "tasks").values()
    assert sorted((task.fields["name"], task.job) for task in stored) == [
        ("createVolume", "createVolume"),
        ("deleteImage", f"purgeImage_{image}"),
        ("extendVolumeSize", "extendVolumeSize"),
    ]


@pytest.mark.parametrize("name", ["new image", "child", "second child", "clone", "second clone"])
async def test_a_finished_creation_is_reverted_by_either_spm(world: World, death: Death, name: str) -> None:
    names = ids(6)
    before = await _run(world, death, FLOWS[name], names)
    if "clone" in name:  # that a base became a template is not undone
        before[names[0]][names[1]] = ("SHARED", before[names[0]][names[1]][1])
    saved = world.top / "saved"
    _save(world.domain, saved)
    ((task_id, task),) = tasks.decode(world.domain / "master" / "tasks").items()
    assert steps_back.undo(task, world.domain) == "recovered"
    assert volumes(world.domain) == before
    _put_back(world.domain, saved)
    spm = Spm(world)
    await spm.start()
    await spm.serve("task.revert", {"task_id": task_id})
    assert (await spm.wait(task_id)).state == "recovered"
    assert volumes(world.domain) == before
    await spm.stop()
