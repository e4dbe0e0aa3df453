# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent asks of a hypervisor, and what it hears from it.

`libvirt_edge` is the real one; unit tests have a fake. All calls have a deadline of their own and
raise `HypervisorError`, `DomainMissing`, `HypervisorLost` or `DeadlineExceeded`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


class DomainState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting down"
    OFF = "off"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Domain:
    """A domain as libvirt lists it. ``reason`` is libvirt's word for why it is in its state."""

    vm_id: str
    name: str
    state: DomainState
    reason: str
    xml: str

    @property
    def active(self) -> bool:
        return self.state not in (DomainState.OFF, DomainState.CRASHED)


class Change(StrEnum):
    """What happened to a domain."""

    STARTED = "started"
    SUSPENDED = "suspended"
    SUSPENDED_IOERROR = "suspended by an I/O error"
    RESUMED = "resumed"
    SHUTDOWN_GUEST = "shut down by the guest"
    SHUTDOWN_HOST = "shut down by the host"
    SHUTDOWN = "shut down"
    STOPPED = "stopped"
    MIGRATED = "stopped: it runs on another host"
    SAVED = "stopped: its memory was saved"
    CRASHED = "crashed"
    REBOOTED = "rebooted"
    AGENT_CONNECTED = "guest agent connected"
    AGENT_DISCONNECTED = "guest agent disconnected"


@dataclass(frozen=True)
class DomainEvent:
    vm_id: str
    change: Change


@dataclass(frozen=True)
class ClockShift:
    """The guest set its clock: seconds from where the domain's clock started."""

    vm_id: str
    offset_s: int


@dataclass(frozen=True)
class DiskTrouble:
    vm_id: str
    alias: str
    path: str
    reason: str


@dataclass(frozen=True)
class Reconnected:
    """libvirt answers again after it did not: what happened meanwhile is not known."""


HypervisorEvent = DomainEvent | ClockShift | DiskTrouble | Reconnected
Stats = Mapping[str, Mapping[str, Any]]


class Hypervisor(Protocol):
    async def start(self, hear: Callable[[HypervisorEvent], None]) -> None:
        """Connect, and keep connected; ``hear`` is called on the event loop."""

    async def stop(self) -> None: ...

    async def domains(self) -> list[Domain]:
        """All domains, also those that don't run and those that are not ours."""

    async def domain(self, vm_id: str) -> Domain: ...

    async def define(self, xml: str) -> None: ...

    async def launch(self, vm_id: str, flags: int) -> Domain:
        """Start a defined domain; the domain as it is afterwards."""

    async def pause(self, vm_id: str) -> None: ...

    async def resume(self, vm_id: str) -> None: ...

    async def ask_shutdown(self, vm_id: str) -> None:
        """Press the power button (ACPI)."""

    async def ask_agent_shutdown(self, vm_id: str) -> None: ...

    async def ask_reboot(self, vm_id: str) -> None: ...

    async def reset(self, vm_id: str) -> None: ...

    async def terminate(self, vm_id: str) -> None:
        """SIGTERM to QEMU; fails when it does not end in time."""

    async def kill(self, vm_id: str) -> None: ...

    async def undefine(self, vm_id: str) -> None: ...

    async def statistics(self) -> Stats:
        """Statistics of all running domains by id, in one call that does not wait for stuck ones."""

    async def active_networks(self) -> frozenset[str]:
        """Names of libvirt's own networks."""

    async def filters(self) -> frozenset[str]:
        """Names of libvirt's network filters."""
