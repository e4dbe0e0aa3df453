# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent asks of a hypervisor, and what it hears from it.

`libvirt_edge` is the real one; unit tests have a fake. All calls have a deadline of their own and raise
`HypervisorError`, `DomainMissing`, `HypervisorLost`, `TooManyStuckCalls` or `DeadlineExceeded`. Who needs some of
the calls asks for that Protocol only; `Hypervisor`, all of them, is for the place where the parts are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vdsm.virt.stats.counters import Counters


class DomainState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting down"
    OFF = "off"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Domain:
    """A domain as libvirt lists it.

    ``reason`` is libvirt's word for why it is in its state, empty when libvirt does not know:

    running   booted, migrated, restored, from snapshot, unpaused, migration canceled, save canceled, wakeup,
              crashed (it goes on after that), postcopy, postcopy failed; asleep (by its own power management)
    paused    user, migration, save, dump, ioerror, watchdog, from snapshot, shutting down, snapshot, panicked,
              starting up, postcopy, postcopy failed, api error
    shutting down   user
    off       shutdown, destroyed, crashed, migrated, saved, failed, from snapshot, daemon
    crashed   panicked

    ``active`` is libvirt's own answer whether QEMU is there: a crashed domain may be kept for a look at its memory.
    """

    vm_id: str
    name: str
    state: DomainState
    reason: str
    xml: str
    active: bool


class Change(StrEnum):
    """What happened to a domain."""

    STARTED = "started"
    SUSPENDED = "suspended"
    SUSPENDED_MIGRATED = "suspended: the end of its migration"
    SUSPENDED_IOERROR = "suspended by an I/O error"
    SUSPENDED_WATCHDOG = "suspended by its watchdog"
    SUSPENDED_RESTORED = "suspended: restored as paused"
    SUSPENDED_SNAPSHOT = "suspended: reverted to a paused snapshot"
    SUSPENDED_API_ERROR = "suspended: libvirt failed in a job of it"
    SUSPENDED_POSTCOPY = "suspended: its migration went over to post-copy"
    POSTCOPY_FAILED = "suspended: its post-copy failed"
    RESUMED = "resumed"
    RESUMED_MIGRATED = "resumed: its migration ended"
    RESUMED_SNAPSHOT = "resumed: reverted to a running snapshot"
    RESUMED_POSTCOPY = "resumed: it runs while post-copy goes on"
    RESUMED_POSTCOPY_FAILED = "resumed: it runs, its post-copy failed"
    ASLEEP = "asleep by its own power management"
    AWOKE = "awoke"
    SHUTDOWN_GUEST = "shut down by the guest"
    SHUTDOWN_HOST = "shut down by the host"
    SHUTDOWN = "shut down"
    STOPPED = "stopped"
    MIGRATED = "stopped: it runs on another host"
    SAVED = "stopped: its memory was saved"
    CRASHED = "crashed"
    PANICKED = "the guest's kernel panicked"  # what follows is the domain's on_crash
    REBOOTED = "rebooted"
    AGENT_CONNECTED = "guest agent connected"
    AGENT_DISCONNECTED = "guest agent disconnected"


@dataclass(frozen=True)
class DomainEvent:
    vm_id: str
    change: Change


@dataclass(frozen=True)
class ClockShift:
    """The guest set its clock: by so many seconds it is ahead of UTC now, whatever offset the domain started with."""

    vm_id: str
    offset_s: int


@dataclass(frozen=True)
class DiskTrouble:
    """A guest's disk failed. ``paused``: QEMU stopped the guest for it; else the guest was told, or nobody.

    ``reason`` is QEMU's word for the error (enospc, eio...), and empty for most of them.
    """

    vm_id: str
    alias: str
    path: str
    reason: str
    paused: bool = True


@dataclass(frozen=True)
class Watchdog:
    """The guest's watchdog ran out; ``action``: ignore, pause, reset, destroy, shutdown, log or inject-nmi."""

    vm_id: str
    action: str


