# SPDX-License-Identifier: GPL-2.0-or-later
"""The tasks' folder of a master domain: every file is known, every field is as the field's reader takes it."""

import dataclasses
import os

from tests.decoder.text import UUID

TASK_FIELDS = (
    "id",
    "name",
    "tag",
    "store",
    "recoveryPolicy",
    "persistPolicy",
    "cleanPolicy",
    "priority",
    "state",
    "njobs",
    "nrecoveries",
    "metadataVersion",
)
FIXED = {
    "tag": "spm",
    "recoveryPolicy": "auto",
    "persistPolicy": "auto",
    "cleanPolicy": "manual",
    "priority": "low",
    "metadataVersion": "1",
}
STATES = {
    "init",
    "preparing",
    "blocked",
    "acquiring",
    "queued",
    "running",
    "finished",
    "aborting",
    "waitrecover",
    "racquiring",
    "recovering",
    "raborting",
    "recovered",
    "failed",
}
DONE = {"finished", "recovered", "failed"}
RECOVERY_FIELDS = ("name", "moduleName", "object", "function", "params")
OURS = ("made",)  # the field's reader passes over what it does not know


@dataclasses.dataclass(frozen=True)
class Recovery:
    name: str
    call: str
    params: tuple


@dataclasses.dataclass
class Task:
    fields: dict
    job: str
    recoveries: list
    result: dict | None

    @property
    def state(self):
        return self.fields["state"]


def decode(folder):
    """Tasks by id. A save that was cut off counts as the field counts it: plain, else temp, else backup."""
    folder = str(folder)
    names = set(os.listdir(folder))
    tasks = {}
    for task_id in sorted({name.rpartition(".")[0] or name for name in names}):
        _check(bool(UUID.fullmatch(task_id)), f"{folder}/{task_id} is no task")
        for name in (task_id, task_id + ".temp", task_id + ".backup"):
            if name in names and (name != task_id + ".temp" or f"{task_id}.task" in os.listdir(f"{folder}/{name}")):
                tasks[task_id] = _task(f"{folder}/{name}", task_id, folder)
                break
    return tasks


def _task(path, task_id, folder):
    left = {name: _lines(f"{path}/{name}") for name in os.listdir(path)}
    fields = left.pop(f"{task_id}.task", None)
    _check(fields is not None, f"{path} has no .task")
    _check(tuple(fields) == TASK_FIELDS, f"fields of {path}: {list(fields)}")
    for key, value in FIXED.items():
        _check(fields[key] == value, f"{key} of {path} is {fields[key]!r}")
    _check(fields["id"] == task_id, f"id of {path}")
    _check(fields["state"] in STATES, f"state of {path} is {fields['state']!r}")
    _check(fields["store"].endswith("/master/tasks"), f"store of {path} is {fields['store']!r}")
    _check(fields["njobs"] == "1", f"{path} has {fields['njobs']} jobs")
    job = left.pop(f"{task_id}.job.0", None)
    _check(job is not None and tuple(job) == ("name", "runcmd"), f"job of {path}: {job}")
    recoveries = []
    for n in range(int(fields["nrecoveries"])):
        stored = left.pop(f"{task_id}.recover.{n}", None)
        known = (RECOVERY_FIELDS, RECOVERY_FIELDS + OURS)
        _check(stored is not None and tuple(stored) in known, f"recovery {n} of {path}: {stored}")
        for key in ("moduleName", "object", "function"):
            _check(stored[key].replace("_", "a").isalnum(), f"{key} of recovery {n} of {path} is {stored[key]!r}")
        call = ".".join(stored[key] for key in ("moduleName", "object", "function"))
        recoveries.append(Recovery(stored["name"], call, tuple(p.strip() for p in stored["params"].split(","))))
    named = [recovery.name for recovery in recoveries]
    _check(len(named) == len(set(named)), f"recoveries of {path} have one name twice: {named}")
    result = left.pop(f"{task_id}.result", None)
    if result is not None:
        _check(tuple(result) == ("code", "message", "result"), f"result of {path}: {result}")
        int(result["code"])
    _check((result is not None) == (fields["state"] in DONE), f"{path} is {fields['state']}, result {result}")
    _check(not left, f"{path} holds {sorted(left)}")
    return Task(fields, job["name"], recoveries, result)


def _lines(path):
    with open(path, "rb") as f:
        text = f.read().decode("utf-8")
    _check(text.endswith("\n"), f"the last line of {path} has no end")
    fields = {}
    for line in text[:-1].split("\n"):
        key, middle, value = line.partition(" = ")
        _check(bool(middle) and "=" not in key + value and key not in fields, f"line {line!r} of {path}")
        fields[key] = value.replace("_eq_", "=")
    return fields


def _check(truth, message):
    if not truth:
        raise ValueError(message)
