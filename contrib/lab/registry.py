# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of the hosts that exist: written before the first thing is made, removed after the last is gone.

A record outlives its keeper only when the keeper was killed; `sweep` then removes what the kernel did not.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from contrib.lab import groups, kernel_calls

FOLDER = Path("/run/vdsm-lab")


@dataclass
class Record:
    name: str
    keeper: int
    # start time of the keeper: tells it from a later process with its number
    keeper_started: str
    host: int = 0
    cgroups: list[str] = field(default_factory=list)
    # st_dev of the file system that holds the host's images, as the loop driver names it
    image_device: int = 0
    # "namespace" or "micro"
    kind: str = "namespace"
    # of a micro-VM: its disk, logs and sockets
    folder: str = ""

    def save(self) -> None:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.rename(self.path)

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.json"

    def keeper_lives(self) -> bool:
        return start_time(self.keeper) == self.keeper_started

    def remove_traces(self) -> list[str]:
        """Remove what outlives the namespaces; returns what could not be removed."""
        left = groups.remove(self.cgroups, timeout_s=5)
        limit = time.monotonic() + 5
        # a loop device made by mount detaches itself with its mount, which the kernel ends in the background
        while self.image_device and (loops := kernel_calls.loops_backed_by(self.image_device)):
            for loop in loops:
                kernel_calls.detach_loop(loop)
            if time.monotonic() > limit:
                left += loops
                break
            time.sleep(0.01)
        if not left:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                FOLDER.rmdir()
        return left


def records() -> list[Record]:
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            found.append(Record(**json.loads(path.read_text())))
    return found


def sweep(*, also_living: bool) -> list[str]:
    """End hosts without a keeper, and the living ones if told so; returns their names."""
    ended = []
    for record in records():
        if record.keeper_lives():
            if not also_living:
                continue
            os.kill(record.keeper, signal.SIGTERM)
            _wait_gone(record)
        record.remove_traces()
        ended.append(record.name)
    return ended


def start_time(pid: int) -> str:
    """The process's start in clock ticks since boot; empty when it has ended, reaped or not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


def _wait_gone(record: Record) -> None:
    try:
        fd = os.pidfd_open(record.keeper)
    except ProcessLookupError:
        return
    try:
        if not select.select([fd], [], [], 15)[0]:
            os.kill(record.keeper, signal.SIGKILL)
            select.select([fd], [], [], 5)
    finally:
        os.close(fd)
