# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU process of a VM, and the proof that it is gone.

libvirt that knows no such domain proves nothing: it may have been restarted without its state, and it forgets a domain
whose process it could not kill. A process that hangs in the kernel (dead storage) still has the disks open, and images
torn down or started elsewhere under it are lost data. So the process is looked for by what its command line says
(``-uuid <id>``, readable by everybody), remembered by number and start time, and gone when the kernel says so: when
there is no such process, or a zombie whose last thread has ended.

A host whose /proc hides other users' processes shows nothing: there libvirt's word has to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Collection

import msgspec


class QemuProcess(msgspec.Struct, frozen=True):
    """``started``: ticks since boot, from /proc/<pid>/stat: with the number it names one process for ever."""

    pid: int
    started: int


def find_all(users: Collection[int] = (), proc: str = "/proc") -> dict[str, QemuProcess]:
    """All processes that were started with ``-uuid <id>``, by that id. Reads each command line: use a thread.

    ``users``: who QEMU may run as; whatever others write on their command lines is no proof. Empty for anybody.
    """
    found = {}
    for name in os.listdir(proc):
        if not name.isdecimal() or not (vm_id := _uuid_of(os.path.join(proc, name, "cmdline"))):
            continue
        started = _started(int(name), proc)
        if started is not None and (not users or _user(int(name), proc) in users):
            found[vm_id] = QemuProcess(int(name), started)
    return found


def lives(process: QemuProcess, proc: str = "/proc") -> bool:
    """Whether any thread of it may still touch a disk."""
    if _started(process.pid, proc) != process.started:
        return False
    if _state(process.pid, proc) not in ("Z", "X"):
        return True
    with contextlib.suppress(OSError):
        return len(os.listdir(os.path.join(proc, str(process.pid), "task"))) > 1
    return False


def hangs(process: QemuProcess, proc: str = "/proc") -> bool:
    """Whether it was killed and can't end: asleep in the kernel, or a zombie whose threads are."""
    return lives(process, proc) and _state(process.pid, proc) in ("D", "Z", "X")


async def wait_gone(process: QemuProcess, timeout_s: float) -> bool:
    """Wait for its end; False when it still lives after ``timeout_s``."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:  # no such process, or a kernel without: what /proc says has to do
        return not lives(process)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        if not lives(process):  # it ended before, or the number is somebody else's by now
            return True
        loop.add_reader(fd, ended.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await ended.wait()
        return _readable(fd) or not lives(process)
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _uuid_of(path: str) -> str:
    """What follows ``-uuid``; empty for other commands."""
    try:
        with open(path, "rb") as file:
            arguments = file.read(1 << 20)
    except OSError:  # it ended, or is hidden
        return ""
    _, found, rest = arguments.partition(b"\0-uuid\0")
    return rest.partition(b"\0")[0].decode(errors="replace") if found else ""


def _stat(pid: int, proc: str) -> list[str]:
    """The fields after the name, which may hold anything."""
    try:
        with open(os.path.join(proc, str(pid), "stat"), encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _started(pid: int, proc: str) -> int | None:
    fields = _stat(pid, proc)
    return int(fields[19]) if len(fields) > 19 else None


def _user(pid: int, proc: str) -> int | None:
    """Its effective user: the folder in /proc is root's for a process that changed its user."""
    try:
        with open(os.path.join(proc, str(pid), "status"), encoding="ascii", errors="replace") as file:
            return next((int(line.split()[2]) for line in file if line.startswith("Uid:")), None)
    except OSError:
        return None


def _state(pid: int, proc: str) -> str:
    fields = _stat(pid, proc)
    return fields[0] if fields else "X"
