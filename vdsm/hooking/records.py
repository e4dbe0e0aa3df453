# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept of a run: one record for each script, in one record of the point."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

REFUSED_CODE = 126  # a shell's code for a file that may not be executed


class Result(StrEnum):
    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    REFUSED = "refused"
    BROKE_DOCUMENT = "broke the document"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class ScriptRecord:
    script: str
    result: Result
    reason: str = ""  # completes "script ...": why it counts as failed
    code: int = 0
    started_at_s: float = 0.0  # since the epoch
    seconds: float = 0.0
    stderr: str = ""
    stderr_bytes: int = 0
    diff: str = ""


@dataclass(frozen=True)
class RunRecord:
    point: str
    started_at_s: float
    seconds: float
    scripts: tuple[ScriptRecord, ...]
    vm_id: str = ""
    flow: str = ""

    @property
    def failure(self) -> ScriptRecord | None:
        """The first script that failed."""
        return next((script for script in self.scripts if script.result is not Result.DONE), None)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def from_json(data: Mapping[str, Any]) -> RunRecord:
    """Raises KeyError, TypeError or ValueError when it is no record; unknown members are skipped."""
    scripts = tuple(
        ScriptRecord(**{**_known(ScriptRecord, script), "result": Result(script["result"])})
        for script in data["scripts"]
    )
    return RunRecord(**{**_known(RunRecord, data), "scripts": scripts})


def _known(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in data.items() if name in names}