@dataclass(frozen=True)
class BalloonChanged:
    """The guest's memory is ``kib`` now."""

    vm_id: str
    kib: int


@dataclass(frozen=True)
class DeviceAdded:
    vm_id: str
    alias: str


@dataclass(frozen=True)
class DeviceRemoved:
    """The guest let go of the device: it is gone from the domain."""

    vm_id: str
    alias: str


@dataclass(frozen=True)
class Reconnected:
    """libvirt answers again after it did not: what happened meanwhile is not known."""


VmEvent = DomainEvent | ClockShift | DiskTrouble | Watchdog | BalloonChanged | DeviceAdded | DeviceRemoved
HypervisorEvent = VmEvent | Reconnected


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a domain's statistics say; ``state`` is None when they say nothing of it."""

    state: DomainState | None
    reason: str
    counters: Counters


Stats = Mapping[str, Sampled]


class Domains(Protocol):
    async def start(self, hear: Callable[[HypervisorEvent], None]) -> None:
        """Connect, and keep connected; ``hear`` is called on the event loop."""

    async def stop(self) -> None: ...

    async def domains(self) -> list[Domain]:
        """All domains, also those that don't run and those that are not ours."""

    async def domain(self, vm_id: str) -> Domain: ...


class Lifecycle(Protocol):
    def check_free(self, vm_id: str) -> None:
        """Raises `VmCallsHang` while something that a VM of this id was told has not come back.

        It may be done at any moment, to whatever domain has the id then.
        """

    async def define(self, xml: str) -> None: ...

    async def launch(self, vm_id: str, flags: int) -> Domain:
        """Start a defined domain; the domain as it is afterwards."""

    async def pause(self, vm_id: str) -> None: ...

    async def resume(self, vm_id: str) -> None: ...

    async def reset(self, vm_id: str) -> None: ...

    async def terminate(self, vm_id: str) -> None:
        """SIGTERM to QEMU; fails when it does not end in time."""

    async def kill(self, vm_id: str) -> None: ...

    async def undefine(self, vm_id: str) -> None: ...


class Power(Protocol):
    """Requests to the guest: done when it was asked, not when it obeyed."""

    async def ask_shutdown(self, vm_id: str) -> None:
        """Press the power button (ACPI)."""

    async def ask_agent_shutdown(self, vm_id: str) -> None: ...

    async def ask_reboot(self, vm_id: str) -> None: ...

    async def ask_agent_reboot(self, vm_id: str) -> None: ...


class GuestAgent(Protocol):
    async def freeze(self, vm_id: str) -> int:
        """Freeze the guest's file systems; how many were."""

    async def thaw(self, vm_id: str) -> int:
        """Thaw them; how many were. Harmless when none is frozen."""


class Metadata(Protocol):
    async def set_metadata(self, vm_id: str, xml: str) -> None:
        """Put the ``vm`` element (no prefixes) in place of the domain's, for the state that it is in now.

        While it runs that is lost with its QEMU; once it is off it stays.
        """


class Troubles(Protocol):
    async def disk_errors(self, vm_id: str) -> Mapping[str, str]:
        """Disks whose last I/O failed, by target: ``no space`` or ``unspecified``."""


class StatisticsSource(Protocol):
    async def statistics(self) -> Stats:
        """Statistics of all running domains by id, in one call that does not wait for stuck ones."""

    async def statistics_of(self, vm_id: str) -> Sampled:
        """Statistics of one domain: for when the call for all hangs or fails."""


class HostObjects(Protocol):
    async def active_networks(self) -> frozenset[str]:
        """Names of libvirt's own networks."""

    async def filters(self) -> frozenset[str]:
        """Names of libvirt's network filters."""


class Hypervisor(
    Domains, Lifecycle, Power, GuestAgent, Metadata, Troubles, StatisticsSource, HostObjects, Protocol
): ...
