# SPDX-License-Identifier: GPL-2.0-or-later
"""A task as clients see it, in the field's words."""

from __future__ import annotations

from typing import Any

from storage.tasks.record import Outcome, TaskRecord
from storage.tasks.states import REPORTED


def status(record: TaskRecord) -> dict[str, Any]:
    state, result = REPORTED[record.state]
    outcome = record.outcome or Outcome(0, f"Task is {record.state}")
    return {
        "taskID": record.task_id,
        "taskState": state,
        "taskResult": result,
        "code": outcome.code,
        "message": outcome.message,
    }


def whole(record: TaskRecord, progress: float | None) -> dict[str, Any]:
    """All that any view shows of one. ``progress``: percent, where it is known."""
    return {
        **status(record),
        "verb": record.verb,
        "tag": record.tag,
        "state": str(record.state),
        "result": record.outcome.result if record.outcome is not None else "",
        "progress": progress,
    }
