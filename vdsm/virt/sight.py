# SPDX-License-Identifier: GPL-2.0-or-later
"""What a look at a domain means for its VM. Pure: libvirt's state in, a cause for the life cycle out.

libvirt has                         cause
nothing, or an inactive domain      the VM has ended: why is `exit_of`'s
running, asleep (power management)  RUNS
paused by a disk                    STANDS, with the trouble that was heard of
paused for its own migration, save  none while that work goes on: no pause that anybody has to hear of
  or snapshot
paused at its start or end          none: what follows is told by the next event
paused by anything else, panicked   STANDS
shutting down                       none: QEMU is about to end, and why was heard
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from vdsm.virt.claims import Claim, Claims
from vdsm.virt.hypervisor import Domain, DomainState
from vdsm.virt.lifecycle import Cause
from vdsm.virt.records import Record
from vdsm.virt.states import Exit, ExitReason, PauseCode, VmState, exit_for, reason_of_off

# paused for work of ours -> which work
_UNDER_A_JOB = {
    "migration": (Claim.MIGRATION,),
    "save": (Claim.SAVE,),
    "dump": (Claim.SNAPSHOT,),
    "snapshot": (Claim.SNAPSHOT,),
}
_PASSING = frozenset({"starting up", "shutting down"})
# what libvirt itself knows better than what somebody wanted before
_CERTAIN = frozenset({"crashed", "migrated", "saved"})


@dataclass(frozen=True)
class Sight:
    """``ended``: there is no QEMU of it any more. ``cause`` None: nothing to change."""

    ended: bool = False
    cause: Cause | None = None
    code: PauseCode = PauseCode.NONE


def judge(domain: Domain | None, trouble: PauseCode, stored: VmState, claims: Claims) -> Sight:
    if domain is None or not domain.active:
        return Sight(ended=True)
    if domain.state is DomainState.RUNNING:
        return Sight(cause=Cause.RUNS)
    if domain.state is DomainState.CRASHED:
        return Sight(cause=Cause.STANDS, code=PauseCode.NO_ERROR)
    if domain.state is not DomainState.PAUSED or domain.reason in _PASSING:
        return Sight()
    if claims.holds(*_UNDER_A_JOB.get(domain.reason, ())) or stored is VmState.MIGRATION_DESTINATION:
        return Sight()
    if domain.reason == "ioerror":
        return Sight(cause=Cause.STANDS, code=trouble or PauseCode.OTHER)
    if domain.reason == "postcopy":
        return Sight(cause=Cause.STANDS, code=PauseCode.POSTCOPY)
    return Sight(cause=Cause.STANDS, code=PauseCode.NO_ERROR)


def asked_of(record: Record) -> ExitReason | None:
    """What somebody asked for and may still get."""
    return record.asked if time.monotonic() < record.asked_until_s else None


def exit_of(domain: Domain | None, record: Record) -> Exit:
    """Why the VM that ran has ended: what an event of its end said, what libvirt is sure of, what was asked for."""
    if record.heard is not None:
        return exit_for(record.heard)
    if domain is not None and domain.reason in _CERTAIN:
        return exit_for(reason_of_off(domain.reason))
    asked = asked_of(record)
    if asked is not None:
        return exit_for(asked)
    return exit_for(ExitReason.DOMAIN_MISSING if domain is None else reason_of_off(domain.reason))
