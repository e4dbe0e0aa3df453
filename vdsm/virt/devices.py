# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that came or went: whoever plugged them, what the VM has is read anew (its hash, and the audit)."""

from __future__ import annotations

from collections.abc import Mapping

from vdsm.virt.capability import Capability, Handle, Reaction
from vdsm.virt.hypervisor import DeviceAdded, DeviceRemoved, VmEvent


class Devices(Capability):
    def __init__(self, vm: Handle) -> None:
        self._vm = vm

    def hears(self) -> Mapping[type[VmEvent], Reaction]:
        return {DeviceAdded: self._changed, DeviceRemoved: self._changed}

    async def _changed(self, _event: DeviceAdded | DeviceRemoved) -> None:
        self._vm.look.soon()
