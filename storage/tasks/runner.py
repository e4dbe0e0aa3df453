# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs SPM tasks: from the first step to finished, or back to where it began.

A task's body tells its recoveries before its first step (`Task.will_undo`), which stores the task
on the master domain. From then on it ends in one of three ways, whoever is SPM:

- the body returns: state finished is stored together with the result;
- it fails or is stopped: its recoveries run, last in first out, then recovered or failed is stored;
- this process dies: the next SPM loads the stored task, finds it running and runs its recoveries.

A task that ended stays until the engine clears it. Bodies run in tasks of their own: a caller
that goes away cancels nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from storage.errors import StorageError
from storage.tasks.record import Outcome, Recovery, TaskRecord
from storage.tasks.states import DONE, REPORTED, State, check_transition
from storage.tasks.store import TaskStore
from vdsm.common import logs
from vdsm.common.clocks import Clock
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError, RemoteError
from vdsm.common.ids import new_uuid

log = logging.getLogger("vdsm.storage.tasks")

MAX_RUNNING = 10
MAX_TASKS = 500

STORED = crash_point("task.start.stored", "the task and its recoveries are stored, no step was done")
WORKED = crash_point("task.end.worked", "all steps are done, the stored task still says running")
FINISHED = crash_point("task.end.stored", "the end of the task is stored, nobody was told")
CLEARED = crash_point("task.clear.removed", "the task's directory is removed, the caller was not told")


class UnknownTask(StorageError):
    task_id: str
    msg = "There is no task {self.task_id} on this host"


class TaskNotFinished(StorageError):
    task_id: str
    state: str
    msg = "Task {self.task_id} is not finished: its state is {self.state}"


class TaskNotStoppable(StorageError):
    task_id: str
    state: str
    msg = "Task {self.task_id} cannot be stopped: its state is {self.state}"


class TaskAborted(StorageError):
    task_id: str
    msg = "Task {self.task_id} was stopped"


class TooManyTasks(StorageError):
    limit: int
    msg = "This host holds {self.limit} tasks already: clear finished ones first"


Recover = Callable[[Recovery], Awaitable[None]]
Body = Callable[["Task"], Awaitable[str]]
CodeOf = Callable[[BaseException], int]


class Task:
    """One task: what is stored of it, and the running body, if it runs here."""

    def __init__(self, record: TaskRecord, store: TaskStore | None) -> None:
        self.record = record
        self.running: asyncio.Task[None] | None = None
        self._store = store

    @property
    def task_id(self) -> str:
        return self.record.task_id

    @property
    def state(self) -> State:
        return self.record.state

    async def will_undo(self, *recoveries: Recovery) -> None:
        """Store how to undo what comes next. To be called before the first step."""
        self.record = replace(self.record, recoveries=self.record.recoveries + recoveries)
        await self.save()
        STORED.reach()

    def replace_recoveries(self, *recoveries: Recovery) -> None:
        """What `Task.revert` will do once the task is finished; stored together with its end."""
        self.record = replace(self.record, recoveries=recoveries)

    def go(self, *states: State) -> None:
        for state in states:
            check_transition(self.task_id, self.record.state, state)
            self.record = replace(self.record, state=state)

    async def end(self, state: State, outcome: Outcome) -> None:
        """Stored first, shown after: nobody is told of an end that a crash could take back."""
        check_transition(self.task_id, self.record.state, state)
        ended = replace(self.record, state=state, outcome=outcome)
        if self._store is not None:
            await self._store.save(ended)
        self.record = ended
        FINISHED.reach()

    async def end_undone(self, state: State, outcome: Outcome) -> None:
        """The same; but storage that refuses to store it does not keep the task from ending here."""
        try:
            await self.end(state, outcome)
        except AgentError as e:
            log.error("task %s: its end could not be stored, the next SPM will undo it again: %s", self.task_id, e)
            self.record = replace(self.record, state=State.FAILED, outcome=outcome)

    async def save(self) -> None:
        if self._store is not None:
            await self._store.save(self.record)


