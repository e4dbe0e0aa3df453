# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's numbers as words: states, reasons and events."""

from __future__ import annotations

from vdsm.virt.hypervisor import Change, DomainState

_STATES = {
    0: DomainState.RUNNING,  # no state: being started
    1: DomainState.RUNNING,
    2: DomainState.RUNNING,  # blocked on a resource
    3: DomainState.PAUSED,
    4: DomainState.SHUTTING_DOWN,
    5: DomainState.OFF,
    6: DomainState.CRASHED,
    7: DomainState.RUNNING,  # asleep by its own power management: no pause of ours, a key press wakes it
}

_PAUSED_REASONS = {1: "user", 5: "ioerror", 7: "shutting down", 11: "starting up"}
_OFF_REASONS = {1: "shutdown", 2: "destroyed", 3: "crashed", 4: "migrated", 5: "saved", 6: "failed"}

_LIFECYCLE = {
    (2, None): Change.STARTED,
    (3, 2): Change.SUSPENDED_IOERROR,
    (3, None): Change.SUSPENDED,
    (4, None): Change.RESUMED,
    (5, 2): Change.CRASHED,
    (5, 3): Change.MIGRATED,
    (5, 4): Change.SAVED,
    (5, 5): Change.CRASHED,
    (5, None): Change.STOPPED,
    (6, 1): Change.SHUTDOWN_GUEST,
    (6, 2): Change.SHUTDOWN_HOST,
    (6, None): Change.SHUTDOWN,
    (7, None): Change.SUSPENDED,  # by its own power management
    (8, None): Change.CRASHED,
}


def domain_state(state: int, reason: int) -> tuple[DomainState, str]:
    """The state, and libvirt's reason for it as a word (empty when it says nothing)."""
    word = _STATES.get(state, DomainState.RUNNING)
    if word is DomainState.PAUSED:
        return word, _PAUSED_REASONS.get(reason, "")
    if word is DomainState.OFF:
        return word, _OFF_REASONS.get(reason, "")
    return word, ""


def lifecycle_change(event: int, detail: int) -> Change | None:
    """None for events that change nothing here (defined, undefined)."""
    return _LIFECYCLE.get((event, detail)) or _LIFECYCLE.get((event, None))
