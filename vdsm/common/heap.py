# SPDX-License-Identifier: GPL-2.0-or-later
"""Large blocks go back to the kernel when they are freed: an agent runs for years.

glibc raises its own threshold for such blocks to the size of each that is freed (mallopt(3), M_MMAP_THRESHOLD), so
after the first TLS connection, whose buffer is 256 KiB, all further buffers lie in the heap, between what stays.
A threshold that is set does not move.
"""

from __future__ import annotations

import contextlib
import ctypes

THRESHOLD = 128 << 10
_M_MMAP_THRESHOLD = -3


def give_large_blocks_back() -> None:
    """Nothing where the C library has no such option (musl)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, THRESHOLD)
