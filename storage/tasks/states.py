# SPDX-License-Identifier: GPL-2.0-or-later
"""States of a task, which may follow which, and what a client sees (storage.md 11.1).

The names are stored in ``<master>/tasks`` and read by other hosts, so they are a contract.
"""

from __future__ import annotations

from enum import StrEnum

from storage.errors import StorageError


class State(StrEnum):
    UNKNOWN = "unknown"
    INIT = "init"
    PREPARING = "preparing"
    BLOCKED = "blocked"
    ACQUIRING = "acquiring"
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTING = "aborting"
    WAITRECOVER = "waitrecover"
    RACQUIRING = "racquiring"
    RECOVERING = "recovering"
    RABORTING = "raborting"
    RECOVERED = "recovered"
    FAILED = "failed"


S = State

PREDECESSORS: dict[State, frozenset[State]] = {
    S.UNKNOWN: frozenset(),
    S.INIT: frozenset(),
    S.PREPARING: frozenset({S.INIT, S.BLOCKED}),
    S.BLOCKED: frozenset({S.PREPARING}),
    S.ACQUIRING: frozenset({S.PREPARING}),
    S.QUEUED: frozenset({S.ACQUIRING, S.RUNNING}),
    S.RUNNING: frozenset({S.QUEUED}),
    S.FINISHED: frozenset({S.RUNNING, S.PREPARING}),
    S.ABORTING: frozenset({S.PREPARING, S.BLOCKED, S.ACQUIRING, S.QUEUED, S.RUNNING}),
    S.WAITRECOVER: frozenset({S.ABORTING}),
    S.RACQUIRING: frozenset({S.ABORTING, S.FINISHED, S.RACQUIRING, S.WAITRECOVER}),
    S.RECOVERING: frozenset({S.RACQUIRING}),
    S.RABORTING: frozenset({S.RACQUIRING, S.RECOVERING, S.WAITRECOVER}),
    S.RECOVERED: frozenset({S.RECOVERING}),
    S.FAILED: frozenset({S.RECOVERING, S.ABORTING, S.RABORTING}),
}

# (taskState, taskResult) that a client sees
REPORTED: dict[State, tuple[str, str]] = {
    S.UNKNOWN: ("unknown", ""),
    S.INIT: ("init", ""),
    S.PREPARING: ("running", ""),
    S.BLOCKED: ("running", ""),
    S.ACQUIRING: ("running", ""),
    S.QUEUED: ("running", ""),
    S.RUNNING: ("running", ""),
    S.FINISHED: ("finished", "success"),
    S.ABORTING: ("aborting", ""),
    S.WAITRECOVER: ("cleaning", ""),
    S.RACQUIRING: ("cleaning", ""),
    S.RECOVERING: ("cleaning", ""),
    S.RABORTING: ("cleaning", ""),
    S.RECOVERED: ("finished", "cleanSuccess"),
    S.FAILED: ("finished", "cleanFailure"),
}

DONE = frozenset({S.FINISHED, S.RECOVERED, S.FAILED})


class TaskTransitionIllegal(StorageError):
    task_id: str
    old: str
    new: str
    msg = "Task {self.task_id} cannot go from state {self.old} to {self.new}"


def check_transition(task_id: str, old: State, new: State) -> State:
    """``new`` when it may follow ``old``, else `TaskTransitionIllegal`."""
    if old not in PREDECESSORS[new]:
        raise TaskTransitionIllegal(task_id, old, new)
    return new
