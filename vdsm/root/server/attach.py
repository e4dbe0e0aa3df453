# SPDX-License-Identifier: GPL-2.0-or-later
"""Two steps with mounts that go by descriptors, in a process that can be killed when a server does not answer.

    python -I -S attach.py attach FOLDER_FD NAME TARGET_FD    what is mounted on NAME appears at TARGET, too
    python -I -S attach.py detach FOLDER_FD NAME MODE         the end of the mount on NAME; MODE: plain, forced, lazy

Names are looked up in the folder that the caller has opened, without following links; the target is the descriptor
itself. So nothing that happens to the path meanwhile can lead a mount elsewhere. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import sys

# the same on every architecture
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_CLONE, _CLOEXEC, _NOFOLLOW = 1, os.O_CLOEXEC, 0x100
_FROM_EMPTY, _TO_EMPTY = 0x4, 0x40
_FORCE, _DETACH, _UMOUNT_NOFOLLOW = 1, 2, 8
MODES = {"plain": 0, "forced": _FORCE | _DETACH, "lazy": _DETACH}

_libc = ctypes.CDLL(None, use_errno=True)


def attach(folder: int, name: str, target: int) -> None:
    tree = _checked(_libc.syscall(_OPEN_TREE, folder, os.fsencode(name), _CLONE | _CLOEXEC | _NOFOLLOW))
    _checked(_libc.syscall(_MOVE_MOUNT, tree, b"", target, b"", _FROM_EMPTY | _TO_EMPTY))


def detach(folder: int, name: str, mode: str) -> None:
    _checked(_libc.umount2(os.fsencode(f"/proc/self/fd/{folder}/{name}"), MODES[mode] | _UMOUNT_NOFOLLOW))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def main() -> None:
    step, folder, name, last = sys.argv[1:]
    try:
        if step == "attach":
            attach(int(folder), name, int(last))
        else:
            detach(int(folder), name, last)
    except OSError as e:
        sys.exit(f"{step} {name}: {e.strerror}")


if __name__ == "__main__":
    main()
