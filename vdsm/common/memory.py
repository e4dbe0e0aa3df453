# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process does once with its memory, when everything is imported.

Imports leave two things behind. Their objects stay for ever, and each full collection walks them: 15 ms in which
the loop stands still, many times a minute under load. And what compiling them took is free, but in holes that the
C library keeps: 9 MiB in the agent.
"""

from __future__ import annotations

import ctypes
import gc


def settle() -> None:
    """Take what is there out of later collections, and give free memory back."""
    gc.collect()
    gc.freeze()
    give_back()


def give_back() -> None:
    """What is free goes back to the kernel, also what lies below something in use. Not in the loop: milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
