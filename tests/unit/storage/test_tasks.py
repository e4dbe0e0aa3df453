# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks: what is stored of them, and that they end done or undone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import locks
from storage.errors import IoFailed, VolumeNotFound
from storage.locks import Locks
from storage.tasks import record as records
from storage.tasks.record import Outcome, Recovery, TaskRecord, TaskRecordInvalid
from storage.tasks.runner import StepInvalid, Task, TaskNotFinished, Tasks, UnknownTask
from storage.tasks.states import PREDECESSORS, REPORTED, State, TaskTransitionIllegal, check_transition
from storage.tasks.store import TaskStore
from vdsm.common.ids import new_uuid

TASK = "11111111-2222-4333-8444-555555555555"
STEP = Recovery("step", "fileVolume", "FileVolume", "halfbakedVolumeRollback", ("a", "b", "/c/d"))


class LocalFiles:
    """The store's files, without an I/O helper; refuses as one does."""

    async def listdir(self, path: str) -> list[str]:
        with _refusing("list_folder", path):
            return os.listdir(path)

    async def read(self, path: str, max_bytes: int) -> bytes:
        with _refusing("read", path):
            if os.path.getsize(path) > max_bytes:
                raise OSError(errno.EFBIG, "too long", path)
            return Path(path).read_bytes()

    async def write_tree(self, path: str, files: Mapping[str, bytes]) -> None:
        shutil.rmtree(path, ignore_errors=True)
        Path(path).mkdir()
        for name, data in files.items():
            (Path(path) / name).write_bytes(data)

    async def rename(self, old: str, new: str) -> None:
        with _refusing("rename", old):
            Path(old).rename(new)

    async def remove_tree(self, path: str) -> None:
        if os.path.lexists(path) and not os.path.isdir(path):
            raise IoFailed("remove_tree", path, "ENOTDIR", "Not a directory")
        shutil.rmtree(path, ignore_errors=True)

    async def sync_folder(self, path: str) -> None:
        pass


