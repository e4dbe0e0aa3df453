# SPDX-License-Identifier: GPL-2.0-or-later
"""How many VMs are launched at once: libvirt and QEMU need a core while they start, and memory.

Only the launch itself has a slot: not the preparation of images, not hooks. Who waits is served in order of arrival.
A launch that hangs on dead storage needs no core: after `HELD_S` its slot is given to the next, so it delays the
starts of others once, not until its own deadline.
"""

from __future__ import annotations

import asyncio
import os

HELD_S = 10.0
_LEAST, _MOST = 4, 32
_GIB_EACH = 4  # starting guests map and zero memory side by side


def fitting(cores: int | None = None, memory_bytes: int | None = None) -> int:
    """How many at once suit this host: two a core, as far as its memory goes."""
    cores = cores or os.cpu_count() or 1
    memory_bytes = memory_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(_LEAST, min(_MOST, 2 * cores, memory_bytes // (_GIB_EACH << 30)))


class Slot:
    def __init__(self, free: asyncio.Semaphore, held_s: float) -> None:
        self._free = free
        self._held = True
        self._late = asyncio.get_running_loop().call_later(held_s, self.give_back)

    def give_back(self) -> None:
        """Again is harmless."""
        self._late.cancel()
        if self._held:
            self._held = False
            self._free.release()


class Slots:
    def __init__(self, count: int, held_s: float = HELD_S) -> None:
        self._free = asyncio.Semaphore(count)
        self._held_s = held_s

    async def take(self) -> Slot:
        """Wait for a slot; it is given back by `Slot.give_back`, or by itself after ``held_s``."""
        await self._free.acquire()
        return Slot(self._free, self._held_s)
