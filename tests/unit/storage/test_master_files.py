# SPDX-License-Identifier: GPL-2.0-or-later
"""What a master holds goes to another one whole, and tasks are stored in one place at each moment."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from local_files import LocalFiles

from storage.errors import IoFailed
from storage.tasks.files import copy_all, remove_copied
from storage.tasks.record import TaskRecord
from storage.tasks.states import State
from storage.tasks.store import TaskStore
from vdsm.common.ids import new_uuid


@pytest.fixture
def old(tmp_path: Path) -> LocalFiles:
    return _folder(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> LocalFiles:
    return _folder(tmp_path / "new")


def _folder(path: Path) -> LocalFiles:
    path.mkdir()
    return LocalFiles(path)


def _content(files: LocalFiles) -> dict[str, bytes]:
    top = Path(files.folder)
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def _task(state: State = State.RUNNING) -> TaskRecord:
    return TaskRecord(new_uuid(), "createVolume", state, "/store")


async def _nothing() -> None:
    return


async def test_all_entries_are_copied_and_what_the_target_held_is_gone(old: LocalFiles, new: LocalFiles) -> None:
    await old.write_tree("one", {"one.ovf": b"1", "other": b"\0" * 5000})
    await old.write_tree("two", {})
    await new.write_tree("stale", {"stale.task": b"x"})
    assert await copy_all(old, new) == []
    assert _content(new) == _content(old) == {"one/one.ovf": b"1", "one/other": b"\0" * 5000}
    assert sorted(os.listdir(new.folder)) == ["one", "two"]


async def test_what_is_no_folder_with_files_is_told_and_stays(old: LocalFiles, new: LocalFiles) -> None:
    await old.write_tree("good", {"f": b"1"})
    Path(old.path("a file")).write_bytes(b"mine")
    Path(old.path("deep/er")).mkdir(parents=True)
    Path(old.path("lost+found")).mkdir()
    odd = await copy_all(old, new)
    await remove_copied(old, new)
    assert [name for name in ("'a file'", "'deep'") if any(name in sentence for sentence in odd)] == [
        "'a file'",
        "'deep'",
    ]
    assert sorted(os.listdir(new.folder)) == ["good"]
    assert sorted(os.listdir(old.folder)) == ["a file", "deep", "lost+found"]


async def test_a_master_that_is_not_read_whole_is_not_left(old: LocalFiles, new: LocalFiles) -> None:
    class Bad(LocalFiles):
        async def read(self, name: str, max_bytes: int) -> bytes:
            raise IoFailed("read", name, "EIO", "Input/output error")

    record = _task()
    store = TaskStore(Bad(Path(old.folder)))
    await store.save(record)
    with pytest.raises(IoFailed):
        await store.move(new, _nothing)
    await store.save(replace(record, state=State.FINISHED))
    assert os.listdir(old.folder) == [record.task_id]
    assert os.listdir(new.folder) == []


async def test_tasks_are_stored_on_the_new_master_from_the_commit_on(old: LocalFiles, new: LocalFiles) -> None:
    store, record, later = TaskStore(old), _task(), _task()
    await store.save(record)

    async def commit() -> None:
        assert _content(new) == _content(old)

    assert await store.move(new, commit) == []
    await store.save(later)
    await store.remove(record.task_id)
    assert store.folder == new.folder
    assert os.listdir(new.folder) == [later.task_id]
    assert os.listdir(old.folder) == [record.task_id]


async def test_a_move_that_is_refused_leaves_the_store_where_it_was(old: LocalFiles, new: LocalFiles) -> None:
    store, record = TaskStore(old), _task()
    await store.save(record)

    async def refused() -> None:
        raise IoFailed("write_atomic", "metadata", "EIO", "Input/output error")

    with pytest.raises(IoFailed):
        await store.move(new, refused)
    await store.save(replace(record, state=State.FINISHED))
    [loaded] = (await TaskStore(old).load()).tasks
    assert loaded.state is State.FINISHED


async def test_nobody_saves_while_the_store_moves(old: LocalFiles, new: LocalFiles) -> None:
    store, record = TaskStore(old), _task()
    await store.save(record)
    saving: list[asyncio.Task[None]] = []

    async def commit() -> None:
        saving.append(asyncio.create_task(store.save(replace(record, state=State.FINISHED))))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not saving[0].done()

    await store.move(new, commit)
    await saving[0]
    [on_new] = (await TaskStore(new).load()).tasks
    [on_old] = (await TaskStore(old).load()).tasks
    assert (on_new.state, on_old.state) == (State.FINISHED, State.RUNNING)
