# SPDX-License-Identifier: GPL-2.0-or-later
"""Asking a guest to end or to start anew, and what happens when it does not (virt.md §24).

    guest agent, when connected -> wait -> power button (ACPI) -> wait -> with force: destroyed or reset

Each wait ends at once when the guest obeys. The verb answers as soon as the first way is chosen; the chain
goes on by itself. Without force a guest that ignores all is simply Up again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import NoPowerdownWay, VirtError
from vdsm.virt.hypervisor import Hypervisor

log = logging.getLogger("vdsm.virt")


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


def ways(hypervisor: Hypervisor, request: PowerdownRequest, *, agent: bool, acpi: bool) -> list[Way]:
    """The soft ways that this guest offers, best first."""
    found = []
    if agent and not request.reboot:
        found.append(Way("guest agent", hypervisor.ask_agent_shutdown, request.delay_s + request.timeout_s))
    if acpi:
        ask = hypervisor.ask_reboot if request.reboot else hypervisor.ask_shutdown
        found.append(Way("ACPI", ask, request.timeout_s))
    return found


class Powerdown:
    """One chain at a time; a second request replaces the first."""

    def __init__(self, vm_id: str, obeyed: asyncio.Event, force: Callable[[PowerdownRequest], Awaitable[None]]) -> None:
        self._vm_id = vm_id
        self._obeyed = obeyed
        self._force = force
        self._chain: asyncio.Task[None] | None = None

    def begin(self, chosen: list[Way], request: PowerdownRequest) -> None:
        """Raises `NoPowerdownWay` when there is nothing to try."""
        if not chosen and not request.force:
            raise NoPowerdownWay(self._vm_id)
        self.cancel()
        self._obeyed.clear()
        self._chain = asyncio.create_task(self._run(chosen, request), name=f"powerdown {self._vm_id}")

    def cancel(self) -> None:
        if self._chain is not None:
            self._chain.cancel()

    async def _run(self, chosen: list[Way], request: PowerdownRequest) -> None:
        for way in chosen:
            try:
                await way.ask(self._vm_id)
            except (VirtError, DeadlineExceeded) as e:
                log.warning("VM %s: power-down by %s: %s", self._vm_id, way.name, e)
                continue
            try:
                async with asyncio.timeout(way.wait_s):
                    await self._obeyed.wait()
                return
            except TimeoutError:
                log.info("VM %s did not obey the %s in %.0f s", self._vm_id, way.name, way.wait_s)
        if request.force:
            log.info("VM %s is ended by force", self._vm_id)
            try:
                await self._force(request)
            except (VirtError, DeadlineExceeded) as e:
                log.error("VM %s: %s", self._vm_id, e)
