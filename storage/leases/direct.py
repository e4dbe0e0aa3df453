# SPDX-License-Identifier: GPL-2.0-or-later
"""One block of storage, read past the page cache: other hosts write there."""

from __future__ import annotations

import mmap
import os


def read_direct(path: str, offset: int, size: int) -> bytes:
    """``size`` bytes, fewer at the file's end. Blocks while the storage does: for threads. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, max(size, mmap.PAGESIZE)) as block:  # its address is aligned
            with memoryview(block)[:size] as view:
                found = os.preadv(descriptor, [view], offset)
            return block[:found]
    finally:
        os.close(descriptor)
