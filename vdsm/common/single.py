# SPDX-License-Identifier: GPL-2.0-or-later
"""One process of a kind on a host: a locked file, held as long as the process lives.

The lock is the kernel's (flock), so it ends with its holder however that ends, and a file that was left behind locks
nobody out. It is taken before anything else is touched: a second process says who runs and ends with a code of its own,
and the first one notices nothing. The file holds its holder's pid, for that message only. The descriptor is closed in
children (close-on-exec), so no command that outlives its starter keeps the lock.
"""

from __future__ import annotations

import fcntl
import os
import time

from vdsm.common.errors import AgentError

CODE = 75
"""Exit code of a process that found another one of its kind."""


class AlreadyRuns(AgentError):
    what: str
    pid: str
    file: str
    msg = "{self.what} runs already: process {self.pid} holds {self.file}"
    remedy = "Stop that one first; nothing was changed"


def hold(file: str, what: str, *, wait_s: float = 0.0) -> int:
    """The lock's descriptor, which is left open for life. ``wait_s``: for one that is about to end.

    Raises `AlreadyRuns`, `OSError`.
    """
    end = time.monotonic() + wait_s
    while True:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)  # whoever may open it may lock it
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, file):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
        except BlockingIOError:
            if time.monotonic() >= end:
                pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
                os.close(fd)
                raise AlreadyRuns(what, pid or "(unknown)", file) from None
            time.sleep(0.02)  # flock has no wait with a deadline
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # busy, or somebody removed the file meanwhile: look again


def _is_at(fd: int, file: str) -> bool:
    try:
        there = os.stat(file, follow_symlinks=False)
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
