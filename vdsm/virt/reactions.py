# SPDX-License-Identifier: GPL-2.0-or-later
"""What an event of the hypervisor means for its VM (virt.md §8).

Events are hints that something changed: pause and resume make the owner look at the domain, so that a
late event never overwrites a newer state. Only the end of a domain is taken from the event itself.
"""

from __future__ import annotations

import asyncio
import logging
import time

from vdsm.virt.hypervisor import Change, ClockShift, DiskTrouble, DomainEvent
from vdsm.virt.states import ExitReason, PauseCode, VmState, exit_for
from vdsm.virt.status import REBOOTING_S
from vdsm.virt.vm import Vm

log = logging.getLogger("vdsm.virt")

_LOOK_AGAIN = frozenset({Change.SUSPENDED, Change.SUSPENDED_IOERROR, Change.RESUMED, Change.STARTED})
_ERRNO_WORDS = {"enospc": PauseCode.NO_SPACE, "eio": PauseCode.IO_ERROR}

_looks: set[asyncio.Task[None]] = set()


def react(vm: Vm, event: DomainEvent | ClockShift | DiskTrouble) -> None:
    if isinstance(event, ClockShift):
        vm.time_offset_s = event.offset_s
    elif isinstance(event, DiskTrouble):
        log.warning("VM %s is paused: disk %s (%s): %s", vm.vm_id, event.alias, event.path, event.reason)
        vm.pause_reason = _ERRNO_WORDS.get(event.reason, PauseCode.OTHER)
        _look(vm)
    else:
        _react_to_change(vm, event.change)


def _react_to_change(vm: Vm, change: Change) -> None:
    if change in _LOOK_AGAIN:
        _look(vm)
    elif change in (Change.SHUTDOWN_GUEST, Change.SHUTDOWN_HOST):
        if vm.shutdown_reason is None:
            by_guest = change is Change.SHUTDOWN_GUEST
            vm.shutdown_reason = ExitReason.USER_SHUTDOWN if by_guest else ExitReason.HOST_SHUTDOWN
    elif change is Change.STOPPED:
        _stopped(vm, vm.shutdown_reason or ExitReason.LOST_QEMU)
    elif change is Change.CRASHED:
        _stopped(vm, ExitReason.LOST_QEMU)
    elif change is Change.REBOOTED:
        _rebooted(vm)
    elif change is Change.AGENT_CONNECTED:
        _look(vm)
        if vm.status.guest_answered():
            vm.publish()
    elif change is Change.AGENT_DISCONNECTED:
        _look(vm)


def _stopped(vm: Vm, reason: ExitReason) -> None:
    vm.powered_down.set()
    if vm.launched and not vm.status.down:
        vm.end(exit_for(reason))


def _rebooted(vm: Vm) -> None:
    vm.powered_down.set()
    if vm.description.metadata.destroy_on_reboot:
        vm.end(exit_for(ExitReason.DESTROYED_ON_REBOOT))
        return
    vm.record.started_at_s = time.time()
    if vm.description.agent_channel:
        vm.status.expect_guest(VmState.REBOOTING, REBOOTING_S)
    vm.publish()


def _look(vm: Vm) -> None:
    task = asyncio.create_task(vm.refresh(), name=f"look at {vm.vm_id}")
    _looks.add(task)
    task.add_done_callback(_looks.discard)
