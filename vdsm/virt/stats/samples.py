# SPDX-License-Identifier: GPL-2.0-or-later
"""The last two samples of each VM, and how old they are.

A VM that a sample lacks did not answer in time (the bulk call does not wait for stuck ones): its age grows,
and past `UNRESPONSIVE_S` it is reported as not responding.

Kept are samples of the VMs that run here and are ours; the bulk call tells of foreign domains, too, and may have begun
before a VM ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vdsm.virt.hypervisor import Stats

UNRESPONSIVE_S = 60.0


@dataclass(frozen=True)
class Sample:
    taken_s: float
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Window:
    """``first`` is None until there are two samples."""

    first: Sample | None
    last: Sample

    @property
    def seconds(self) -> float:
        return 0.0 if self.first is None else self.last.taken_s - self.first.taken_s

    def value(self, key: str) -> int | None:
        found = self.last.values.get(key)
        return found if isinstance(found, int) else None

    def growth(self, key: str) -> int | None:
        """By how much a counter grew in the window; None when unknown or when it started anew."""
        after = self.value(key)
        before = None if self.first is None else self.first.values.get(key)
        if after is None or not isinstance(before, int) or after < before:
            return None
        return after - before

    def rate(self, key: str) -> float | None:
        """Growth of a counter per second."""
        growth = self.growth(key)
        return None if growth is None or self.seconds <= 0 else growth / self.seconds


class Samples:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._windows: dict[str, Window] = {}
        self._since: dict[str, float] = {}

    def put(self, stats: Stats, running: Collection[str]) -> None:
        """What was sampled just now; of VMs that are not ``running`` nothing is kept."""
        taken_s = self._now()
        for vm_id in (self._windows.keys() | self._since.keys()) - set(running):
            self.forget(vm_id)
        for vm_id, values in stats.items():
            if vm_id not in running:
                continue
            old = self._windows.get(vm_id)
            self._windows[vm_id] = Window(None if old is None else old.last, Sample(taken_s, values))

    def watch(self, vm_id: str) -> None:
        """A VM began to run: from now on it must answer."""
        self._since[vm_id] = self._now()

    def forget(self, vm_id: str) -> None:
        self._windows.pop(vm_id, None)
        self._since.pop(vm_id, None)

    def window(self, vm_id: str) -> Window | None:
        return self._windows.get(vm_id)

    def responsive(self, vm_id: str) -> bool:
        window = self._windows.get(vm_id)
        last_s = self._since.get(vm_id) if window is None else window.last.taken_s
        return last_s is None or self._now() - last_s <= UNRESPONSIVE_S
