# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors of the leases that this process holds, for copies in its writers.

sanlock frees a lease when the last copy of the connection closes that it was taken on, and the kernel frees a flock
so, too. So whoever writes under a lease of ours holds a copy (`vdsm.common.commands`: ``held``): when we are killed
and such a writer waits in the kernel, nobody else gets the lease before its write has ended.

One object for one process. An agent never takes leases: its own stays empty.
"""

from __future__ import annotations


class Kept:
    def __init__(self) -> None:
        self._descriptors: tuple[int, ...] = ()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The same object until something changes: a number alone may be that of another connection by then."""
        return self._descriptors

    def add(self, descriptor: int) -> None:
        self._descriptors += (descriptor,)

    def drop(self, descriptor: int) -> None:
        """Before it is closed here. Nothing happens when it is none of them."""
        if descriptor in self._descriptors:
            self._descriptors = tuple(kept for kept in self._descriptors if kept != descriptor)
