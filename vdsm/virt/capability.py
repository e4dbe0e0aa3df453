# SPDX-License-Identifier: GPL-2.0-or-later
"""What one ability of a VM is, and the narrow handle over which it works.

An owner holds capabilities (disks, guest agent, watchdog, ...) and does not know what they do: it hands them the events
that they name, asks what they have to report, lets them take over what runs after a restart of the agent, and lets
them clean up at the end. All of it in one fixed order, that of the owner's list. The owner does not grow with them.

Recovery has two phases. `recover` takes over from libvirt's XML and the record, before any verb is answered: it waits
for nothing else. `reach_storage` does what needs storage, later, VM by VM, and is tried again until it succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from vdsm.virt.claims import Claims
from vdsm.virt.domain_xml.description import Description
from vdsm.virt.hypervisor import Domain, VmEvent
from vdsm.virt.lifecycle import Lifecycle
from vdsm.virt.look import Look
from vdsm.virt.ports import HookVm
from vdsm.virt.records import Record
from vdsm.virt.states import Exit

Json = dict[str, Any]
Reaction = Callable[[Any], Awaitable[None]]


class Handle(Protocol):
    """What a capability sees of its VM."""

    @property
    def vm_id(self) -> str: ...
    @property
    def description(self) -> Description: ...
    @property
    def xml(self) -> str: ...
    @property
    def record(self) -> Record: ...
    @property
    def status(self) -> Lifecycle: ...
    @property
    def stands(self) -> bool:
        """libvirt's last word: its CPUs stand."""

    @property
    def claims(self) -> Claims: ...
    @property
    def look(self) -> Look: ...
    @property
    def hook_vm(self) -> HookVm: ...

    async def change(self, **fields: Any) -> None:
        """Change the VM's record."""

    def tell(self) -> None:
        """Publish the VM's state as it is now."""

    def check_running(self, action: str) -> None:
        """Raises `VmIsDown`, `VmStarting`."""

    def end(self, exit_: Exit, graceful_attempts: int = 0) -> asyncio.Future[None]:
        """Begin the end of the VM unless it has begun."""

    def end_with_hook(self, exit_: Exit) -> None:
        """As a destroy that nobody asked for: ``before_vm_destroy`` runs before."""


class Capability:
    """The capability that does nothing: each overrides what it has."""

    def hears(self) -> Mapping[type[VmEvent], Reaction]:
        """Events that it reacts to, in the event lane: milliseconds each."""
        return {}

    def report(self) -> Json:
        """Its keys of the VM's statistics, from memory."""
        return {}

    async def recover(self, domain: Domain) -> None:
        """The VM ran before the agent started: take over what libvirt and the record say."""

    async def reach_storage(self) -> None:
        """After a restart: what needs storage. Raises what it must be tried again for."""

    def close(self) -> None:
        """Nothing of it goes on after this: the VM ends, or the agent does."""
