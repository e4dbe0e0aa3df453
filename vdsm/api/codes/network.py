# SPDX-License-Identifier: GPL-2.0-or-later
"""Codes of networking, as the engine knows them."""

from __future__ import annotations

from network import errors
from vdsm.common.errors import AgentError

CODES: dict[type[AgentError], int] = {
    errors.ConnectivityLost: 10,
    errors.NotPending: 10,
    errors.BadParams: 21,
    errors.BadAddress: 22,
    errors.BadNic: 23,
    errors.UsedNic: 24,
    errors.BadBonding: 25,
    errors.BadVlan: 26,
    errors.BadBridge: 27,
    errors.UsedBridge: 28,
    errors.SetupFailed: 29,
    errors.RollbackIncomplete: 29,
    errors.NotWritten: 29,
    errors.SetupRunning: 40,
}
