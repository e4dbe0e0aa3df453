# SPDX-License-Identifier: GPL-2.0-or-later
"""Process groups of our children on record, so that none outlives a killed agent.

PR_SET_PDEATHSIG ends a direct child; its own children may go on. So the group of every command
is recorded, once it runs, as a file named ``<pgid>`` under ``/run/vdsm/commands``: the leader's start time, who
started it, and on what it works. `kill_recorded` kills those groups at the next start, before anything is recovered,
and waits a few seconds for their end (a process that hangs in the kernel does not end). `left_by` says what a process
that has ended left running.

A process id may have been given to a stranger meanwhile: a group is killed only when its leader has the recorded
start time or, when the leader is gone, when all of its members are in the leader's session and none is older.
What a killed agent had no time to record is left to PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from dataclasses import dataclass

log = logging.getLogger("vdsm.commands")

_folder: str | None = None


def set_folder(folder: str) -> None:
    """Record groups of this process's commands in ``folder`` from now on."""
    global _folder  # noqa: PLW0603 - one folder a process, set once by its composition root
    os.makedirs(folder, mode=0o755, exist_ok=True)
    _folder = folder


@dataclass(frozen=True)
class Left:
    """A process that runs still although who started it has ended."""

    pid: int
    place: str
    """What it works on (`vdsm.common.hanging`); empty when that is not known."""


def record(pgid: int, place: str = "") -> None:
    """A full disk stops no command: PR_SET_PDEATHSIG ends what has no record, but not its children."""
    if _folder is not None:
        # whole or not at all: a half-written record would let the group live
        path = os.path.join(_folder, str(pgid))
        try:
            with open(f"{path}.new", "w", encoding="utf-8", errors="surrogateescape") as f:
                f.write(f"{start_time(pgid) or 0} {os.getpid()} {place}\n")
            os.rename(f"{path}.new", path)
        except OSError as e:
            log.warning("process group %d is not on record, what it starts may outlive us: %s", pgid, e)
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.new")


def forget(pgid: int) -> None:
    if _folder is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(_folder, str(pgid)))


def kill_group(pgid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signal.SIGKILL)


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (proc(5) stat field 22); None when it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def kill_recorded(folder: str, wait_s: float = 5.0) -> list[int]:
    """Kill every group on record that is still ours, wait until they are gone; the killed pgids.

    One that hangs in the kernel stays on record: see `left_by_earlier`.
    """
    killed = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for name in names:
        path = os.path.join(folder, name)
        with contextlib.suppress(ValueError, OSError):
            with open(path, encoding="utf-8", errors="surrogateescape") as f:
                recorded = int(f.read().partition(" ")[0])
            if _is_ours(int(name), recorded):
                log.warning("killing process group %s that an earlier run left behind", name)
                kill_group(int(name))
                killed.append(int(name))
                continue
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    end = time.monotonic() + wait_s
    while (left := [pgid for pgid in killed if _alive(pgid)]) and time.monotonic() < end:
        time.sleep(0.01)
    for pgid in set(killed) - set(left):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, str(pgid)))
    return killed


def left_by_earlier() -> list[Left]:
    """What runs still of all that is older than this process: an earlier run of it left that, and it was not ended."""
    ours = start_time(os.getpid()) or 0
    older = [(pgid, started, place) for pgid, started, by, place in _recorded() if started < ours and by != os.getpid()]
    return [Left(pid, place) for pgid, started, place in older if _is_ours(pgid, started) for pid in members(pgid)]


def left_by(owner: int) -> list[Left]:
    """What the process ``owner``, which has ended, started and what of it runs still; nothing else stays on record."""
    left = []
    for pgid, recorded, place in [(pgid, started, place) for pgid, started, by, place in _recorded() if by == owner]:
        running = members(pgid) if _is_ours(pgid, recorded) else []
        left += [Left(pid, place) for pid in running]
        if not running:
            forget(pgid)
    return left


def runs(pid: int) -> bool:
    """Also with one last thread that hangs in the kernel."""
    fields = _stat(pid)
    return bool(fields) and _runs(fields or [])


def members(pgid: int) -> list[int]:
    """Pids of the group that run, also with one last thread that hangs in the kernel."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields and int(fields[2]) == pgid and _runs(fields):
                found.append(int(name))
    return found


@dataclass(frozen=True)
class Member:
    """A process of a session that runs."""

    pid: int
    name: str
    parent: int
    group: int

    def __str__(self) -> str:
        return f"{self.pid} ({self.name})"


def session_members(session: int) -> list[Member]:
    """Who runs of a session, also when its first process is gone. Reads nothing that may hang with a process."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and (text := _stat_text(int(name))):
            fields = text.rpartition(")")[2].split()
            if int(fields[3]) == session and _runs(fields):
                command = text.partition("(")[2].rpartition(")")[0]
                found.append(Member(int(name), command, int(fields[1]), int(fields[2])))
    return sorted(found, key=lambda member: member.pid)


def _recorded() -> list[tuple[int, int, int, str]]:
    """(pgid, start time, who recorded it, place) of the groups on record."""
    found = []
    folder = _folder or ""
    for name in os.listdir(folder) if folder else []:
        with contextlib.suppress(ValueError, OSError):
            with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as f:
                start, by, place = f.read().rstrip("\n").split(" ", 2)
            found.append((int(name), int(start), int(by), place))
    return found


def _is_ours(pgid: int, recorded_start: int) -> bool:
    if pgid <= 1:  # 0 is no group: the kernel's threads have it, and killing it kills ourselves
        return False
    leader = start_time(pgid)
    if leader is not None:
        return leader == recorded_start
    # the leader is gone: while members of its group live, the kernel gives its id to nobody else
    left = [fields for pid in members(pgid) if (fields := _stat(pid))]
    return bool(left) and all(int(f[3]) == pgid and int(f[19]) >= recorded_start for f in left)


def _alive(pgid: int) -> bool:
    return bool(members(pgid))


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on (the name may hold anything, also ')')."""
    text = _stat_text(pid)
    return text.rpartition(")")[2].split() if text else None


def _stat_text(pid: int) -> str:
    """Empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def _runs(fields: list[str]) -> bool:
    """Also with one last thread that hangs in the kernel."""
    return fields[0] not in ("Z", "X") or int(fields[17]) > 1
