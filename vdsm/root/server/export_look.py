# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent's user can do on an export, found out by doing it: as that user, in a process that may be killed.

    python -I -S export_look.py FOLDER

prints JSON: ``owner`` [user, group, mode] of the folder; ``made`` [user, group] of a file that was made there;
``failed`` [step, errno] of the first step that did not work. Rights that a client computes prove nothing on NFS: the
server decides, and maps users as it likes. Nothing is left: the file goes, also after a step that failed. Standard
library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import secrets
import sys
from typing import Any

SIZE = 4096


def look(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = {"owner": None, "made": None, "failed": None}
    path = os.path.join(folder, f".probe-{secrets.token_hex(8)}")
    step = "enter"
    try:
        info = os.stat(folder)
        found["owner"] = [info.st_uid, info.st_gid, info.st_mode & 0o7777]
        step = "create"
        with contextlib.ExitStack() as opened:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
            opened.callback(os.close, fd)
            opened.callback(_remove, path)
            info = os.fstat(fd)
            found["made"] = [info.st_uid, info.st_gid]
            step = "lock"
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            step = "direct"
            direct = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
            opened.callback(os.close, direct)
            step = "write"
            written = _block(b"w" * SIZE)
            os.pwritev(direct, [written], 0)
            step = "read"
            back = _block(b"r" * SIZE)
            if os.preadv(direct, [back], 0) != SIZE or back[:] != written[:]:
                raise OSError(0, "what was read is not what was written")
            step = "remove"
            os.unlink(path)
    except OSError as e:
        found["failed"] = [step, e.errno or 0]
    return found


def _block(content: bytes) -> mmap.mmap:
    """Aligned, as direct I/O needs it."""
    block = mmap.mmap(-1, SIZE)
    block[:] = content
    return block


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # gone already; or the error that led here is the one to tell
        os.unlink(path)


if __name__ == "__main__":
    print(json.dumps(look(sys.argv[1])))
