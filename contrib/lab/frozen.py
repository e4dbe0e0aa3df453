# SPDX-License-Identifier: GPL-2.0-or-later
"""Holds a file system frozen until its input ends, and so also when who asked for it was killed.

``python -m contrib.lab.frozen FOLDER``. A frozen file system outlives its last mount and keeps its loop device; who
waits in a write to it can't be killed. The folder stays open here, or nobody could thaw it once its hosts are gone.
"""

from __future__ import annotations

import fcntl
import os
import sys

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


def main(folder: str) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.ioctl(opened, FIFREEZE, 0)
    try:
        print("frozen", flush=True)
        sys.stdin.read()
    finally:
        fcntl.ioctl(opened, FITHAW, 0)


if __name__ == "__main__":
    main(sys.argv[1])
