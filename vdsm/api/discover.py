# SPDX-License-Identifier: GPL-2.0-or-later
"""The API describes itself."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import msgspec

from vdsm.api.call import Call
from vdsm.api.openrpc import document
from vdsm.api.registry import VERBS, verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, NoParams


@verb("rpc.discover", role=Role.READER)
async def rpc_discover(call: Call, params: NoParams) -> JsonDict:
    """Answer this document: every verb with its parameters, result, role and kind."""
    answer: JsonDict = await asyncio.to_thread(_served)  # the first time it takes a tenth of a second
    return answer


@functools.cache
def _served() -> Any:
    """Kept as text: as objects it would take many times the memory, and each answer would be encoded anew."""
    return msgspec.Raw(msgspec.json.encode(document(VERBS)))
