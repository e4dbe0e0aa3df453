# SPDX-License-Identifier: GPL-2.0-or-later
"""The API describes itself."""

from __future__ import annotations

import functools
from typing import Any

from vdsm.api.call import Call
from vdsm.api.openrpc import document
from vdsm.api.registry import VERBS, verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, NoParams


@verb("rpc.discover", role=Role.READER)
async def rpc_discover(call: Call, params: NoParams) -> JsonDict:
    """Answer this document: every verb with its parameters, result, role and kind."""
    return _served()


@functools.cache
def _served() -> dict[str, Any]:
    return document(VERBS)
