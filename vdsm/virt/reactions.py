# SPDX-License-Identifier: GPL-2.0-or-later
"""What an event of the hypervisor means for its VM (virt.md §8).

Events say that something happened and why, never what is: each one makes the owner look at the domain, so a late
event, or one of an earlier run, changes nothing. Why a domain shuts down or stopped is kept for the look that finds
it gone; a look that finds it running has proved that word old (libvirt tells a shutdown also where it resets).
"""

from __future__ import annotations

import logging
import time

from vdsm.virt.hypervisor import Change, ClockShift, DiskTrouble, DomainEvent, VmEvent
from vdsm.virt.states import ExitReason, PauseCode, VmState, exit_for
from vdsm.virt.status import REBOOTING_S
from vdsm.virt.vm import Vm

log = logging.getLogger("vdsm.virt")

_STOPS = {
    Change.STOPPED: None,
    Change.CRASHED: ExitReason.LOST_QEMU,
    Change.MIGRATED: ExitReason.MIGRATED,
    Change.SAVED: ExitReason.SAVED,
}
_ERRNO_WORDS = {"enospc": PauseCode.NO_SPACE, "eio": PauseCode.IO_ERROR}


def react(vm: Vm, event: VmEvent) -> None:
    if isinstance(event, ClockShift):
        vm.time_offset_s = event.offset_s
    elif isinstance(event, DiskTrouble):
        if not event.paused:
            return
        log.warning("VM %s is paused: disk %s (%s): %s", vm.vm_id, event.alias, event.path, event.reason)
        vm.pause_reason = _ERRNO_WORDS.get(event.reason, PauseCode.OTHER)
        vm.look.soon()
    elif isinstance(event, DomainEvent):
        _react_to_change(vm, event.change)


def _react_to_change(vm: Vm, change: Change) -> None:
    if change in (Change.SHUTDOWN_GUEST, Change.SHUTDOWN_HOST):
        if vm.shutdown_reason is None:
            by_guest = change is Change.SHUTDOWN_GUEST
            vm.stop_reason = ExitReason.USER_SHUTDOWN if by_guest else ExitReason.HOST_SHUTDOWN
    elif change in _STOPS:
        vm.stop_reason = _STOPS[change] or vm.stop_reason
        vm.look.at_once()
        return
    elif change is Change.REBOOTED:
        _rebooted(vm)
    elif change is Change.AGENT_CONNECTED and vm.status.guest_answered():
        vm.publish()
    vm.look.soon()


def _rebooted(vm: Vm) -> None:
    vm.powered_down.set()
    if vm.description.metadata.destroy_on_reboot:
        vm.end(exit_for(ExitReason.DESTROYED_ON_REBOOT))
        return
    vm.record.started_at_s = time.time()
    if vm.description.agent_channel:
        vm.status.expect_guest(VmState.REBOOTING, REBOOTING_S)
    vm.publish()
