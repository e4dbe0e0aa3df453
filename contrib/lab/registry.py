# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of the hosts that exist: written before the first thing is made, removed after the last is gone.

A record outlives its keeper only when the keeper was killed; `sweep` then removes what the kernel did not.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
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
    # "namespace" or "micro"; "folder": none of a host, but of their starter
    kind: str = "namespace"
    # of a host: its own id, see /etc/vdsm/vdsm.id
    host_id: str = ""
    # of a micro-VM: its disk, logs and sockets; of a starter: what goes with it
    folder: str = ""

    def save(self) -> None:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        # of this process: another lab's host may have the same name
        temporary = self.path.with_suffix(f".{os.getpid()}.new")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.rename(self.path)

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.json"

    def keeper_lives(self) -> bool:
        return start_time(self.keeper) == self.keeper_started

    def remove_traces(self) -> list[str]:
        """Remove what outlives the namespaces; returns what could not be removed."""
        groups.thaw(self.cgroups)
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
        if self.kind == "folder":
            _remove_folder(Path(self.folder))
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


def find(name: str) -> Record:
    """The record of that host. Raises KeyError."""
    for record in records():
        if record.name == name:
            return record
    raise KeyError(name)


def sweep(*, also_living: bool) -> list[str]:
    """End hosts without a keeper, and the living ones if told so; returns their names."""
    ended = []
    for record in records():
        if record.keeper_lives():
            if not also_living or record.kind == "folder":
                continue
            os.kill(record.keeper, signal.SIGTERM)
            _wait_gone(record)
        record.remove_traces()
        ended.append(record.name)
    return ended


@contextlib.contextmanager
def folder(name: str) -> Iterator[Path]:
    """A folder for hosts' images, removed with the block, or by `sweep` when this process was killed in it."""
    path = Path(tempfile.mkdtemp(prefix=f"vdsm-lab-{name}-"))
    path.chmod(0o755)
    record = Record(path.name, os.getpid(), start_time(os.getpid()), kind="folder", folder=str(path))
    record.save()
    try:
        yield path
    finally:
        record.remove_traces()


def _remove_folder(path: Path) -> None:
    """With the loop devices that hosts made of its files and could not take along."""
    for file in path.rglob("*.img"):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            for loop in kernel_calls.loops_backed_by(status.st_dev, status.st_ino):
                kernel_calls.detach_loop(loop)
    shutil.rmtree(path, ignore_errors=True)


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
