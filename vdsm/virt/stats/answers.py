# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics of VMs as clients get them, encoded once a sample.

What lasts of a VM (`report.lasting`) is made and encoded after a sample, in slices between which the loop serves
others, and anew when a look found other XML. An answer adds what is of its moment (`report.now`): some hundred bytes.

A VM whose figures can't be made is told without them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from vdsm.common import encoded
from vdsm.common.encoded import Encoded
from vdsm.virt import report
from vdsm.virt.domain_xml.description import Description
from vdsm.virt.report import Shown
from vdsm.virt.stats.samples import Samples, Window
from vdsm.virt.stats.troubles import Troubles

SLICE_S = 0.005


@dataclass(slots=True)
class _Lasting:
    description: Description
    window: Window | None
    text: Encoded


class Answers:
    def __init__(self, samples: Samples, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._samples = samples
        self._clock = clock
        self._lasting: WeakKeyDictionary[Shown, _Lasting] = WeakKeyDictionary()
        self._troubles = Troubles()

    def one(self, vm: Shown) -> Encoded:
        told = encoded.encode(report.now(vm, self._samples))
        return told if vm.status.down else encoded.merge(self._lasting_of(vm), told)

    async def all(self, vms: Sequence[Shown]) -> list[Encoded]:
        """Of one moment: nothing happens between the first VM's state and the last one's."""
        await self.prepare(vms)
        return [self.one(vm) for vm in vms]

    async def prepare(self, vms: Iterable[Shown]) -> None:
        """Make what lasts of these VMs, where it is not made yet."""
        until = self._clock() + SLICE_S
        for vm in vms:
            if not vm.status.down:
                self._lasting_of(vm)
            if self._clock() >= until:
                await asyncio.sleep(0)
                until = self._clock() + SLICE_S

    def _lasting_of(self, vm: Shown) -> Encoded:
        description, window = vm.description, self._samples.window(vm.vm_id)
        known = self._lasting.get(vm)
        if known is not None and known.window is window:
            if known.description is description:
                return known.text
            if known.description == description:  # every look makes a new one, mostly equal: compare them once
                known.description = description
                return known.text
        text = self._encode(vm.vm_id, description, window)
        self._lasting[vm] = _Lasting(description, window, text)
        return text

    def _encode(self, vm_id: str, description: Description, window: Window | None) -> Encoded:
        try:
            text = encoded.encode(report.lasting(description, window))
        except Exception as e:  # noqa: BLE001 - whatever is odd about it: the others are told all the same
            self._troubles.tell(vm_id, f"VM {vm_id}: no figures", e)
            return encoded.encode(report.lasting(description, None))
        self._troubles.over(vm_id)
        return text
