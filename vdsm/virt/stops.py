# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a VM ends: kept from the events that say so, for the look that finds it gone.

Whether the guest or the host shut it down decides about its restart elsewhere, and no state shows it. So the word is on
record before anybody looks, and a restart of the agent in between loses nothing. A look that finds the domain running
has proved the word old: of an earlier run, of a migration to here, of a shutdown that became a reset.
"""

from __future__ import annotations

from collections.abc import Mapping

from vdsm.virt.capability import Capability, Handle, Reaction
from vdsm.virt.hypervisor import Change, ClockShift, DomainEvent, VmEvent
from vdsm.virt.sight import asked_of
from vdsm.virt.states import ExitReason

_STOPS = {
    Change.STOPPED: None,
    Change.CRASHED: ExitReason.LOST_QEMU,
    Change.MIGRATED: ExitReason.MIGRATED,
    Change.SAVED: ExitReason.SAVED,
}
_SHUTDOWNS = {Change.SHUTDOWN_GUEST: ExitReason.USER_SHUTDOWN, Change.SHUTDOWN_HOST: ExitReason.HOST_SHUTDOWN}


class Stops(Capability):
    def __init__(self, vm: Handle) -> None:
        self._vm = vm
        # looks of a higher number began after the last word was heard
        self._heard_at = 0

    def hears(self) -> Mapping[type[VmEvent], Reaction]:
        return {DomainEvent: self._changed, ClockShift: self._shifted}

    async def _changed(self, event: DomainEvent) -> None:
        vm, change = self._vm, event.change
        self._heard_at = vm.look.wished
        if change in _SHUTDOWNS and asked_of(vm.record) is None:
            await vm.change(heard=_SHUTDOWNS[change])
        elif change in _STOPS:
            if (reason := _STOPS[change]) is not None:
                await vm.change(heard=reason)
            vm.look.at_once()
            return
        vm.look.soon()

    async def runs(self, number: int) -> None:
        """A look of that number found that it runs."""
        if self._vm.record.heard is not None and number > self._heard_at:
            await self._vm.change(heard=None)

    async def _shifted(self, event: ClockShift) -> None:
        await self._vm.change(time_offset_s=event.offset_s)
