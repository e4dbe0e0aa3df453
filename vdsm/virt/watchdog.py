# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM's watchdog device: what it did last, as statistics show it (virt.md §8)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from vdsm.virt.capability import Capability, Handle, Json, Reaction
from vdsm.virt.hypervisor import VmEvent, Watchdog

log = logging.getLogger("vdsm.virt")


class WatchdogDevice(Capability):
    def __init__(self, vm: Handle) -> None:
        self._vm = vm
        self._last: Json = {}

    def hears(self) -> Mapping[type[VmEvent], Reaction]:
        return {Watchdog: self._barked}

    def report(self) -> Json:
        return {"watchdogEvent": self._last} if self._last else {}

    async def _barked(self, event: Watchdog) -> None:
        log.warning("VM %s: its watchdog was not served in time: %s", self._vm.vm_id, event.action)
        self._last = {"time": time.time(), "action": event.action}
        self._vm.look.soon()
