# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's numbers as words, each named by libvirt's own constant; and events that its test driver never sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from vdsm.virt.hypervisor import (
    BalloonChanged,
    Change,
    ClockShift,
    DeviceAdded,
    DeviceRemoved,
    DiskTrouble,
    DomainEvent,
    DomainState,
    HypervisorEvent,
    Watchdog,
)
from vdsm.virt.libvirt_edge.subscriptions import Subscription
from vdsm.virt.libvirt_edge.translation import disk_error, domain_state, lifecycle_change, watchdog_action

# newer than the library that this host may have
_LATER = {"PAUSED_API_ERROR": 14}

STATES = {
    "RUNNING": (
        DomainState.RUNNING,
        {
            "UNKNOWN": "",
            "BOOTED": "booted",
            "MIGRATED": "migrated",
            "RESTORED": "restored",
            "FROM_SNAPSHOT": "from snapshot",
            "UNPAUSED": "unpaused",
            "MIGRATION_CANCELED": "migration canceled",
            "SAVE_CANCELED": "save canceled",
            "WAKEUP": "wakeup",
            "CRASHED": "crashed",
            "POSTCOPY": "postcopy",
            "POSTCOPY_FAILED": "postcopy failed",
        },
    ),
    "PAUSED": (
        DomainState.PAUSED,
        {
            "UNKNOWN": "",
            "USER": "user",
            "MIGRATION": "migration",
            "SAVE": "save",
            "DUMP": "dump",
            "IOERROR": "ioerror",
            "WATCHDOG": "watchdog",
            "FROM_SNAPSHOT": "from snapshot",
            "SHUTTING_DOWN": "shutting down",
            "SNAPSHOT": "snapshot",
            "CRASHED": "panicked",
            "STARTING_UP": "starting up",
            "POSTCOPY": "postcopy",
            "POSTCOPY_FAILED": "postcopy failed",
            "API_ERROR": "api error",
        },
    ),
    "SHUTDOWN": (DomainState.SHUTTING_DOWN, {"UNKNOWN": "", "USER": "user"}),
    "SHUTOFF": (
        DomainState.OFF,
        {
            "UNKNOWN": "",
            "SHUTDOWN": "shutdown",
            "DESTROYED": "destroyed",
            "CRASHED": "crashed",
            "MIGRATED": "migrated",
            "SAVED": "saved",
            "FAILED": "failed",
            "FROM_SNAPSHOT": "from snapshot",
            "DAEMON": "daemon",
        },
    ),
    "CRASHED": (DomainState.CRASHED, {"UNKNOWN": "", "PANICKED": "panicked"}),
    "PMSUSPENDED": (DomainState.RUNNING, {"UNKNOWN": "asleep"}),
    "NOSTATE": (DomainState.RUNNING, {"UNKNOWN": ""}),
    "BLOCKED": (DomainState.RUNNING, {"UNKNOWN": ""}),
}

