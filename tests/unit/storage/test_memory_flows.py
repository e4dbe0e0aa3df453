# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of an SPM that dies at any change of its storage: the next one leaves the domain as before, or as after."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from memory_faults import Died
from memory_spm import MemoryPool, MemorySpm
from memory_volumes import MemoryVolumes
from spm_flows import FLOWS, Flow
from spm_verbs import ids

from storage.domain import Garbage
from storage.errors import GenerationMismatch, IoFailed
from storage.ondisk.volume_metadata import VolumeMetadata
from storage.tasks.states import DONE, State

Volumes = dict[str, dict[str, tuple[str, int]]]


@pytest.fixture
def pool(tmp_path: Path) -> MemoryPool:
    return MemoryPool(tmp_path / "prepared")


@pytest.fixture
async def spm(pool: MemoryPool) -> AsyncIterator[MemorySpm]:
    made = MemorySpm(pool)
    await made.start()
    yield made
    await made.stop()


async def _run(pool: MemoryPool, flow: Flow, names: list[str], dies_before: int | None) -> tuple[Volumes, bool, int]:
    """What was there before; whether somebody was told that the task ended; changes that the flow makes."""
    spm = MemorySpm(pool)
    await spm.start()
    await flow.before(spm, names)
    for record in spm.server.role.tasks.all():
        await spm.serve("task.clear", {"task_id": record.task_id})
    before, made = pool.volumes(), spm.faults.changes
    spm.faults.dies_before = None if dies_before is None else made + dies_before
    told = False
    with contextlib.suppress(Died):
        task_id = str(await flow.change(spm, names))
        told = (await spm.wait(task_id)).state == State.FINISHED
    changes = spm.faults.changes - made
    if dies_before is None:
        await spm.stop()
    else:
        await spm.die()
    return before, told, changes


async def _collects_nothing(_volumes: MemoryVolumes, _claimed: object) -> Garbage:
    return Garbage((), ())


@pytest.mark.parametrize("name", FLOWS)
async def test_a_change_that_died_anywhere_is_done_or_undone_by_the_next_spm(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the stored steps alone: what collects garbage would hide what they leave."""
    monkeypatch.setattr(MemoryVolumes, "collect_garbage", _collects_nothing)
    flow, names = FLOWS[name], ids(6)
    whole = MemoryPool(tmp_path / "whole")
    unchanged, told, changes = await _run(whole, flow, names, None)
    after = whole.volumes()
    assert told and changes > 5 and after != unchanged
    for number in range(changes + 1):
        pool = MemoryPool(tmp_path / str(number))
        before, told, _ = await _run(pool, flow, names, number)
        spm = MemorySpm(pool)
        await spm.start()
        states = {record.state for record in spm.server.role.tasks.all()}
        assert states <= set(DONE) and State.FAILED not in states, f"died before change {number}: {states}"
        found = pool.volumes()
        if told:
            assert found == after
        elif "clone" in name and not name.startswith("delete"):  # that a base became a template is not undone
            template = {**before[names[0]], names[1]: ("SHARED", before[names[0]][names[1]][1])}
            assert found in (before, {**before, names[0]: template}, after)
        elif name == "delete both":  # one after the other
            assert found in (before, {names[0]: {names[1]: ("LEAF", 1 << 20)}}, after)
        else:
            assert found in (before, after)
        assert await spm.domain.volumes.removed() == []
        await spm.stop()


@pytest.mark.parametrize("name", ["new image", "child", "clone", "delete a leaf"])
async def test_an_spm_that_dies_while_it_undoes_leaves_it_to_the_next(tmp_path: Path, name: str) -> None:
    flow, names = FLOWS[name], ids(6)
    _, _, changes = await _run(MemoryPool(tmp_path / "whole"), flow, names, None)
    half = changes * 2 // 3
    for number in range(40):
        pool = MemoryPool(tmp_path / str(number))
        before, _, _ = await _run(pool, flow, names, half)
        second = MemorySpm(pool)
        second.faults.dies_before = number
        with contextlib.suppress(Died):
            await second.start()
            await second.stop()
            assert number > 3
            return
        await second.die()
        third = MemorySpm(pool)
        await third.start()
        found = pool.volumes()
        if name == "clone":
            before[names[0]][names[1]] = ("SHARED", before[names[0]][names[1]][1])
        if name != "delete a leaf":
            assert found == before
        await third.stop()
    raise AssertionError("undoing never ended")


async def test_garbage_that_a_stored_task_names_is_left_to_its_steps(pool: MemoryPool, spm: MemorySpm) -> None:
    """A task that could not be undone keeps its steps: they, or whoever clears the task, decide."""
    image, volume = ids(2)
    spm.faults.fail("format_payload", IoFailed("write", "x", "EIO", "broken"))
    spm.faults.fail("remove_rest", IoFailed("remove", "x", "EIO", "broken"))
    task_id = await spm.begin(image, volume)
    assert (await spm.wait(task_id)).state == State.FAILED
    await spm.stop()
    second = MemorySpm(pool)
    await second.start()
    assert volume in pool.storage.stored.images[image]
    await second.serve("task.clear", {"task_id": task_id})
    await second.stop()
    third = MemorySpm(pool)
    await third.start()
    assert pool.storage.stored.images == {}
    await third.stop()


@pytest.mark.parametrize("change", ["describe", "set_legality", "extend", "child"])
async def test_what_a_job_wrote_meanwhile_is_not_written_over(
    spm: MemorySpm, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A job of another host ended after the volume was read, before it is written."""
    image, volume, child = ids(3)
    await spm.create(image, volume, format="RAW")
    entry, read = spm.pool.storage.stored.images[image][volume].volume, spm.domain.volumes.read

    async def job_ends_after(image_id: str, volume_id: str) -> VolumeMetadata:
        found = await read(image_id, volume_id)
        if volume_id == volume and found.generation == 0:
            entry.metadata = replace(found, generation=1, description="by the job")
        return found

    monkeypatch.setattr(spm.domain.volumes, "read", job_ends_after)
    params = {"domain_id": spm.domain_id, "image_id": image, "volume_id": volume}
    if change in ("describe", "set_legality"):
        with pytest.raises(GenerationMismatch):
            await spm.serve(f"volume.{change}", {**params, "description": "new", "legality": "ILLEGAL"})
    else:
        extending = change == "extend"
        size = {**params, "size": 2 << 20}
        begun = await (spm.serve("volume.extend_size", size) if extending else spm.begin(image, child, volume))
        record = await spm.wait(str(begun))
        assert record.outcome is not None and record.outcome.code == 911
    assert entry.metadata is not None
    assert (entry.metadata.generation, entry.metadata.description) == (1, "by the job")
    assert (await spm.domain.volumes.of_image(image)) == (volume,)
