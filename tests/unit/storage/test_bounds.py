# SPDX-License-Identifier: GPL-2.0-or-later
"""What there is never more of than said, and what is waited for no longer than said."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path

import pytest
from inside import Spm, ids
from local_files import LocalFiles
from local_world import World
from spm_flows import extend
from test_spm_locks import stop_at

from storage import catalogue, pool
from storage.errors import IoFailed, LeaseHeld
from storage.file import peoples_files
from storage.file.files import DomainFiles
from storage.file.io import FileIo
from storage.file.volumes import FileVolumes
from storage.leases import Lease, flock_edge
from storage.leases.flock_edge import FlockLeases
from storage.lock_table import Locks
from storage.locks import Mode
from storage.ondisk.values import DomainClass, DomainStatus
from storage.spm import role
from storage.tasks import runner, store
from storage.tasks.record import Recovery, TaskRecord
from storage.tasks.runner import Task, Tasks, TooManyTasks
from storage.tasks.states import State
from storage.tasks.store import TaskStore
from vdsm.common.ids import new_uuid

# Tasks


class _Steps:
    """Steps back that wait."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    def locks(self, _recoveries: object) -> list[object]:
        return []

    async def run(self, _recovery: Recovery) -> None:
        await self.go.wait()


def _tasks(steps: _Steps | None = None) -> Tasks:
    return Tasks(None, steps or _Steps(), lambda _error: 0, Locks())  # type: ignore[arg-type]


async def test_a_host_holds_a_bounded_number_of_tasks_until_some_are_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_TASKS", 2)
    tasks = _tasks()

    async def body(_task: Task) -> str:
        return ""

    first, _ = [await tasks.start("createVolume", body) for _ in range(2)]
    with pytest.raises(TooManyTasks, match="holds 2 tasks already: clear finished ones"):
        await tasks.start("createVolume", body)
    await tasks.wait(first)
    await tasks.clear(first)
    await tasks.start("createVolume", body)
    assert len(tasks.all()) == 2


async def test_a_bounded_number_of_tasks_works_and_who_is_undone_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_RUNNING", 1)
    steps = _Steps()
    tasks = _tasks(steps)

    async def fails(task: Task) -> str:
        await task.will_undo(Recovery("step", "m", "o", "f"))
        raise IoFailed("write", "x", "EIO", "Input/output error")

    async def works(_task: Task) -> str:
        return "done"

    first, second = await tasks.start("one", fails), await tasks.start("two", works)
    waiting = asyncio.ensure_future(tasks.wait(second))
    await asyncio.wait([waiting], timeout=0.05)
    assert (tasks.get(first).state, tasks.get(second).state) == (State.RECOVERING, State.QUEUED)
    steps.go.set()
    assert (await waiting).state is State.FINISHED


async def test_a_stored_task_of_too_many_files_is_told_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = TaskStore(LocalFiles(tmp_path))
    record = TaskRecord(new_uuid(), "createVolume", State.RUNNING, "/s")
    await stored.save(record)
    files = len(os.listdir(tmp_path / record.task_id))
    monkeypatch.setattr(store, "MAX_FILES", files)
    assert (await stored.load()).tasks == [record]
    (tmp_path / record.task_id / f"{record.task_id}.recover.7").touch()
    loaded = await stored.load()
    assert loaded.tasks == []
    assert f"it holds {files + 1} files, at most {files} are read" in loaded.odd[0]
    assert len(os.listdir(tmp_path / record.task_id)) == files + 1


# The start of an SPM


async def test_left_overs_on_a_dead_domain_delay_the_open_gate_no_longer_than_said(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role, "PATIENCE_S", 0.05)
    image, volume = ids(2)
    await inside.create(image, volume, format="RAW")
    await inside.stop()
    collecting = stop_at(monkeypatch, FileVolumes, "collect_garbage")
    next_spm = Spm(inside.world)
    await next_spm.start()
    assert collecting.reached.is_set()
    task = str(await extend(next_spm, image, volume))
    changing = asyncio.ensure_future(next_spm.wait(task))
    await asyncio.wait([changing], timeout=0.05)
    (held,) = next_spm.world.storage.locks.states()  # what it makes could be taken for a left-over
    assert ([who for who, _ in held.holders], held.mode) == ([role.LEFT_OVERS], Mode.EXCLUSIVE)
    assert task in held.waiting[0][0]
    collecting.go.set()
    assert (await changing).state is State.FINISHED
    await next_spm.stop()