class Tasks:
    def __init__(self, store: TaskStore | None, recover: Recover, code_of: CodeOf) -> None:
        self._store = store
        self._recover = recover
        self._code_of = code_of
        self._tasks: dict[str, Task] = {}
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        self._ending = False

    def start(self, verb: str, body: Body, about: str = "") -> str:
        """Start a task; its id. Raises `TooManyTasks`."""
        if len(self._tasks) >= MAX_TASKS:
            raise TooManyTasks(MAX_TASKS)
        folder = self._store.folder if self._store is not None else ""
        task = Task(TaskRecord(new_uuid(), verb, State.INIT, folder), self._store)
        self._tasks[task.task_id] = task
        task.go(State.PREPARING, State.ACQUIRING, State.QUEUED)
        self._spawn(task, self._run(task, body, about))
        return task.task_id

    async def load(self) -> None:
        """Take over what is stored. Ended tasks are kept for the engine; others wait for `recover_loaded`."""
        assert self._store is not None
        for record in await self._store.load():
            self._tasks.setdefault(record.task_id, Task(record, self._store))

    async def recover_loaded(self) -> list[str]:
        """Undo every loaded task that had not ended; the ids of these."""
        left = [t for t in self._tasks.values() if t.state not in DONE and t.running is None]
        for task in left:
            log.info("task %s (%s) was %s when its SPM ended", task.task_id, task.record.verb, task.state)
            # whatever state another SPM was interrupted in, the way out of it is the same
            task.record = replace(task.record, state=State.ABORTING)
        await asyncio.gather(*(self._undo(task, TaskAborted(task.task_id)) for task in left))
        return [task.task_id for task in left]

    def get(self, task_id: str) -> Task:
        try:
            return self._tasks[task_id]
        except KeyError:
            raise UnknownTask(task_id) from None

    def status(self, task_id: str) -> dict[str, Any]:
        """taskState, taskResult, code and message as `Task.getStatus` shows them."""
        return describe_status(self.get(task_id).record)

    def all(self) -> list[TaskRecord]:
        return [task.record for task in self._tasks.values()]

    def stop(self, task_id: str) -> None:
        """Ask a running task to stop; it ends recovered. Raises `TaskNotStoppable`."""
        task = self.get(task_id)
        if task.running is None or task.state not in (State.QUEUED, State.RUNNING):
            raise TaskNotStoppable(task_id, task.state)
        task.running.cancel()

    async def clear(self, task_id: str) -> None:
        """Forget an ended task, also on storage. Raises `TaskNotFinished`."""
        task = self.get(task_id)
        if task.state not in DONE:
            raise TaskNotFinished(task_id, task.state)
        if self._store is not None:
            await self._store.remove(task_id)
        CLEARED.reach()
        self._tasks.pop(task_id, None)

    def revert(self, task_id: str) -> None:
        """Undo a finished task by its recoveries, in the background. Raises `TaskNotFinished`."""
        task = self.get(task_id)
        if task.state is not State.FINISHED:
            raise TaskNotFinished(task_id, task.state)
        self._spawn(task, self._undo(task, TaskAborted(task_id)))

    async def wait(self, task_id: str) -> TaskRecord:
        task = self.get(task_id)
        if task.running is not None:
            await asyncio.wait([task.running])
        return task.record

    async def stop_all(self) -> None:
        """Interrupt what runs without undoing it: the next SPM does. For the end of the role only."""
        self._ending = True
        interrupted = [t.running for t in self._tasks.values() if t.running is not None and not t.running.done()]
        for running in interrupted:
            running.cancel()
        if interrupted:
            await asyncio.wait(interrupted)

    def _spawn(self, task: Task, body: Awaitable[None]) -> None:
        async def run() -> None:
            with logs.flow(task.task_id):
                await body

        task.running = asyncio.get_running_loop().create_task(run(), name=f"task {task.task_id}")

    async def _run(self, task: Task, body: Body, about: str) -> None:
        failure: BaseException
        try:
            async with self._slots:
                task.go(State.RUNNING)
                with Clock(task.record.verb, about):
                    result = await body(task)
                WORKED.reach()
                await task.end(State.FINISHED, Outcome(0, "1 jobs completed successfully", result))
                return
        except asyncio.CancelledError:
            if self._ending:
                return
            failure = TaskAborted(task.task_id)
        except AgentError as e:
            failure = e
        except Exception as e:  # a defect in one task must not leave it half done nor end the SPM
            log.exception("task %s (%s)", task.task_id, task.record.verb)
            failure = RemoteError(type(e).__name__, f"{type(e).__name__}: {e}")
        log.warning("task %s (%s) failed: %s", task.task_id, task.record.verb, failure)
        task.go(State.ABORTING)
        await self._undo(task, failure)

    async def _undo(self, task: Task, failure: BaseException) -> None:
        task.go(State.RACQUIRING, State.RECOVERING)
        outcome = Outcome(self._code_of(failure), str(failure))
        try:
            for recovery in reversed(task.record.recoveries):
                await self._recover(recovery)
        except Exception as e:  # whatever a step back hit is told as the end of the task
            log.exception("task %s (%s): undoing it failed", task.task_id, task.record.verb)
            await task.end_undone(State.FAILED, replace(outcome, message=f"{outcome.message}; undoing it failed: {e}"))
            return
        task.replace_recoveries()
        await task.end_undone(State.RECOVERED, outcome)


def describe_status(record: TaskRecord) -> dict[str, Any]:
    state, result = REPORTED[record.state]
    outcome = record.outcome or Outcome(0, f"Task is {record.state}")
    return {
        "taskID": record.task_id,
        "taskState": state,
        "taskResult": result,
        "code": outcome.code,
        "message": outcome.message,
    }


def describe_infos(records: list[TaskRecord]) -> Mapping[str, Any]:
    return {record.task_id: {"id": record.task_id, "verb": record.verb} for record in records}
