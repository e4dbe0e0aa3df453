# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast this machine's time stamp counter counts: an emulated machine shows its guest the same one.

A kernel finds that out at its start by counting for a moment, and on a busy machine, where an emulated CPU stands still
in the middle of it, it may count wrong. Its clock then runs at a wrong rate for as long as it lives: time-outs end
early, or timers seem never to come. So it is told.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import time
from collections.abc import Callable

# rdtsc; shl rdx, 32; or rax, rdx; ret
READ = bytes.fromhex("0f31 48c1e220 4809d0 c3")
SPAN_S = 0.1
TRIES = 20


def khz() -> int:
    """The counter's frequency; 0 where there is none that we can read."""
    if platform.machine() != "x86_64":
        return 0
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(READ)
        anchor = ctypes.c_char.from_buffer(page)
        count = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
        first_ns, first = _moment(count)
        time.sleep(SPAN_S)
        last_ns, last = _moment(count)
        del anchor
    return round((last - first) * 1e6 / (last_ns - first_ns))


def _moment(count: Callable[[], int]) -> tuple[int, int]:
    """A time and the counter at that time: of several, the pair that was read with the least in between."""
    best = (1 << 62, 0, 0)
    for _ in range(TRIES):
        before = time.monotonic_ns()
        counted = count()
        after = time.monotonic_ns()
        best = min(best, (after - before, (before + after) // 2, counted))
    return best[1:]