async def test_looking_for_left_overs_ends_and_keeps_its_domain_no_longer_than_said(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role, "PATIENCE_S", 0.05)
    monkeypatch.setattr(role, "GARBAGE_S", 0.1)
    await inside.stop()
    stop_at(monkeypatch, FileVolumes, "collect_garbage")
    next_spm = Spm(inside.world)
    await next_spm.start()
    async with asyncio.timeout(5):
        await next_spm.create(*ids(2))
    await next_spm.stop()


# Domains


async def test_a_domain_that_does_not_answer_delays_a_list_no_longer_than_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "REPORT_S", 0.1)
    silent = new_uuid()
    await world.create_domain(silent, world.top / "second")
    read = stop_at(monkeypatch, DomainFiles, "read_metadata", lambda files: files.domain_id == silent)
    assert [found.domain.domain_id for found in await world.storage.catalogue.reports()] == [world.domain_id]
    assert read.reached.is_set()


async def test_a_domain_that_does_not_answer_delays_its_pool_no_longer_than_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets its links when it answers."""
    monkeypatch.setattr(pool, "LINK_S", 0.05)
    late = new_uuid()
    await world.create_domain(late, world.top / "second")
    await world.storage.domains.forget(late)
    getting = stop_at(monkeypatch, world.storage.domains, "get", lambda domain_id: domain_id == late)
    domains = {world.domain_id: DomainStatus.ACTIVE, late: DomainStatus.ACTIVE}
    await world.storage.pool.connect(world.pool_id, 1, world.domain_id, 1, domains)
    link = Path(world.paths.repository, world.pool_id, late)
    assert getting.reached.is_set() and not link.exists()
    getting.go.set()
    async with asyncio.timeout(5):
        while not link.exists():
            await asyncio.sleep(0.01)


async def test_an_iso_domain_with_too_many_files_is_refused_with_the_number(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain_id, folder = new_uuid(), world.top / "second"
    await world.create_domain(domain_id, folder, domain_class=DomainClass.ISO, version=0)
    top = folder / domain_id / "images/11111111-1111-1111-1111-111111111111"
    for name in ("a.iso", "b.iso"):
        (top / name).touch()
    monkeypatch.setattr(peoples_files, "MAX_FILES", 2)
    assert len(await world.storage.iso_files.matching(domain_id, "*", case_sensitive=True)) == 2
    (top / "c.iso").touch()
    with pytest.raises(IoFailed, match="more than 2 files lie there"):
        await world.storage.iso_files.matching(domain_id, "*", case_sensitive=True)


async def test_a_server_that_replaced_a_folder_is_asked_once_more_and_not_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, write = [], FileIo.write_atomic

    async def stale(io: FileIo, path: str, data: bytes, **more: object) -> None:
        asked.append(path)
        if len(asked) == failing:
            await write(io, path, data)
        else:
            raise IoFailed("write", path, "ESTALE", "Stale file handle")

    monkeypatch.setattr(FileIo, "write_atomic", stale)
    domain = await world.storage.domains.get(world.domain_id)
    failing = 2
    await domain.change_metadata(lambda _: {"DESCRIPTION": "other"})
    assert "DESCRIPTION=other" in (world.domain / "dom_md" / "metadata").read_text()
    failing = 99
    asked.clear()
    with pytest.raises(IoFailed, match="Stale"):
        await domain.change_metadata(lambda _: {"DESCRIPTION": "third"})
    assert len(asked) == 2


# Local leases


@pytest.fixture
def local(tmp_path: Path) -> Lease:
    (tmp_path / "ids").touch()
    return Lease("sd", "SDM", str(tmp_path / "leases"), 0, 1 << 20, 512)


async def test_a_process_that_only_looks_for_a_moment_keeps_nobody_from_a_local_lease(
    local: Lease, tmp_path: Path
) -> None:
    with open(tmp_path / "ids") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        taking = asyncio.ensure_future(FlockLeases().acquire(local, timeout_s=5))
        await asyncio.wait([taking], timeout=1.5 * flock_edge.TRY_AGAIN_S)
        assert not taking.done()
    assert await taking == flock_edge.VERSION


async def test_a_local_lease_that_somebody_has_is_refused_after_a_moment(local: Lease, tmp_path: Path) -> None:
    with open(tmp_path / "ids") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(LeaseHeld, match="sd:SDM"):
            await FlockLeases().acquire(local, timeout_s=5)
        assert time.monotonic() - began < 2