@contextlib.contextmanager
def _refusing(operation: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise IoFailed(operation, path, errno.errorcode[e.errno or errno.EIO], os.strerror(e.errno or 0)) from None


class _DiesInARemoval(LocalFiles):
    async def remove_tree(self, path: str) -> None:
        if os.path.isdir(path):
            Path(path, min(os.listdir(path))).unlink()
            raise OSError("killed after the first of its files")


IMAGE = locks.image("d", "i")


class _Steps:
    """Steps back that only note their names. ``slow`` waits for ``go``; ``fail`` fails, ``odd`` is not known."""

    def __init__(self, undone: list[str] | None = None, fail: str = "") -> None:
        self.undone = undone if undone is not None else []
        self.fail = fail
        self.go = asyncio.Event()

    def locks(self, recoveries: Sequence[Recovery]) -> list[locks.Lock]:
        return [locks.image("d", param) for recovery in recoveries for param in recovery.params]

    async def run(self, recovery: Recovery) -> None:
        if recovery.name == "slow":
            await self.go.wait()
        if recovery.name == "odd":
            raise StepInvalid(recovery.call, "it is not known here")
        if recovery.name == self.fail:
            raise VolumeNotFound("v", "d")
        self.undone.append(recovery.name)


def _code_of(error: BaseException) -> int:
    return 201 if isinstance(error, VolumeNotFound) else 411


def _tasks(folder: Path, undone: list[str] | None = None, fail: str = "", steps: _Steps | None = None) -> Tasks:
    return Tasks(TaskStore(LocalFiles(), str(folder)), steps or _Steps(undone, fail), _code_of, Locks())


def _named(name: str, *params: str) -> Recovery:
    return Recovery(name, "m", "o", "f", params)


async def _load(folder: Path) -> list[TaskRecord]:
    return (await TaskStore(LocalFiles(), str(folder)).load()).tasks


text = st.text(st.characters(exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029,", exclude_categories=["Cs"]))
plain = text.map(str.strip).filter(lambda s: "_eq_" not in s)


@given(plain, st.lists(plain.filter(bool)), plain, st.integers(0, 5000), st.sampled_from(State))
def test_a_record_comes_back_as_it_was(name: str, params: list[str], message: str, code: int, state: State) -> None:
    task = TaskRecord(
        TASK,
        "createVolume",
        state,
        "/store",
        recoveries=(Recovery(name, "m", "o", "f", tuple(params)), STEP),
        outcome=Outcome(code, message),
    )
    assert records.decode(TASK, records.encode(task)) == task


def test_the_stored_text_is_the_fields_own() -> None:
    task = TaskRecord(TASK, "createVolume", State.RUNNING, "/a=b", recoveries=(STEP,))
    files = records.encode(task)
    assert sorted(files) == [f"{TASK}.recover.0", f"{TASK}.task"]
    lines = files[f"{TASK}.task"].decode().splitlines()
    assert "state = running" in lines
    assert "tag = spm" in lines
    assert "recoveryPolicy = auto" in lines
    assert "cleanPolicy = manual" in lines
    assert "nrecoveries = 1" in lines
    assert "store = /a_eq_b" in lines
    assert "params = a,b,/c/d" in files[f"{TASK}.recover.0"].decode().splitlines()


def test_a_parameter_with_a_comma_is_refused_before_it_is_stored() -> None:
    with pytest.raises(ValueError, match="cannot store"):
        Recovery("n", "m", "o", "f", ("a,b",))


@given(st.binary(max_size=200))
def test_stored_garbage_is_refused_not_crashed_on(data: bytes) -> None:
    with pytest.raises(TaskRecordInvalid, match=TASK):
        records.decode(TASK, {f"{TASK}.task": data})


def test_every_state_is_reported_and_has_predecessors() -> None:
    assert set(REPORTED) == set(PREDECESSORS) == set(State)


def test_a_finished_task_does_not_run_again() -> None:
    with pytest.raises(TaskTransitionIllegal, match="finished to running"):
        check_transition(TASK, State.FINISHED, State.RUNNING)


async def test_a_task_is_stored_before_its_first_step_and_after_its_last(tmp_path: Path) -> None:
    tasks, seen = _tasks(tmp_path), []

    async def body(task: Task) -> str:
        await task.will_undo(STEP)
        seen.extend(await _load(tmp_path))
        return "made"

    task_id = await tasks.start("createVolume", body)
    await tasks.wait(task_id)
    (stored,) = await _load(tmp_path)
    assert (seen[0].state, seen[0].recoveries) == (State.RUNNING, (STEP,))
    assert (stored.state, stored.outcome) == (State.FINISHED, Outcome(0, "1 jobs completed successfully", "made"))
    assert tasks.status(task_id)["taskResult"] == "success"


async def test_a_failing_task_is_undone_last_step_first(tmp_path: Path) -> None:
    undone: list[str] = []
    tasks = _tasks(tmp_path, undone)

    async def body(task: Task) -> str:
        await task.will_undo(_named("one"), _named("two"))
        raise VolumeNotFound("v", "d")

    task_id = await tasks.start("createVolume", body)
    await tasks.wait(task_id)
    status = tasks.status(task_id)
    assert undone == ["two", "one"]
    assert (status["taskState"], status["taskResult"], status["code"]) == ("finished", "cleanSuccess", 201)
    assert "Volume v does not exist" in status["message"]


async def test_a_task_whose_undoing_fails_says_so(tmp_path: Path) -> None:
    tasks = _tasks(tmp_path, fail="one")

    async def body(task: Task) -> str:
        await task.will_undo(_named("one"))
        raise ZeroDivisionError

    task_id = await tasks.start("createVolume", body)
    await tasks.wait(task_id)
    assert tasks.status(task_id)["taskResult"] == "cleanFailure"
    assert "undoing it failed" in tasks.status(task_id)["message"]


async def test_a_stopped_task_is_undone(tmp_path: Path) -> None:
    undone: list[str] = []
    tasks, working = _tasks(tmp_path, undone), asyncio.Event()

    async def body(task: Task) -> str:
        await task.will_undo(_named("one"))
        working.set()
        await asyncio.sleep(60)
        return ""

    task_id = await tasks.start("createVolume", body)
    await working.wait()
    with pytest.raises(TaskNotFinished):
        await tasks.clear(task_id)
    tasks.stop(task_id)
    await tasks.wait(task_id)
    assert undone == ["one"]
    assert tasks.status(task_id)["code"] == 411


async def test_an_interrupted_task_is_undone_by_the_next_spm(tmp_path: Path) -> None:
    working = asyncio.Event()

    async def body(task: Task) -> str:
        await task.will_undo(_named("one"), _named("two"))
        working.set()
        await asyncio.sleep(60)
        return ""

    before = _tasks(tmp_path)
    task_id = await before.start("createVolume", body)
    await working.wait()
    await before.stop_all()
    assert [r.state for r in await _load(tmp_path)] == [State.RUNNING]

    undone: list[str] = []
    after = _tasks(tmp_path, undone)
    await after.load()
    assert await after.recover_loaded() == [task_id]
    assert undone == ["two", "one"]
    assert after.status(task_id)["taskResult"] == "cleanSuccess"


async def test_a_finished_task_is_not_undone_by_the_next_spm(tmp_path: Path) -> None:
    async def body(task: Task) -> str:
        await task.will_undo(_named("one"))
        return ""

    before = _tasks(tmp_path)
    task_id = await before.start("createVolume", body)
    await before.wait(task_id)
    undone: list[str] = []
    after = _tasks(tmp_path, undone)
    await after.load()
    assert await after.recover_loaded() == []
    assert undone == []
    assert after.status(task_id)["taskResult"] == "success"
    after.revert(task_id)
    await after.wait(task_id)
    assert undone == ["one"]


async def test_clear_removes_the_stored_task(tmp_path: Path) -> None:
    async def body(task: Task) -> str:
        await task.will_undo()
        return ""

    tasks = _tasks(tmp_path)
    task_id = await tasks.start("deleteImage", body)
    await tasks.wait(task_id)
    await tasks.clear(task_id)
    assert os.listdir(tmp_path) == []
    with pytest.raises(UnknownTask, match=task_id):
        tasks.status(task_id)


async def test_a_removal_that_was_cut_off_leaves_nothing_half(tmp_path: Path) -> None:
    """What dies inside it may lose any of its files; the next SPM finds the whole ended task or none."""
    task = TaskRecord(new_uuid(), "createVolume", State.FINISHED, "/s", recoveries=(STEP,), outcome=Outcome(0, "done"))
    store = TaskStore(_DiesInARemoval(), str(tmp_path))
    await store.save(task)
    with pytest.raises(OSError, match="killed"):
        await store.remove(task.task_id)
    assert await _load(tmp_path) == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("left", ["", ".temp", ".backup"])
async def test_a_save_that_was_cut_off_is_completed(tmp_path: Path, left: str) -> None:
    task = TaskRecord(new_uuid(), "createVolume", State.RUNNING, "/s", recoveries=(STEP,))
    store = TaskStore(LocalFiles(), str(tmp_path))
    await store.save(task)
    if left:
        (tmp_path / task.task_id).rename(tmp_path / (task.task_id + left))
    torn = tmp_path / (task.task_id + ".temp")
    if left != ".temp":
        torn.mkdir()
        (torn / f"{task.task_id}.task").write_text("id = ")
    assert (await store.load()).tasks == [task]
    assert os.listdir(tmp_path) == [task.task_id]


async def test_a_task_whose_first_save_was_cut_off_never_was(tmp_path: Path) -> None:
    torn = tmp_path / f"{TASK}.temp"
    torn.mkdir()
    (torn / f"{TASK}.task").write_text("nrecoveries = 1")
    assert await _load(tmp_path) == []
    assert os.listdir(tmp_path) == []


async def test_a_damaged_task_is_kept_for_a_person(tmp_path: Path) -> None:
    damaged = tmp_path / TASK
    damaged.mkdir()
    (damaged / f"{TASK}.task").write_text("what is this")
    assert await _load(tmp_path) == []
    assert os.listdir(tmp_path) == [TASK]


async def test_what_is_no_task_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert await _load(tmp_path) == []
    assert os.listdir(tmp_path) == ["lost+found"]
