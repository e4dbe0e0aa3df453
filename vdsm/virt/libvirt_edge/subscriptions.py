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

from vdsm.virt.hypervisor import Change, ClockShift, DiskTrouble, DomainEvent, HypervisorEvent
from vdsm.virt.libvirt_edge.translation import lifecycle_change

_AGENT_STATES = {1: Change.AGENT_CONNECTED, 2: Change.AGENT_DISCONNECTED}


class Subscriptions:
    def __init__(self, loop: asyncio.AbstractEventLoop, hear: Callable[[HypervisorEvent], None]) -> None:
        self._loop = loop
        self._hear = hear

    def register(self, connect: libvirt.virConnect) -> Callable[[], None]:
        """In a thread, as is what it returns: that ends the subscription, also on a connection that broke."""
        numbers: list[int] = []

        def end() -> None:
            for number in numbers:
                with contextlib.suppress(libvirt.libvirtError):
                    connect.domainEventDeregisterAny(number)

        for event_id, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_RTC_CHANGE, self._rtc_change),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._io_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._agent),
        ):
            try:
                numbers.append(connect.domainEventRegisterAny(None, event_id, callback, None))
            except libvirt.libvirtError:
                end()
                raise
        return end

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
        if action == 1:  # the domain was paused
            self._tell(DiskTrouble(domain.UUIDString(), alias or "", path or "", reason or ""))

    def _agent(self, _connect: object, domain: libvirt.virDomain, state: int, _reason: int, _opaque: Any) -> None:
        change = _AGENT_STATES.get(state)
        if change is not None:
            self._tell(DomainEvent(domain.UUIDString(), change))

    def _tell(self, event: HypervisorEvent) -> None:
        try:
            self._loop.call_soon_threadsafe(self._hear, event)
        except RuntimeError:  # the loop is closed: the agent ends
            return
