# SPDX-License-Identifier: GPL-2.0-or-later
"""A task as it lies on the master domain (storage.md 11.2): pure, text to record and back.

A task is a directory of small files: ``<id>.job.0``, ``<id>.recover.<n>``, once it is done
``<id>.result``, and ``<id>.task``. Each holds lines ``field = value``; a ``=`` inside a value is stored as
``_eq_``. Parameters of a recovery are joined by commas, so none of them may contain one: the record
refuses to be made rather than to be read back as something else.

Recoveries undo a task, last in first out, on whichever host becomes SPM next. They are therefore
named as the field names them: module, object, function, parameters by position.

The reader takes what any program of the field may have written: unknown fields and lines that are no
``field = value`` are passed over. What decides about data (state, number of recoveries, what each of them
calls) must be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.errors import StorageError
from storage.tasks.states import State

METADATA_VERSION = 1


class TaskRecordInvalid(StorageError):
    task_id: str
    file_name: str
    reason: str
    msg = "Stored task {self.task_id} is unreadable: {self.file_name}: {self.reason}"


@dataclass(frozen=True)
class Recovery:
    name: str
    module: str
    owner: str
    function: str
    params: tuple[str, ...] = ()
    made: str = ""
    """Tells the thing that is undone from a later one of the same id; empty when that is not known. A field of ours:
    other programs pass over it."""

    def __post_init__(self) -> None:
        for text in (self.name, self.module, self.owner, self.function, self.made, *self.params):
            if "," in text or "\n" in text:
                raise ValueError(f"a recovery cannot store {text!r}")

    @property
    def call(self) -> str:
        return f"{self.module}.{self.owner}.{self.function}"


@dataclass(frozen=True)
class Outcome:
    """The end of a task. ``code`` is the wire's number, 0 when all went well."""

    code: int
    message: str
    result: str = ""


@dataclass(frozen=True)
class TaskRecord:
    task_id: str
    verb: str
    state: State
    store: str
    tag: str = "spm"
    recoveries: tuple[Recovery, ...] = ()
    outcome: Outcome | None = None
    job: str = ""
    """Name of its one job, for people: a stored job is never run."""

    @property
    def named(self) -> str:
        """For people: which, and what it does."""
        return f"task {self.task_id} ({self.verb})"


def encode(record: TaskRecord) -> dict[str, bytes]:
    """Files of the task's directory: name to content. ``.task`` comes last: with it the directory is whole."""
    files = {}
    if record.job:
        files[f"{record.task_id}.job.0"] = _to_lines({"name": record.job, "runcmd": record.job})
    for n, recovery in enumerate(record.recoveries):
        files[f"{record.task_id}.recover.{n}"] = _to_lines(
            {
                "name": recovery.name,
                "moduleName": recovery.module,
                "object": recovery.owner,
                "function": recovery.function,
                "params": ",".join(recovery.params),
                **({"made": recovery.made} if recovery.made else {}),
            }
        )
    if record.outcome is not None:
        files[f"{record.task_id}.result"] = _to_lines(
            {
                "code": str(record.outcome.code),
                "message": record.outcome.message,
                "result": record.outcome.result,
            }
        )
    files[f"{record.task_id}.task"] = _to_lines(
        {
            "id": record.task_id,
            "name": record.verb,
            "tag": record.tag,
            "store": record.store,
            "recoveryPolicy": "auto",
            "persistPolicy": "auto",
            "cleanPolicy": "manual",
            "priority": "low",
            "state": str(record.state),
            "njobs": "1" if record.job else "0",
            "nrecoveries": str(len(record.recoveries)),
            "metadataVersion": str(METADATA_VERSION),
        }
    )
    return files


def decode(task_id: str, files: Mapping[str, bytes]) -> TaskRecord:
    """The task that the files describe. Raises `TaskRecordInvalid`."""
    task = _fields(task_id, f"{task_id}.task", files)
    recoveries = tuple(
        _recovery(task_id, f"{task_id}.recover.{n}", files)
        for n in range(min(_number(task_id, f"{task_id}.task", "nrecoveries", task), len(files)))
    )
    try:
        state = State(task.get("state", ""))
    except ValueError:
        raise TaskRecordInvalid(task_id, f"{task_id}.task", f"unknown state {task.get('state')!r}") from None
    return TaskRecord(
        task_id=task_id,
        verb=task.get("name", ""),
        state=state,
        store=task.get("store", ""),
        tag=task.get("tag", ""),
        recoveries=recoveries,
        outcome=_outcome(task_id, files),
        job=_job(task_id, files),
    )


def _recovery(task_id: str, name: str, files: Mapping[str, bytes]) -> Recovery:
    fields = _fields(task_id, name, files)
    try:
        params = fields.get("params", "")
        return Recovery(
            fields.get("name", "").replace(",", " "),
            fields["moduleName"],
            fields["object"],
            fields["function"],
            tuple(param.strip() for param in params.split(",")) if params else (),
            fields.get("made", "").replace(",", " "),
        )
    except (KeyError, ValueError) as e:
        raise TaskRecordInvalid(task_id, name, str(e)) from None


def _job(task_id: str, files: Mapping[str, bytes]) -> str:
    name = f"{task_id}.job.0"
    return _fields(task_id, name, files).get("name", "") if name in files else ""


def _outcome(task_id: str, files: Mapping[str, bytes]) -> Outcome | None:
    name = f"{task_id}.result"
    if name not in files:
        return None
    fields = _fields(task_id, name, files)
    return Outcome(_number(task_id, name, "code", fields), fields.get("message", ""), fields.get("result", ""))


def _number(task_id: str, name: str, key: str, fields: Mapping[str, str]) -> int:
    try:
        value = int(fields[key])
    except (KeyError, ValueError):
        raise TaskRecordInvalid(task_id, name, f"{key} is no number") from None
    if not -100_000 <= value <= 100_000:
        raise TaskRecordInvalid(task_id, name, f"{key} is out of range: {value}")
    return value


def _to_lines(fields: Mapping[str, str]) -> bytes:
    lines = []
    for key, text in fields.items():
        value = " ".join(text.splitlines()).replace("=", "_eq_")
        lines.append(f"{key} = {value}\n")
    return "".join(lines).encode()


def _fields(task_id: str, name: str, files: Mapping[str, bytes]) -> dict[str, str]:
    if name not in files:
        raise TaskRecordInvalid(task_id, name, "the file is missing")
    fields = {}
    for line in files[name].decode("utf-8", errors="replace").splitlines():
        if line.count("=") == 1:
            key, _, value = line.partition("=")
            fields[key.strip()] = value.strip().replace("_eq_", "=")
    return fields
