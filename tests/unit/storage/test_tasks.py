# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks: what is stored of them, and that they end done or undone."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_files import LocalFiles

from storage import locks
from storage.errors import IoFailed, StorageNotResponding, VolumeNotFound
from storage.lock_table import Locks
from storage.tasks import record as records
from storage.tasks.record import Outcome, Recovery, TaskRecord, TaskRecordInvalid
from storage.tasks.runner import StepInvalid, Task, TaskNotFinished, TaskNotStoppable, Tasks, UnknownTask
from storage.tasks.states import PREDECESSORS, REPORTED, State, TaskTransitionIllegal, check_transition
from storage.tasks.store import TaskStore
from vdsm.common.ids import new_uuid

TASK = "11111111-2222-4333-8444-555555555555"
STEP = Recovery("step", "fileVolume", "FileVolume", "halfbakedVolumeRollback", ("a", "b", "/c/d"))


class _DiesInARemoval(LocalFiles):
    async def remove_tree(self, name: str) -> None:
        path = self.path(name)
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
    return Tasks(TaskStore(LocalFiles(folder)), steps or _Steps(undone, fail), _code_of, Locks())


def _named(name: str, *params: str) -> Recovery:
    return Recovery(name, "m", "o", "f", params)


async def _load(folder: Path) -> list[TaskRecord]:
    return (await TaskStore(LocalFiles(folder)).load()).tasks


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
    store = TaskStore(_DiesInARemoval(tmp_path))
    await store.save(task)
    with pytest.raises(OSError, match="killed"):
        await store.remove(task.task_id)
    assert await _load(tmp_path) == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("left", ["", ".temp", ".backup"])
async def test_a_save_that_was_cut_off_is_completed(tmp_path: Path, left: str) -> None:
    task = TaskRecord(new_uuid(), "createVolume", State.RUNNING, "/s", recoveries=(STEP,))
    store = TaskStore(LocalFiles(tmp_path))
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


# What lies there and is no task


def _odd_file(folder: Path) -> None:
    (folder / new_uuid()).write_text("a file")


def _odd_name(folder: Path) -> None:
    (folder / "what is this").mkdir()


def _odd_subfolder(folder: Path) -> None:
    task_id = new_uuid()
    (folder / task_id / f"{task_id}.task").mkdir(parents=True)


def _odd_size(folder: Path) -> None:
    task_id = new_uuid()
    (folder / task_id).mkdir()
    (folder / task_id / f"{task_id}.task").write_text("id = x\nr = " + "x" * 70000)


def _odd_count(folder: Path) -> None:
    task_id = new_uuid()
    (folder / task_id).mkdir()
    for n in range(1001):
        (folder / task_id / f"{task_id}.recover.{n}").touch()


def _odd_content(folder: Path) -> None:
    task_id = new_uuid()
    (folder / task_id).mkdir()
    (folder / task_id / f"{task_id}.task").write_bytes(b"\xff\x00garbage")


def _odd_numbers(folder: Path) -> None:
    task_id = new_uuid()
    (folder / task_id).mkdir()
    (folder / task_id / f"{task_id}.task").write_text(f"id = {task_id}\nstate = running\nnrecoveries = 99999\n")


def _odd_state(folder: Path) -> None:
    task_id = new_uuid()
    (folder / task_id).mkdir()
    (folder / task_id / f"{task_id}.task").write_text(f"id = {task_id}\nstate = dancing\nnrecoveries = 0\n")


def _odd_backup(folder: Path) -> None:
    (folder / f"{new_uuid()}.backup").write_text("a file")


