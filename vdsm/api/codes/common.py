# SPDX-License-Identifier: GPL-2.0-or-later
"""Codes of the ground floor's errors and of the border's own."""

from __future__ import annotations

from vdsm.api.errors import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    NoSuchVerb,
    NotBuilt,
    RecoveryInProgress,
    SubjectHangs,
    TooManyCalls,
    VmHangs,
)
from vdsm.api.params import BadParameter
from vdsm.api.roles import AccessDenied
from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.jobs import JobExists, JobNotDone, NoSuchJob
from vdsm.common.owners import LaneBusy
from vdsm.virt.domain_xml.allowlist import XmlNotAllowed

# the field has no code for "forbidden"; this one is in JSON-RPC's range for servers
FORBIDDEN = -32001

CODES: dict[type[AgentError], int] = {
    AccessDenied: FORBIDDEN,
    XmlNotAllowed: FORBIDDEN,
    BadParameter: INVALID_PARAMS,
    # 1000 is a known failure everywhere: an SPM does not fail over because of a caller's mistake
    InvalidParameter: 1000,
    LaneBusy: 40,
    JobExists: 69,
    JobNotDone: 68,
    NoSuchJob: 66,
    NoSuchVerb: METHOD_NOT_FOUND,
    # engines take 44 for a plain failure on a host's channel and on the SPM's: none gives the host up or moves the
    # SPM; -32601 would say that the verb's name is wrong, and one flow of the engine silently goes on after it
    NotBuilt: 44,
    RecoveryInProgress: 99,
    # engines take it for trouble of the network: only for a client that floods its own line
    TooManyCalls: 1100,
    # one thing that hangs is trouble neither of the network nor of the host: 1100 could get the host fenced. 851 is a
    # known failure on the SPM's channel, too; VMs are on the host's, where 40 is one that some flows try again
    SubjectHangs: 851,
    VmHangs: 40,
}