EVENTS: dict[str, dict[str, Change | None]] = {
    "DEFINED": {"ADDED": None, "UPDATED": None, "RENAMED": None, "FROM_SNAPSHOT": None},
    "UNDEFINED": {"REMOVED": None, "RENAMED": None},
    "STARTED": {
        "BOOTED": Change.STARTED,
        "MIGRATED": Change.STARTED,
        "RESTORED": Change.STARTED,
        "FROM_SNAPSHOT": Change.STARTED,
        "WAKEUP": Change.AWOKE,
    },
    "SUSPENDED": {
        "PAUSED": Change.SUSPENDED,
        "MIGRATED": Change.SUSPENDED_MIGRATED,
        "IOERROR": Change.SUSPENDED_IOERROR,
        "WATCHDOG": Change.SUSPENDED_WATCHDOG,
        "RESTORED": Change.SUSPENDED_RESTORED,
        "FROM_SNAPSHOT": Change.SUSPENDED_SNAPSHOT,
        "API_ERROR": Change.SUSPENDED_API_ERROR,
        "POSTCOPY": Change.SUSPENDED_POSTCOPY,
        "POSTCOPY_FAILED": Change.POSTCOPY_FAILED,
    },
    "RESUMED": {
        "UNPAUSED": Change.RESUMED,
        "MIGRATED": Change.RESUMED_MIGRATED,
        "FROM_SNAPSHOT": Change.RESUMED_SNAPSHOT,
        "POSTCOPY": Change.RESUMED_POSTCOPY,
        "POSTCOPY_FAILED": Change.RESUMED_POSTCOPY_FAILED,
    },
    "SHUTDOWN": {
        "FINISHED": Change.SHUTDOWN,
        "GUEST": Change.SHUTDOWN_GUEST,
        "HOST": Change.SHUTDOWN_HOST,
    },
    "STOPPED": {
        "SHUTDOWN": Change.STOPPED,
        "DESTROYED": Change.STOPPED,
        "CRASHED": Change.CRASHED,
        "MIGRATED": Change.MIGRATED,
        "SAVED": Change.SAVED,
        "FAILED": Change.CRASHED,
        "FROM_SNAPSHOT": Change.STOPPED,
    },
    "PMSUSPENDED": {"MEMORY": Change.ASLEEP, "DISK": Change.ASLEEP},
    "CRASHED": {"PANICKED": Change.PANICKED, "CRASHLOADED": Change.PANICKED},
}


def named(prefix: str) -> set[str]:
    """The words that the library has after ``prefix``."""
    return {name.removeprefix(prefix) for name in dir(libvirt) if name.startswith(prefix)}


@pytest.mark.parametrize(
    ("state", "reason", "told"),
    [(state, reason, (word, told)) for state, (word, reasons) in STATES.items() for reason, told in reasons.items()],
)
def test_states_and_their_reasons_have_words(state: str, reason: str, told: tuple[DomainState, str]) -> None:
    name = f"{state}_{reason}"
    number = getattr(libvirt, f"VIR_DOMAIN_{name}", _LATER.get(name))
    assert domain_state(getattr(libvirt, f"VIR_DOMAIN_{state}"), number) == told


@pytest.mark.parametrize("state", ["RUNNING", "PAUSED", "SHUTOFF", "CRASHED"])
def test_no_reason_that_the_library_has_is_without_a_word(state: str) -> None:
    assert named(f"VIR_DOMAIN_{state}_") <= set(STATES[state][1])


@pytest.mark.parametrize(
    ("event", "detail", "change"),
    [(event, detail, change) for event, details in EVENTS.items() for detail, change in details.items()],
)
def test_events_have_words(event: str, detail: str, change: Change | None) -> None:
    number = getattr(libvirt, f"VIR_DOMAIN_EVENT_{event}")
    assert lifecycle_change(number, getattr(libvirt, f"VIR_DOMAIN_EVENT_{event}_{detail}")) is change


@pytest.mark.parametrize("event", EVENTS)
def test_no_event_that_the_library_has_is_without_a_word(event: str) -> None:
    assert named(f"VIR_DOMAIN_EVENT_{event}_") <= set(EVENTS[event])


@pytest.mark.parametrize(
    ("event", "change"),
    [("STARTED", Change.STARTED), ("SUSPENDED", Change.SUSPENDED), ("RESUMED", Change.RESUMED)],
)
def test_a_detail_of_a_newer_libvirt_is_the_plain_event(event: str, change: Change) -> None:
    assert lifecycle_change(getattr(libvirt, f"VIR_DOMAIN_EVENT_{event}"), 99) is change


def test_what_a_watchdog_does_has_a_word() -> None:
    words = {
        "NONE": "ignore",
        "PAUSE": "pause",
        "RESET": "reset",
        "POWEROFF": "destroy",
        "SHUTDOWN": "shutdown",
        "DEBUG": "log",
        "INJECTNMI": "inject-nmi",
    }
    prefix = "VIR_DOMAIN_EVENT_WATCHDOG_"
    assert {name: watchdog_action(getattr(libvirt, prefix + name)) for name in named(prefix)} == words


