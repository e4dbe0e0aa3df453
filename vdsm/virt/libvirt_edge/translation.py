# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's numbers as words: states, reasons, events and errors of disks.

Numbers, not libvirt's names for them: some are newer than the library that this host may have.
"""

from __future__ import annotations

from vdsm.virt.hypervisor import Change, DomainState

_PMSUSPENDED = 7
_STATES = {
    0: DomainState.RUNNING,  # no state: being started
    1: DomainState.RUNNING,
    2: DomainState.RUNNING,  # blocked on a resource
    3: DomainState.PAUSED,
    4: DomainState.SHUTTING_DOWN,
    5: DomainState.OFF,
    6: DomainState.CRASHED,
    _PMSUSPENDED: DomainState.RUNNING,  # no pause of ours: a key press wakes it
}

_REASONS = {
    1: {
        1: "booted",
        2: "migrated",
        3: "restored",
        4: "from snapshot",
        5: "unpaused",
        6: "migration canceled",
        7: "save canceled",
        8: "wakeup",
        9: "crashed",
        10: "postcopy",
        11: "postcopy failed",
    },
    3: {
        1: "user",
        2: "migration",
        3: "save",
        4: "dump",
        5: "ioerror",
        6: "watchdog",
        7: "from snapshot",
        8: "shutting down",
        9: "snapshot",
        10: "panicked",
        11: "starting up",
        12: "postcopy",
        13: "postcopy failed",
        14: "api error",
    },
    4: {1: "user"},
    5: {
        1: "shutdown",
        2: "destroyed",
        3: "crashed",
        4: "migrated",
        5: "saved",
        6: "failed",
        7: "from snapshot",
        8: "daemon",
    },
    6: {1: "panicked"},
    _PMSUSPENDED: {0: "asleep"},
}

_LIFECYCLE = {
    (2, None): Change.STARTED,
    (2, 4): Change.AWOKE,
    (3, None): Change.SUSPENDED,
    (3, 1): Change.SUSPENDED_MIGRATED,
    (3, 2): Change.SUSPENDED_IOERROR,
    (3, 3): Change.SUSPENDED_WATCHDOG,
    (3, 4): Change.SUSPENDED_RESTORED,
    (3, 5): Change.SUSPENDED_SNAPSHOT,
    (3, 6): Change.SUSPENDED_API_ERROR,
    (3, 7): Change.SUSPENDED_POSTCOPY,
    (3, 8): Change.POSTCOPY_FAILED,
    (4, None): Change.RESUMED,
    (4, 1): Change.RESUMED_MIGRATED,
    (4, 2): Change.RESUMED_SNAPSHOT,
    (4, 3): Change.RESUMED_POSTCOPY,
    (4, 4): Change.RESUMED_POSTCOPY_FAILED,
    (5, None): Change.STOPPED,
    (5, 2): Change.CRASHED,
    (5, 3): Change.MIGRATED,
    (5, 4): Change.SAVED,
    (5, 5): Change.CRASHED,
    (6, None): Change.SHUTDOWN,
    (6, 1): Change.SHUTDOWN_GUEST,
    (6, 2): Change.SHUTDOWN_HOST,
    (7, None): Change.ASLEEP,
    (8, None): Change.PANICKED,
}

_WATCHDOG_ACTIONS = {1: "pause", 2: "reset", 3: "destroy", 4: "shutdown", 5: "log", 6: "inject-nmi"}
_DISK_ERRORS = {2: "no space"}


def domain_state(state: int, reason: int) -> tuple[DomainState, str]:
    """The state, and libvirt's reason for it as a word (empty when it says nothing)."""
    return _STATES.get(state, DomainState.RUNNING), _REASONS.get(state, {}).get(reason, "")


def contradicts(state: DomainState, active: bool) -> bool:
    """Whether both can't be true at one time: the domain changed between two questions."""
    return state is not DomainState.CRASHED and active is (state is DomainState.OFF)


def lifecycle_change(event: int, detail: int) -> Change | None:
    """None for events that change nothing here (defined, undefined)."""
    return _LIFECYCLE.get((event, detail)) or _LIFECYCLE.get((event, None))


def watchdog_action(action: int) -> str:
    return _WATCHDOG_ACTIONS.get(action, "ignore")


def disk_error(error: int) -> str:
    return _DISK_ERRORS.get(error, "unspecified")
