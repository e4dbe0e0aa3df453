# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU guest agent of one VM: whether it is there, and what only it can do.

A guest agent answers or not as the guest likes, and a freeze may last minutes. So its calls hold nothing of the VM:
while one hangs, every other verb of that VM works, and the end of the VM ends the waiting at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from vdsm.virt.capability import Capability, Handle, Reaction
from vdsm.virt.errors import NoGuestAgent, VmIsDown
from vdsm.virt.hypervisor import Change, DomainEvent, GuestAgent, VmEvent


class Agent(Capability):
    def __init__(self, vm: Handle, hypervisor: GuestAgent) -> None:
        self._vm = vm
        self._hypervisor = hypervisor
        self._ended = asyncio.Event()
        self._connected: bool | None = None

    @property
    def connected(self) -> bool:
        """As the last event said; before one, as libvirt's XML says."""
        return self._vm.description.agent_connected if self._connected is None else self._connected

    def hears(self) -> Mapping[type[VmEvent], Reaction]:
        return {DomainEvent: self._changed}

    async def freeze(self) -> int:
        """Freeze the guest's file systems; how many. Raises `NoGuestAgent`."""
        return await self._ask("freeze", self._hypervisor.freeze(self._vm.vm_id))

    async def thaw(self) -> int:
        """Thaw them; how many. Raises `NoGuestAgent`."""
        return await self._ask("thaw", self._hypervisor.thaw(self._vm.vm_id))

    def close(self) -> None:
        self._ended.set()

    async def _changed(self, event: DomainEvent) -> None:
        if event.change is Change.AGENT_CONNECTED:
            self._connected = True
            if self._vm.status.guest_answered():
                self._vm.tell()
        elif event.change is Change.AGENT_DISCONNECTED:
            self._connected = False

    async def _ask(self, action: str, call: Coroutine[Any, Any, int]) -> int:
        try:
            self._vm.check_running(action)
            if not self.connected:
                raise NoGuestAgent(self._vm.vm_id)
        except BaseException:
            call.close()
            raise
        asking = asyncio.ensure_future(call)
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait([asking, ended], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise VmIsDown(self._vm.vm_id, action)
            return asking.result()
        finally:
            ended.cancel()
            asking.cancel()
