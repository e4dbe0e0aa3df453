# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that SIGKILL does not end, as one that waits in the kernel for its storage.

A traced process can be made to stop where it is about to exit: it does nothing any more, and its descriptors are open
until it is let go. No privileges needed for a descendant. All calls come from one thread, that of the test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path

SEIZE, DETACH = 0x4206, 17
STOP_AT_EXIT = 0x40


def _ptrace(request: int, pid: int, data: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, pid, None, data) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace of {pid}")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class Undying:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._held = True
        _ptrace(SEIZE, pid, STOP_AT_EXIT)

    def killed(self) -> None:
        """Wait until somebody has killed it."""
        give_up = time.monotonic() + 10
        while (state := _state(self.pid)) != "t":
            assert time.monotonic() < give_up, f"process {self.pid} is {state}"
            time.sleep(0.002)

    def let_go(self) -> None:
        if self._held:
            self._held = False
            _ptrace(DETACH, self.pid, 0)


@contextlib.contextmanager
def undying(pid: int) -> Iterator[Undying]:
    """Ends with the process: it is killed if nobody has."""
    held = Undying(pid)
    try:
        yield held
    finally:
        if held._held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
            held.killed()
            held.let_go()
