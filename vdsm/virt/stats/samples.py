# SPDX-License-Identifier: GPL-2.0-or-later
"""The last two samples of each VM, and how old they are.

A VM whose QEMU is busy or hangs stands in a sample, too, but only with what the kernel knows of it. Such a sample of a
VM that was told wholly before is no answer: its figures stay as they were and its age grows, as of one that a sample
lacks. Past `UNRESPONSIVE_S` the VM is reported as not responding. (Of a VM that was never told wholly it is one: QEMU
is not asked before a memory that comes from another host is there.)

Kept are samples of the VMs that run here and are ours; the bulk call tells of foreign domains, too, and may have begun
before a VM ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from vdsm.virt.stats.counters import Block, Counters

UNRESPONSIVE_S = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    taken_s: float
    counters: Counters


@dataclass(frozen=True, slots=True)
class Window:
    """``first`` is None until there are two samples."""

    first: Sample | None
    last: Sample

    @property
    def seconds(self) -> float:
        return 0.0 if self.first is None else self.last.taken_s - self.first.taken_s

    def blocks_before(self) -> Mapping[str, Block]:
        """Of the first sample, by target: a disk that was plugged or unplugged moves the others' places."""
        return {} if self.first is None else {block.name: block for block in self.first.counters.blocks}


class Samples:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._windows: dict[str, Window] = {}
        self._since: dict[str, float] = {}

    def take(self, vm_id: str, counters: Counters) -> None:
        """What was sampled of a VM just now."""
        old = self._windows.get(vm_id)
        if old is not None and old.last.counters.whole and not counters.whole:
            return
        self._windows[vm_id] = Window(None if old is None else old.last, Sample(self._now(), counters))

    def keep_only(self, running: Collection[str]) -> None:
        for vm_id in (self._windows.keys() | self._since.keys()) - set(running):
            self.forget(vm_id)

    def watch(self, vm_id: str) -> None:
        """A VM began to run: from now on it must answer."""
        self._since[vm_id] = self._now()

    def forget(self, vm_id: str) -> None:
        self._windows.pop(vm_id, None)
        self._since.pop(vm_id, None)

    def window(self, vm_id: str) -> Window | None:
        return self._windows.get(vm_id)

    def answered_s(self, vm_id: str) -> float | None:
        """When the VM answered last, or began to run; None: nothing is expected of it."""
        window = self._windows.get(vm_id)
        return self._since.get(vm_id) if window is None else window.last.taken_s

    def responsive(self, vm_id: str) -> bool:
        last_s = self.answered_s(vm_id)
        return last_s is None or self._now() - last_s <= UNRESPONSIVE_S