def test_errors_of_disks_have_words() -> None:
    assert disk_error(libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE) == "no space"
    assert disk_error(libvirt.VIR_DOMAIN_DISK_ERROR_UNSPEC) == "unspecified"


class Registered:
    """Takes the callbacks as a connection does, and calls them as libvirt does."""

    def __init__(self, refuse: int | None = None) -> None:
        self.callbacks: dict[int, Callable[..., None]] = {}
        self._refuse = refuse

    def domainEventRegisterAny(
        self, _domain: object, event: int, callback: Callable[..., None], _opaque: object
    ) -> int:
        if event == self._refuse:
            raise libvirt.libvirtError("refused")
        self.callbacks[event] = callback
        return event

    def domainEventDeregisterAny(self, number: int) -> None:
        del self.callbacks[number]


class NamedDomain:
    def UUIDString(self) -> str:
        return "vm"


@pytest.mark.parametrize(
    ("event", "arguments", "told"),
    [
        (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, (), DomainEvent("vm", Change.REBOOTED)),
        (libvirt.VIR_DOMAIN_EVENT_ID_RTC_CHANGE, (-7,), ClockShift("vm", -7)),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
            ("/x", "ua-1", libvirt.VIR_DOMAIN_EVENT_IO_ERROR_PAUSE, "enospc"),
            DiskTrouble("vm", "ua-1", "/x", "enospc", paused=True),
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
            (None, None, libvirt.VIR_DOMAIN_EVENT_IO_ERROR_PAUSE, None),
            DiskTrouble("vm", "", "", "", paused=True),
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
            ("/x", "ua-1", libvirt.VIR_DOMAIN_EVENT_IO_ERROR_REPORT, "eio"),
            DiskTrouble("vm", "ua-1", "/x", "eio", paused=False),
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
            ("/x", "ua-1", libvirt.VIR_DOMAIN_EVENT_IO_ERROR_NONE, "eio"),
            DiskTrouble("vm", "ua-1", "/x", "eio", paused=False),
        ),
        (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, (libvirt.VIR_DOMAIN_EVENT_WATCHDOG_RESET,), Watchdog("vm", "reset")),
        (libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, (1024,), BalloonChanged("vm", 1024)),
        (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, ("ua-1",), DeviceAdded("vm", "ua-1")),
        (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, ("ua-1",), DeviceRemoved("vm", "ua-1")),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
            (libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED, 0),
            DomainEvent("vm", Change.AGENT_CONNECTED),
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
            (libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_DISCONNECTED, 0),
            DomainEvent("vm", Change.AGENT_DISCONNECTED),
        ),
    ],
)
async def test_events_that_the_test_driver_has_not_are_translated(
    event: int, arguments: tuple[object, ...], told: HypervisorEvent
) -> None:
    heard: list[HypervisorEvent] = []
    registered: Any = Registered()
    subscription = Subscription(asyncio.get_running_loop(), heard.append)
    subscription.register(registered)
    registered.callbacks[event](registered, NamedDomain(), *arguments, None)
    await asyncio.sleep(0)
    assert heard == []  # until the connection is the one that is heard
    subscription.heard = True
    registered.callbacks[event](registered, NamedDomain(), *arguments, None)
    await asyncio.sleep(0)
    assert heard == [told]
    subscription.end()
    assert registered.callbacks == {}


async def test_a_subscription_that_is_refused_leaves_none_behind() -> None:
    registered: Any = Registered(refuse=libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON)
    subscription = Subscription(asyncio.get_running_loop(), lambda _event: None)
    with pytest.raises(libvirt.libvirtError):
        subscription.register(registered)
    subscription.end()
    assert registered.callbacks == {}
