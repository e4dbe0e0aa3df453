# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs SPM tasks: from the first step to finished, or back to where it began.

A task is stored on the master domain before anybody is told of it. Before each step its body tells how to
undo it (`Task.will_undo`), which is stored before the step is done. From then on it ends in one of
three ways, whoever is SPM:

- the body returns: state finished is stored together with the result;
- it fails or is stopped: its recoveries run, last in first out, then recovered or failed is stored;
- this process dies: the next SPM loads the stored task, finds it running and runs its recoveries.

There is one way back (`Tasks._undo`), for a failure, a revert and a task of an SPM that died, and a task has its
locks for all of its way: they are taken before the first step and given back after the last one, or
after the last step back. Loaded tasks ask for theirs before any new task can. Tasks that need the same image
are undone one after the other.

A task that ended stays until the engine clears it. Bodies run in tasks of their own: a caller
that goes away cancels nothing. A save that began goes to its end, also when its task is stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Protocol

from storage.errors import StorageError
from storage.locks import Lock, LockTable, merge, overlapping
from storage.tasks import shown
from storage.tasks.files import Files
from storage.tasks.record import Outcome, Recovery, TaskRecord
from storage.tasks.states import DONE, State, check_transition
from storage.tasks.store import TaskStore
from storage.tasks.uncut import to_its_end
from vdsm.common import logs
from vdsm.common.clocks import Clock
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError, RemoteError
from vdsm.common.ids import new_uuid

log = logging.getLogger("vdsm.storage.tasks")

MAX_RUNNING = 10
MAX_TASKS = 500
LOCK_WAIT_S = 600.0

STORED = crash_point("task.start.stored", "the task is stored, nobody was told of it")
UNDO_STORED = crash_point("task.undo.stored", "how to undo the next step is stored, the step is not done")
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


class StepInvalid(StorageError):
    """A stored step back that this program cannot do; the others still can."""

    call: str
    reason: str
    msg = "Stored step back {self.call} cannot be done: {self.reason}"


class StepsBack(Protocol):
    """Does what a stored recovery says, and knows what must be held meanwhile."""

    def locks(self, recoveries: Sequence[Recovery]) -> list[Lock]: ...
    async def run(self, recovery: Recovery) -> None:
        """Raises `StepInvalid`, or what the storage refused."""


Body = Callable[["Task"], Awaitable[str]]
CodeOf = Callable[[BaseException], int]


class Task:
    """One task: what is stored of it, and the running body, if it runs here."""

    def __init__(self, record: TaskRecord, store: TaskStore | None) -> None:
        self.record = record
        self.running: asyncio.Task[None] | None = None
        self.worked = False
        """All steps are done: it can no longer be stopped."""
        self.unstored_end = False
        """The stored task is to be undone still, although it was."""
        self.progress: float | None = None
        """Percent of the step that takes long, while that tells."""
        self._store = store

    def advance(self, done: int, size: int) -> None:
        self.progress = 100.0 * done / size if size else None

    @property
    def task_id(self) -> str:
        return self.record.task_id

    @property
    def state(self) -> State:
        return self.record.state

    async def will_undo(self, *recoveries: Recovery) -> None:
        """Store how to undo what comes next. To be called before each step that leaves something."""
        known = {recovery.name for recovery in self.record.recoveries}
        if twice := [r.name for r in recoveries if r.name in known]:
            raise ValueError(f"stored already: {twice}")
        self.record = replace(self.record, recoveries=self.record.recoveries + recoveries)
        await self.save()
        UNDO_STORED.reach()

    def replace_recoveries(self, first: str, *recoveries: Recovery) -> None:
        """In place of the one named ``first`` and all after it; stored with the next save, at the latest the end."""
        names = [recovery.name for recovery in self.record.recoveries]
        kept = self.record.recoveries[: names.index(first)]
        self.record = replace(self.record, recoveries=kept + recoveries)

    def drop_recoveries(self) -> None:
        """What was done stays done; stored with the next save."""
        self.record = replace(self.record, recoveries=())

    def go(self, *states: State) -> None:
        for state in states:
            check_transition(self.task_id, self.record.state, state)
            self.record = replace(self.record, state=state)

    async def end(self, state: State, outcome: Outcome) -> None:
        """Stored first, shown after: nobody is told of an end that a crash could take back."""
        check_transition(self.task_id, self.record.state, state)
        ended = replace(self.record, state=state, outcome=outcome)
        if self._store is not None:
            await to_its_end(self._store.save(ended))
        self.record = ended
        FINISHED.reach()

    async def end_undone(self, state: State, outcome: Outcome) -> None:
        """The same; but storage that refuses to store it does not keep the task from ending here.

        What is stored then says still how to undo it: see `Tasks.start`.
        """
        try:
            await self.end(state, outcome)
        except AgentError as e:
            log.error("task %s: its end could not be stored, the next SPM would undo it again: %s", self.task_id, e)
            self.record = replace(self.record, state=State.FAILED, outcome=outcome)
            self.unstored_end = True

    async def save(self) -> None:
        if self._store is not None:
            await to_its_end(self._store.save(self.record))


