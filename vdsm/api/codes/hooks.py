# SPDX-License-Identifier: GPL-2.0-or-later
"""Codes of hooks (wire.md §7): one for every way in which a hook can fail."""

from __future__ import annotations

from vdsm.common.errors import AgentError
from vdsm.hooking.errors import ForbiddenProperty, HookFailed, HooksNotRun

HOOK_ERROR = 1500

CODES: dict[type[AgentError], int] = {
    ForbiddenProperty: HOOK_ERROR,
    HookFailed: HOOK_ERROR,
    HooksNotRun: HOOK_ERROR,
}