ODD = [
    _odd_file,
    _odd_name,
    _odd_subfolder,
    _odd_size,
    _odd_count,
    _odd_content,
    _odd_numbers,
    _odd_state,
    _odd_backup,
]


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
async def test_what_is_no_task_is_told_and_left_and_hides_no_other(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    whole = TaskRecord(new_uuid(), "createVolume", State.RUNNING, "/s", recoveries=(STEP,))
    await TaskStore(LocalFiles(tmp_path)).save(whole)
    make(tmp_path)
    before = sorted(os.listdir(tmp_path))
    loaded = await TaskStore(LocalFiles(tmp_path)).load()
    assert loaded.tasks == [whole]
    assert len(loaded.odd) == 1, loaded.odd
    assert str(tmp_path) in loaded.odd[0] or "was not taken over" in loaded.odd[0]
    assert sorted(os.listdir(tmp_path)) == before


async def test_storage_that_does_not_answer_is_no_odd_task(tmp_path: Path) -> None:
    class Silent(LocalFiles):
        async def read(self, name: str, max_bytes: int) -> bytes:
            raise StorageNotResponding(name, "read", 60.0)

    await TaskStore(LocalFiles(tmp_path)).save(TaskRecord(TASK, "createVolume", State.RUNNING, "/s"))
    with pytest.raises(StorageNotResponding):
        await TaskStore(Silent(tmp_path)).load()


async def test_a_torn_temp_beside_a_whole_backup_is_not_taken(tmp_path: Path) -> None:
    """Its last file is missing: the task would seem to have ended without a result."""
    store = TaskStore(LocalFiles(tmp_path))
    running = TaskRecord(TASK, "createVolume", State.RUNNING, "/s", recoveries=(STEP,))
    await store.save(replace(running, state=State.FINISHED, outcome=Outcome(0, "done", "made")))
    torn = tmp_path / f"{TASK}.temp"
    (tmp_path / TASK).rename(torn)
    written = list(records.encode(replace(running, state=State.FINISHED, outcome=Outcome(0, "done"))))
    (torn / written[-1]).unlink()
    await store.save(running)
    (tmp_path / TASK).rename(tmp_path / f"{TASK}.backup")
    torn.mkdir(exist_ok=True)
    (torn / written[0]).write_bytes(b"name = x\n")
    assert (await store.load()).tasks == [running]


async def test_a_save_after_one_that_was_refused_between_its_renames(tmp_path: Path) -> None:
    """There is a whole task at every moment, although the last save left none under the plain name."""

    class Refusing(LocalFiles):
        refuse = False
        seen: list[list[str]]

        async def rename(self, old: str, new: str) -> None:
            if self.refuse and old.endswith(".temp"):
                raise IoFailed("rename", old, "EIO", "Input/output error")
            await super().rename(old, new)

        async def write_tree(self, name: str, files: Mapping[str, bytes]) -> None:
            assert not self.refuse or _whole(tmp_path)
            await super().write_tree(name, files)

    files = Refusing(tmp_path)
    store = TaskStore(files)
    one = TaskRecord(TASK, "createVolume", State.RUNNING, "/s")
    two = replace(one, recoveries=(STEP,))
    await store.save(one)
    files.refuse = True
    with pytest.raises(IoFailed):
        await store.save(two)
    assert os.listdir(tmp_path) != [TASK]
    files.refuse = False
    await store.save(two)
    assert (await store.load()).tasks == [two]
    assert os.listdir(tmp_path) == [TASK]


def _whole(folder: Path) -> bool:
    return any((folder / name / f"{TASK}.task").exists() for name in (TASK, f"{TASK}.backup"))


def test_what_another_program_wrote_is_read() -> None:
    """Unknown fields, blank lines, lines that are no field, blanks around parameters."""
    files = {
        f"{TASK}.task": f"\nid = {TASK}\nname = createVolume\nstate = running\nnjobs = 1\nnrecoveries = 1\n"
        "shade = blue\nno field\na = b = c\n".encode(),
        f"{TASK}.job.0": b"name = createVolume\nruncmd = bound method of <x>\n",
        f"{TASK}.recover.0": b"name = n\nmoduleName = m\nobject = o\nfunction = f\nparams = a, b ,/c_eq_d\n",
    }
    record = records.decode(TASK, files)
    assert (record.verb, record.state, record.job) == ("createVolume", State.RUNNING, "createVolume")
    assert record.recoveries == (Recovery("n", "m", "o", "f", ("a", "b", "/c=d")),)


def test_a_message_of_several_lines_is_stored_as_one() -> None:
    outcome = Outcome(100, "first\u2028second\r\nthird = x\x0bfourth")
    files = records.encode(TaskRecord(TASK, "v", State.FINISHED, "/s", outcome=outcome))
    assert files[f"{TASK}.result"].decode().split("\n")[1] == "message = first second third _eq_ x fourth"


# Locks and the way back


async def test_a_task_is_stored_before_anybody_is_told_of_it(tmp_path: Path) -> None:
    tasks, gate = _tasks(tmp_path), asyncio.Event()

    async def body(_task: Task) -> str:
        await gate.wait()
        return ""

    task_id = await tasks.start("createVolume", body, job="the job")
    (stored,) = await _load(tmp_path)
    assert (stored.task_id, stored.verb, stored.job, stored.state) == (task_id, "createVolume", "the job", State.QUEUED)
    gate.set()
    await tasks.wait(task_id)


async def test_a_task_that_cannot_be_stored_does_not_begin(tmp_path: Path) -> None:
    tasks, ran = _tasks(tmp_path / "missing"), []

    async def body(_task: Task) -> str:
        ran.append(True)
        return ""

    with pytest.raises(IoFailed):
        await tasks.start("createVolume", body)
    assert tasks.all() == []
    assert not ran


async def test_a_step_that_is_not_known_is_stepped_over_and_told(tmp_path: Path) -> None:
    undone: list[str] = []
    tasks = _tasks(tmp_path, undone)

    async def body(task: Task) -> str:
        await task.will_undo(_named("one"), _named("odd"), _named("two"))
        raise VolumeNotFound("v", "d")

    task_id = await tasks.start("createVolume", body)
    await tasks.wait(task_id)
    assert undone == ["two", "one"]
    status = tasks.status(task_id)
    assert (status["taskResult"], status["code"]) == ("cleanFailure", 201)
    assert "it is not known here" in status["message"]


async def test_the_way_back_ends_at_a_step_that_fails(tmp_path: Path) -> None:
    undone: list[str] = []
    tasks = _tasks(tmp_path, undone, fail="two")

    async def body(task: Task) -> str:
        await task.will_undo(_named("one"), _named("two"), _named("three"))
        raise VolumeNotFound("v", "d")

    task_id = await tasks.start("createVolume", body)
    record = await tasks.wait(task_id)
    assert undone == ["three"]
    assert len(record.recoveries) == 3


async def test_a_task_keeps_its_locks_while_it_is_undone(tmp_path: Path) -> None:
    steps = _Steps()
    tasks, order = _tasks(tmp_path, steps=steps), []

    async def fails(task: Task) -> str:
        await task.will_undo(_named("slow"))
        order.append("first")
        raise VolumeNotFound("v", "d")

    async def second(_task: Task) -> str:
        order.append(f"second after {steps.undone}")
        return ""

    one = await tasks.start("createVolume", fails, [IMAGE])
    two = await tasks.start("createVolume", second, [IMAGE])
    while tasks.get(one).state is not State.RECOVERING:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert order == ["first"]
    steps.go.set()
    await tasks.wait(two)
    assert order == ["first", "second after ['slow']"]


async def test_loaded_tasks_have_their_locks_before_new_ones(tmp_path: Path) -> None:
    stored = [
        TaskRecord(new_uuid(), "v", State.RUNNING, "/s", recoveries=(_named("slow", "i"),)),
        TaskRecord(new_uuid(), "v", State.QUEUED, "/s", recoveries=(_named("later", "i", "other"),)),
    ]
    for record in sorted(stored, key=lambda r: r.task_id):
        await TaskStore(LocalFiles(tmp_path)).save(record)
    steps = _Steps()
    tasks = _tasks(tmp_path, steps=steps)
    await tasks.load()
    recovering = asyncio.ensure_future(tasks.recover_loaded())
    await asyncio.sleep(0)
    ran: list[list[str]] = []

    async def body(_task: Task) -> str:
        ran.append(list(steps.undone))
        return ""

    new = [await tasks.start("v", body, [locks.image("d", name)]) for name in ("i", "other")]
    for _ in range(20):
        await asyncio.sleep(0)
    assert ran == []
    steps.go.set()
    await recovering
    for task_id in new:
        await tasks.wait(task_id)
    assert sorted(steps.undone) == ["later", "slow"]
    assert [len(undone) for undone in ran] == [2, 2]


async def test_an_ended_task_is_not_stopped(tmp_path: Path) -> None:
    """A stop that comes late does nothing; one in the middle of storing the end is refused."""

    async def body(_task: Task) -> str:
        return ""

    tasks = _tasks(tmp_path)
    task_id = await tasks.start("v", body)
    await tasks.wait(task_id)
    tasks.stop(task_id)
    assert tasks.status(task_id)["taskResult"] == "success"
    other = await tasks.start("v", body)
    while not tasks.get(other).worked:
        await asyncio.sleep(0)
    if tasks.get(other).state is State.RUNNING:
        with pytest.raises(TaskNotStoppable):
            tasks.stop(other)
    await tasks.wait(other)
    assert tasks.status(other)["taskResult"] == "success"


async def test_a_save_goes_to_its_end_when_its_task_is_stopped(tmp_path: Path) -> None:
    class Slow(LocalFiles):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            self.inside, self.go = asyncio.Event(), asyncio.Event()

        async def rename(self, old: str, new: str) -> None:
            self.inside.set()
            await self.go.wait()
            await super().rename(old, new)

    files = Slow(tmp_path)
    files.go.set()
    steps = _Steps()
    tasks = Tasks(TaskStore(files), steps, _code_of, Locks())

    async def body(task: Task) -> str:
        files.go.clear()
        files.inside.clear()
        await task.will_undo(_named("one"))
        raise AssertionError("it was stopped before")

    task_id = await tasks.start("v", body)
    await asyncio.sleep(0)
    await files.inside.wait()
    tasks.stop(task_id)
    for _ in range(20):
        await asyncio.sleep(0)
    assert steps.undone == []
    files.go.set()
    await tasks.wait(task_id)
    assert steps.undone == ["one"]
    assert tasks.status(task_id)["code"] == 411


async def test_a_revert_that_was_interrupted_is_told_as_one(tmp_path: Path) -> None:
    """Not as finished: half of what it made is gone."""
    steps = _Steps()
    tasks = _tasks(tmp_path, steps=steps)

    async def body(task: Task) -> str:
        await task.will_undo(_named("slow"))
        return ""

    task_id = await tasks.start("v", body)
    await tasks.wait(task_id)
    tasks.revert(task_id)
    assert tasks.status(task_id)["taskState"] == "cleaning"
    with pytest.raises(TaskNotFinished):
        tasks.revert(task_id)
    while tasks.get(task_id).state is not State.RECOVERING:
        await asyncio.sleep(0)
    assert [record.state for record in await _load(tmp_path)] == [State.RACQUIRING]
    steps.go.set()
    await tasks.wait(task_id)
    assert [record.state for record in await _load(tmp_path)] == [State.RECOVERED]


async def test_a_power_cut_after_a_save_or_a_removal_takes_nothing_back(tmp_path: Path) -> None:
    """What was not synced may be gone."""

    class Synced(LocalFiles):
        async def sync(self) -> None:
            shutil.rmtree(tmp_path / "durable", ignore_errors=True)
            shutil.copytree(self.folder, tmp_path / "durable")

    (tmp_path / "tasks").mkdir()
    store = TaskStore(Synced(tmp_path / "tasks"))
    one = TaskRecord(TASK, "createVolume", State.RUNNING, "/s")
    for record in (one, replace(one, recoveries=(STEP,))):
        await store.save(record)
        assert await _load(tmp_path / "durable") == [record]
        assert os.listdir(tmp_path / "durable") == [TASK]
    await store.remove(TASK)
    assert os.listdir(tmp_path / "durable") == []
