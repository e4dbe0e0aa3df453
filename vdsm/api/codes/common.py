# SPDX-License-Identifier: GPL-2.0-or-later
"""Codes of the ground floor's errors and of the border's own."""

from __future__ import annotations

from vdsm.api.roles import AccessDenied
from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.jobs import JobExists, JobNotDone, NoSuchJob

# outside the range that JSON-RPC reserves and that engines know: "forbidden" has no code in the field
FORBIDDEN = -32001

CODES: dict[type[AgentError], int] = {
    AccessDenied: FORBIDDEN,
    # 1000 is a known failure everywhere: an SPM does not fail over because of a caller's mistake
    InvalidParameter: 1000,
    NoSuchJob: 66,
    JobNotDone: 68,
    JobExists: 69,
}