class Tasks:
    def __init__(self, store: TaskStore | None, steps: StepsBack, code_of: CodeOf, held: LockTable) -> None:
        self._store = store
        self._steps = steps
        self._code_of = code_of
        self._locks = held
        self._tasks: dict[str, Task] = {}
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        self._ending = False
        self._late_ends = asyncio.Lock()

    async def start(self, verb: str, body: Body, wanted: Iterable[Lock] = (), *, job: str = "", about: str = "") -> str:
        """Store and start a task that runs under the ``wanted`` locks; its id.

        Ends that could not be stored are stored first: another SPM would undo those tasks over what this one makes.
        Raises `TooManyTasks`, or what the store was refused for: then there is no task.
        """
        if len(self._tasks) >= MAX_TASKS:
            raise TooManyTasks(MAX_TASKS)
        await self._store_late_ends()
        folder = self._store.folder if self._store is not None else ""
        task = Task(TaskRecord(new_uuid(), verb, State.INIT, folder, job=job or verb), self._store)
        self._tasks[task.task_id] = task
        task.go(State.PREPARING, State.ACQUIRING, State.QUEUED)
        try:
            await task.save()
        except BaseException:
            self._tasks.pop(task.task_id)
            raise
        STORED.reach()
        self._spawn(task, self._run(task, body, list(wanted), about))
        return task.task_id

    async def load(self) -> list[str]:
        """Take over what is stored: ended tasks are kept for the engine, others wait for `recover_loaded`.

        Sentences about what lies in the store and was stepped over.
        """
        assert self._store is not None
        loaded = await self._store.load()
        for record in loaded.tasks:
            self._tasks.setdefault(record.task_id, Task(record, self._store))
        return loaded.odd

    async def recover_loaded(self) -> list[str]:
        """Undo every loaded task that had not ended; the ids of these. Asks for all locks before it waits for any."""
        left = [t for t in self._tasks.values() if t.state not in DONE and t.running is None]
        for task in left:
            log.info("task %s (%s) was %s when its SPM ended", task.task_id, task.record.verb, task.state)
            # whatever state another SPM was interrupted in, the way out of it is the same
            task.record = replace(task.record, state=State.ABORTING)
        needed = [(task, self._steps.locks(task.record.recoveries)) for task in left]
        await asyncio.gather(*(self._recover(group) for group in overlapping(needed)))
        return [task.task_id for task in left]

    async def _recover(self, group: Sequence[tuple[Task, list[Lock]]]) -> None:
        needed = merge(lock for _, wanted in group for lock in wanted)
        who = "undoing " + ", ".join(task.record.named for task, _ in group)
        async with self._locks.hold(needed, who=who, wait_s=LOCK_WAIT_S):
            for task, _ in group:
                with logs.flow(task.task_id):
                    await self._undo(task, TaskAborted(task.task_id))

    def get(self, task_id: str) -> Task:
        try:
            return self._tasks[task_id]
        except KeyError:
            raise UnknownTask(task_id) from None

    def status(self, task_id: str) -> dict[str, Any]:
        """taskState, taskResult, code and message as `Task.getStatus` shows them."""
        return shown.status(self.get(task_id).record)

    def all(self) -> list[TaskRecord]:
        return [task.record for task in self._tasks.values()]

    def described(self) -> list[dict[str, Any]]:
        """Each with all that is shown of one, in whatever view."""
        return [shown.whole(task.record, task.progress) for task in self._tasks.values()]

    def stop(self, task_id: str) -> None:
        """Ask a task to stop; it ends recovered. Nothing happens when it has ended. Raises `TaskNotStoppable`."""
        task = self.get(task_id)
        if task.state in DONE:
            return
        if task.running is None or task.worked or task.state not in (State.QUEUED, State.RUNNING):
            raise TaskNotStoppable(task_id, task.state)
        task.running.cancel()

    async def clear(self, task_id: str) -> None:
        """Forget an ended task, also on storage. Raises `TaskNotFinished`."""
        task = self.get(task_id)
        if task.state not in DONE:
            raise TaskNotFinished(task_id, task.state)
        if self._store is not None:
            async with self._late_ends:  # of a save that began: it would come back
                await self._store.remove(task_id)
                task.unstored_end = False
        CLEARED.reach()
        self._tasks.pop(task_id, None)

    def revert(self, task_id: str) -> None:
        """Undo a finished task by its recoveries, in the background. Raises `TaskNotFinished`."""
        task = self.get(task_id)
        if task.state is not State.FINISHED:
            raise TaskNotFinished(task_id, task.state)
        task.go(State.RACQUIRING)
        self._spawn(task, self._revert(task))

    async def move_store(self, target: Files, commit: Callable[[], Awaitable[None]]) -> list[str]:
        """Tasks, those that there are as well, are stored on another master from ``commit`` on: `TaskStore.move`."""
        assert self._store is not None
        return await self._store.move(target, commit)

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

    async def _store_late_ends(self) -> None:
        async with self._late_ends:
            for task in [task for task in self._tasks.values() if task.unstored_end]:
                await task.save()
                task.unstored_end = False
                log.info("task %s: its end is stored now", task.task_id)

    def _spawn(self, task: Task, body: Awaitable[None]) -> None:
        async def run() -> None:
            with logs.flow(task.task_id):
                await body

        task.running = asyncio.get_running_loop().create_task(run(), name=f"task {task.task_id}")

    async def _run(self, task: Task, body: Body, wanted: list[Lock], about: str) -> None:
        async with AsyncExitStack() as held:  # the locks, and a slot: also on the way back
            try:
                await held.enter_async_context(self._locks.hold(wanted, who=task.record.named, wait_s=LOCK_WAIT_S))
                await held.enter_async_context(self._slots)
                await self._work(task, body, about)
                return
            except asyncio.CancelledError:
                if self._ending:
                    return
                failure: BaseException = TaskAborted(task.task_id)
            except AgentError as e:
                failure = e
            except Exception as e:  # a defect in one task must not leave it half done nor end the SPM
                log.exception("task %s (%s)", task.task_id, task.record.verb)
                failure = RemoteError(type(e).__name__, f"{type(e).__name__}: {e}")
            log.warning("task %s (%s) failed: %s", task.task_id, task.record.verb, failure)
            task.go(State.ABORTING)
            await self._undo(task, failure)

    async def _work(self, task: Task, body: Body, about: str) -> None:
        task.go(State.RUNNING)
        with Clock(task.record.verb, about):
            result = await body(task)
        WORKED.reach()
        task.worked = True
        await task.end(State.FINISHED, Outcome(0, "1 jobs completed successfully", result))

    async def _revert(self, task: Task) -> None:
        reverted = TaskAborted(task.task_id)
        try:
            needed = self._steps.locks(task.record.recoveries)
            async with self._locks.hold(needed, who=f"reverting {task.record.named}", wait_s=LOCK_WAIT_S):
                await task.save()
                await self._undo(task, reverted)
        except AgentError as e:  # nothing was undone: said as the end of the task
            log.error("task %s (%s) was not reverted: %s", task.task_id, task.record.verb, e)
            task.go(State.RECOVERING)
            await task.end_undone(State.FAILED, Outcome(self._code_of(e), f"It was not reverted: {e}"))

    async def _undo(self, task: Task, failure: BaseException) -> None:
        """Back to where the task began. Its locks are held."""
        task.go(State.RACQUIRING, State.RECOVERING)
        outcome = Outcome(self._code_of(failure), str(failure))
        skipped: list[str] = []
        try:
            for recovery in reversed(task.record.recoveries):
                try:
                    await self._steps.run(recovery)
                except StepInvalid as e:
                    log.error("task %s (%s): %s", task.task_id, task.record.verb, e)
                    skipped.append(str(e))
        except Exception as e:  # whatever a step back hit is told as the end of the task
            log.exception("task %s (%s): undoing it failed", task.task_id, task.record.verb)
            await task.end_undone(State.FAILED, replace(outcome, message=f"{outcome.message}; undoing it failed: {e}"))
            return
        if skipped:
            said = "; ".join([outcome.message, *skipped])
            await task.end_undone(State.FAILED, replace(outcome, message=said))
            return
        task.drop_recoveries()
        await task.end_undone(State.RECOVERED, outcome)
