# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of a libvirt connection, handed to the event loop one by one and in their order.

The callbacks run in libvirt's event thread: they translate and hand over, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import libvirt

from vdsm.virt.hypervisor import (
    BalloonChanged,
    Change,
    ClockShift,
    DeviceAdded,
    DeviceRemoved,
    DiskTrouble,
    DomainEvent,
    HypervisorEvent,
    Watchdog,
)
from vdsm.virt.libvirt_edge.translation import lifecycle_change, watchdog_action

_PAUSED = 1
_AGENT_STATES = {1: Change.AGENT_CONNECTED, 2: Change.AGENT_DISCONNECTED}


class Subscription:
    """Events of one connection. They are passed on while ``heard``, which only the event loop sets and reads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hear: Callable[[HypervisorEvent], None]) -> None:
        self.heard = False
        self._loop = loop
        self._hear = hear
        self._connect: libvirt.virConnect | None = None
        self._numbers: list[int] = []

    def register(self, connect: libvirt.virConnect) -> None:
        """In a thread. What it began before it failed is left to `end`."""
        self._connect = connect
        for event_id, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_RTC_CHANGE, self._rtc_change),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._io_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._agent),
            (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, self._watchdog),
            (libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, self._balloon),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, self._device_added),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._device_removed),
        ):
            self._numbers.append(connect.domainEventRegisterAny(None, event_id, callback, None))

    def end(self) -> None:
        """In a thread; also on a connection that broke."""
        while self._connect is not None and self._numbers:
            number = self._numbers.pop()
            with contextlib.suppress(libvirt.libvirtError):
                self._connect.domainEventDeregisterAny(number)
        self._connect = None

    def _lifecycle(self, _connect: object, domain: libvirt.virDomain, event: int, detail: int, _opaque: Any) -> None:
        change = lifecycle_change(event, detail)
        if change is not None:
            self._tell(DomainEvent(domain.UUIDString(), change))

    def _reboot(self, _connect: object, domain: libvirt.virDomain, _opaque: Any) -> None:
        self._tell(DomainEvent(domain.UUIDString(), Change.REBOOTED))

    def _rtc_change(self, _connect: object, domain: libvirt.virDomain, offset_s: int, _opaque: Any) -> None:
        self._tell(ClockShift(domain.UUIDString(), offset_s))

    def _io_error(
        self,
        _connect: object,
        domain: libvirt.virDomain,
        path: str,
        alias: str,
        action: int,
        reason: str,
        _opaque: Any,
    ) -> None:
        self._tell(DiskTrouble(domain.UUIDString(), alias or "", path or "", reason or "", action == _PAUSED))

    def _agent(self, _connect: object, domain: libvirt.virDomain, state: int, _reason: int, _opaque: Any) -> None:
        change = _AGENT_STATES.get(state)
        if change is not None:
            self._tell(DomainEvent(domain.UUIDString(), change))

    def _watchdog(self, _connect: object, domain: libvirt.virDomain, action: int, _opaque: Any) -> None:
        self._tell(Watchdog(domain.UUIDString(), watchdog_action(action)))

    def _balloon(self, _connect: object, domain: libvirt.virDomain, kib: int, _opaque: Any) -> None:
        self._tell(BalloonChanged(domain.UUIDString(), kib))

    def _device_added(self, _connect: object, domain: libvirt.virDomain, alias: str, _opaque: Any) -> None:
        self._tell(DeviceAdded(domain.UUIDString(), alias))

    def _device_removed(self, _connect: object, domain: libvirt.virDomain, alias: str, _opaque: Any) -> None:
        self._tell(DeviceRemoved(domain.UUIDString(), alias))

    def _tell(self, event: HypervisorEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the agent ends
            self._loop.call_soon_threadsafe(self._deliver, event)

    def _deliver(self, event: HypervisorEvent) -> None:
        if self.heard:
            self._hear(event)
