# SPDX-License-Identifier: GPL-2.0-or-later
"""The last runs of hooks, on disk, so that they can be read while the agent is down.

Lines of JSON in ``<state>/hooks/trace.jsonl``; at `MAX_BYTES` the file becomes ``trace.1.jsonl`` and the one of
that name goes. So at most twice `MAX_BYTES` are used. One process writes; any may read: a line that a
power cut tore is skipped. Successful runs of points that are polled are left out, they would push
everything else out.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace

from vdsm.common.paths import Paths
from vdsm.hooking.points import POINTS
from vdsm.hooking.records import RunRecord, from_json

log = logging.getLogger("vdsm.hooks")

MAX_BYTES = 2 << 20
_MAX_RECORD = 256 << 10


def folder_of(paths: Paths) -> str:
    return os.path.join(paths.state, "hooks")


class Trace:
    def __init__(self, folder: str, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def append(self, record: RunRecord) -> None:
        """A trace that can't be written is told in the log; the run it tells of was done."""
        point = POINTS.get(record.point)
        if point is not None and point.polled and record.failure is None:
            return
        line = _line(record)
        if len(line) > _MAX_RECORD:
            scripts = tuple(replace(script, diff="[left out]", stderr=script.stderr[:200]) for script in record.scripts)
            line = _line(replace(record, scripts=scripts[:200]))
        current, older = _files(self._folder)
        try:
            os.makedirs(self._folder, mode=0o750, exist_ok=True)
            if os.path.exists(current) and os.path.getsize(current) + len(line) > self._max_bytes:
                os.replace(current, older)
            fd = os.open(current, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)
        except OSError as e:
            log.error("the trace of hooks can't be written: %s", e)


def read(folder: str, *, point: str = "", vm_id: str = "", last: int = 50) -> list[RunRecord]:
    """The last runs, oldest first, of one point or one VM when given."""
    found = [
        record
        for record in _all(folder)
        if (not point or record.point == point) and (not vm_id or record.vm_id == vm_id)
    ]
    return found[-last:] if last else found


def _all(folder: str) -> Iterator[RunRecord]:
    for path in reversed(_files(folder)):
        try:
            with open(path, "rb") as file:
                for line in file:
                    try:
                        yield from_json(json.loads(line))
                    except (ValueError, KeyError, TypeError):
                        continue
        except FileNotFoundError:
            continue


def _files(folder: str) -> tuple[str, str]:
    """(being written, older)"""
    return os.path.join(folder, "trace.jsonl"), os.path.join(folder, "trace.1.jsonl")


def _line(record: RunRecord) -> bytes:
    # a lone surrogate from undecodable names must not keep a record out
    return json.dumps(record.to_json(), separators=(",", ":")).encode("utf-8", "replace") + b"\n"
