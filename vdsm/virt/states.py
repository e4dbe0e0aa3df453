# SPDX-License-Identifier: GPL-2.0-or-later
"""States of a VM, why one stands still, and how one ended: the field's words and numbers (virt.md §5).

What may follow what stands in `lifecycle`. A VM goes Down once: everything that wants to end a VM offers an `Exit`,
and the first one stands.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

from vdsm.common import masking


class VmState(StrEnum):
    WAIT_FOR_LAUNCH = "WaitForLaunch"
    RESTORING = "Restoring state"
    MIGRATION_DESTINATION = "Migration Destination"
    POWERING_UP = "Powering up"
    UP = "Up"
    PAUSED = "Paused"
    MIGRATION_SOURCE = "Migration Source"
    SAVING = "Saving State"
    POWERING_DOWN = "Powering down"
    REBOOTING = "RebootInProgress"
    DOWN = "Down"


class ExitReason(IntEnum):
    SUCCESS = 0
    GENERIC_ERROR = 1
    LOST_QEMU = 2
    START_FAILED = 3
    MIGRATED = 4
    SAVED = 5
    ADMIN_SHUTDOWN = 6
    USER_SHUTDOWN = 7
    MIGRATION_FAILED = 8
    DOMAIN_MISSING = 9
    DESTROYED_ON_STARTUP = 10
    HOST_SHUTDOWN = 11
    POSTCOPY_FAILED = 12
    DESTROYED_ON_REBOOT = 13
    PAUSED_TOO_LONG = 14


class PauseCode(StrEnum):
    """The six that engines know, and none."""

    NONE = ""
    NO_ERROR = "NOERR"
    IO_ERROR = "EIO"
    NO_SPACE = "ENOSPC"
    NO_PERMISSION = "EPERM"
    OTHER = "EOTHER"
    POSTCOPY = "POSTCOPY"


# the guest's CPUs stand because of a disk
DISK_TROUBLE = frozenset({PauseCode.IO_ERROR, PauseCode.NO_SPACE, PauseCode.NO_PERMISSION, PauseCode.OTHER})

_ORDERLY = frozenset(
    {
        ExitReason.SUCCESS,
        ExitReason.MIGRATED,
        ExitReason.SAVED,
        ExitReason.ADMIN_SHUTDOWN,
        ExitReason.USER_SHUTDOWN,
        ExitReason.DESTROYED_ON_STARTUP,
        ExitReason.DESTROYED_ON_REBOOT,
    }
)

_MESSAGES = {
    ExitReason.SUCCESS: "VM terminated",
    ExitReason.GENERIC_ERROR: "VM terminated with error",
    ExitReason.LOST_QEMU: "Lost connection with the QEMU process",
    ExitReason.START_FAILED: "libvirt failed to start the VM",
    ExitReason.MIGRATED: "Migration succeeded",
    ExitReason.SAVED: "The VM's memory was saved and its QEMU ended",
    ExitReason.ADMIN_SHUTDOWN: "Admin shut down from the engine",
    ExitReason.USER_SHUTDOWN: "User shut down from within the guest",
    ExitReason.MIGRATION_FAILED: "VM failed to migrate",
    ExitReason.DOMAIN_MISSING: "The VM was gone when the agent came back",
    ExitReason.DESTROYED_ON_STARTUP: "VM destroyed during the startup",
    ExitReason.HOST_SHUTDOWN: "VM was ended on its host by somebody else, or together with the host",
    ExitReason.POSTCOPY_FAILED: "Migration failed in post-copy",
    ExitReason.DESTROYED_ON_REBOOT: "VM destroyed on reboot",
    ExitReason.PAUSED_TOO_LONG: "VM was paused for too long by an I/O error, as its resume behaviour wants it",
}


class Exit(msgspec.Struct, frozen=True):
    """Why a VM is Down; `code` is 0 for an orderly end and 1 for a failure."""

    code: int
    reason: int
    message: str


# what libvirt says of a domain that is off, when no event of its end was heard; the rest is a lost QEMU
_OFF_REASONS = {
    "shutdown": ExitReason.USER_SHUTDOWN,
    "migrated": ExitReason.MIGRATED,
    "saved": ExitReason.SAVED,
    "failed": ExitReason.START_FAILED,
}


def reason_of_off(word: str) -> ExitReason:
    """Why a domain is off, from libvirt's word for it (virt.md §5.5)."""
    return _OFF_REASONS.get(word, ExitReason.LOST_QEMU)


def exit_for(reason: ExitReason, message: str = "") -> Exit:
    """The message may be what a script or libvirt said, and who hears it need not know the VM's secrets."""
    return Exit(0 if reason in _ORDERLY else 1, int(reason), masking.hide(message) or _MESSAGES[reason])
