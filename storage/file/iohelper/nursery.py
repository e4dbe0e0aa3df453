# SPDX-License-Identifier: GPL-2.0-or-later
"""Where helpers are born: a process that has loaded all they need, and becomes two for each.

So a helper is there in a millisecond, and costs what it writes itself: what it has loaded is shared by all. This
process touches no storage, so it never hangs.

For each helper one message comes, with descriptors: the helper's connection, and what it is to hold copies of as long
as it lives. The end of the socket ends this process, and with it, however it ends, all helpers (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys

from storage.file.iohelper import serving

MOST_DESCRIPTORS = 16
PR_SET_PDEATHSIG = 1

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def main(control: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a helper here
    os.umask(0o022)
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, MOST_DESCRIPTORS)
        if not message:
            return
        parent = os.getpid()
        # no room for a process, or for its descriptors: the end of its connection says so
        with contextlib.suppress(OSError):
            if descriptors and os.fork() == 0:
                control.close()
                # who keeps a lease stays in the session of the process that took it
                (os.setpgrp if descriptors[1:] else os.setsid)()
                _live(descriptors[0], parent)
        for descriptor in descriptors:
            os.close(descriptor)


def _live(connection: int, parent: int) -> None:
    """As a helper, until the end of ``connection``. Does not return."""
    code = 1
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:  # else it died before that call
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with open(connection, "rb", closefd=False) as requests, open(connection, "wb", closefd=False) as answers:
                serving.serve(requests, answers)
            code = 0
    except Exception:  # noqa: BLE001 - a fault of ours: it would end without a word
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
