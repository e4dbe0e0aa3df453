# SPDX-License-Identifier: GPL-2.0-or-later
"""Asking a guest to end or to start anew, and what happens when it does not (virt.md §24).

    guest agent, when connected -> wait -> power button (ACPI) -> wait -> with force: destroyed or reset

Each wait ends at once when the guest obeys. The verb answers as soon as the first way is chosen; the chain
goes on by itself. Without force a guest that ignores all is simply Up again. Why the guest ends then is on record
before it is asked, and stays true as long as the request is reported: a guest that its user ends next week was not
ended by the admin.

A reboot ends a VM that must not go through one (`destroy_on_reboot`, exit reason 13): engines start it again with
what was changed meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from vdsm.common.errors import AgentError
from vdsm.virt.capability import Capability, Handle, Reaction
from vdsm.virt.errors import NoPowerdownWay
from vdsm.virt.guest_agent import Agent
from vdsm.virt.hypervisor import Change, DomainEvent, Power, VmEvent
from vdsm.virt.lifecycle import POWERING_DOWN_S, REBOOTING_S
from vdsm.virt.running import Running, Turn
from vdsm.virt.states import ExitReason, VmState, exit_for

log = logging.getLogger("vdsm.virt")

# firmware resets the machine again at a reset, and QEMU tells each
_ONE_REBOOT_S = 2.0
_now = time.monotonic


@dataclass(frozen=True)
class PowerdownRequest:
    delay_s: float
    timeout_s: float
    reboot: bool
    force: bool


@dataclass(frozen=True)
class Way:
    name: str
    ask: Callable[[str], Awaitable[None]]
    wait_s: float
    # libvirt's change of the domain; a guest agent's answer may take for ever, and holds nothing
    takes_turn: bool


class PowerButton(Capability):
    """One chain at a time; a second request replaces the first."""

    def __init__(self, vm: Handle, hypervisor: Power, agent: Agent, running: Running, turn: Turn) -> None:
        self._vm = vm
        self._hypervisor = hypervisor
        self._agent = agent
        self._running = running
        self._turn = turn
        self._obeyed = asyncio.Event()
        self._chain: asyncio.Task[None] | None = None
        self._rebooted_s = -_ONE_REBOOT_S

    def hears(self) -> Mapping[type[VmEvent], Reaction]:
        return {DomainEvent: self._changed}

    async def shut_down(self, request: PowerdownRequest) -> None:
        """Begin the chain. Raises `NoPowerdownWay`."""
        self._vm.check_running("shut down")
        ways = self._ways(request)
        if not ways and not request.force:
            raise NoPowerdownWay(self._vm.vm_id)
        self._end_chain()
        if not request.reboot:
            lasts_s = max(POWERING_DOWN_S, sum(way.wait_s for way in ways))
            await self._vm.change(asked=ExitReason.ADMIN_SHUTDOWN, asked_until_s=time.monotonic() + lasts_s)
            self._vm.check_running("shut down")  # it may have ended while the record was written
            self._end_chain()  # of a request that came meanwhile
        self._obeyed.clear()
        if request.reboot:
            self._vm.status.expect_guest(VmState.REBOOTING, REBOOTING_S)
        else:
            self._vm.status.expect_guest(VmState.POWERING_DOWN, POWERING_DOWN_S)
        self._chain = asyncio.create_task(self._run(ways, request), name=f"powerdown {self._vm.vm_id}")
        self._vm.tell()

    async def destroy_on_reboot(self) -> None:
        """The next reboot ends the VM, also after a restart of the agent."""
        self._vm.check_running("set what a reboot means for")
        await self._vm.change(destroy_on_reboot=True)

    def close(self) -> None:
        self._obeyed.set()
        self._end_chain()

    def _end_chain(self) -> None:
        if self._chain is not None:
            self._chain.cancel()

    def _ways(self, request: PowerdownRequest) -> list[Way]:
        """The soft ways that this guest offers, best first."""
        hypervisor, found = self._hypervisor, []
        if self._agent.connected:
            ask = hypervisor.ask_agent_reboot if request.reboot else hypervisor.ask_agent_shutdown
            found.append(Way("guest agent", ask, request.delay_s + request.timeout_s, takes_turn=False))
        if self._vm.description.acpi:
            ask = hypervisor.ask_reboot if request.reboot else hypervisor.ask_shutdown
            found.append(Way("ACPI", ask, request.timeout_s, takes_turn=True))
        return found

    async def _changed(self, event: DomainEvent) -> None:
        if event.change is not Change.REBOOTED:
            return
        vm = self._vm
        self._obeyed.set()
        if vm.status.ending:
            return
        if vm.record.destroy_on_reboot or vm.description.metadata.destroy_on_reboot:
            vm.end_with_hook(exit_for(ExitReason.DESTROYED_ON_REBOOT))
            return
        before, self._rebooted_s = self._rebooted_s, _now()
        if self._rebooted_s - before < _ONE_REBOOT_S:
            return
        await vm.change(started_at_s=time.time())
        if vm.description.agent_channel:
            vm.status.expect_guest(VmState.REBOOTING, REBOOTING_S)
        vm.tell()

    async def _run(self, ways: list[Way], request: PowerdownRequest) -> None:
        vm_id = self._vm.vm_id
        for way in ways:
            try:
                await self._ask(way)
            except AgentError as e:
                log.warning("VM %s: power-down by %s: %s", vm_id, way.name, e)
                continue
            try:
                async with asyncio.timeout(way.wait_s):
                    await self._obeyed.wait()
                return
            except TimeoutError:
                log.info("VM %s did not obey the %s in %.0f s", vm_id, way.name, way.wait_s)
        if request.force:
            await self._by_force(request)

    async def _ask(self, way: Way) -> None:
        if not way.takes_turn:
            await way.ask(self._vm.vm_id)
            return
        async with self._turn(f"shut down by {way.name}"):
            await way.ask(self._vm.vm_id)

    async def _by_force(self, request: PowerdownRequest) -> None:
        log.info("VM %s is %s by force", self._vm.vm_id, "reset" if request.reboot else "ended")
        try:
            if request.reboot:
                await self._running.reset()
            else:
                self._vm.end_with_hook(exit_for(ExitReason.ADMIN_SHUTDOWN))
        except AgentError as e:
            log.error("VM %s: %s", self._vm.vm_id, e)
