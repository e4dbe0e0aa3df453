# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers and events as bytes for one reader: those below admin get them without secrets (`vdsm.common.masking`).

What was encoded before (`vdsm.common.encoded`) has a form for them already: it is not searched again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from vdsm.api.roles import Role
from vdsm.common import masking
from vdsm.common.encoded import Encoded
from vdsm.common.events import Event
from vdsm.rpc import protocol

log = logging.getLogger("vdsm.rpc")


# a few milliseconds on the loop
SMALL = 32 << 10
_searching = asyncio.Lock()  # one large answer at a time: bounds memory, and the interpreter has one lock


async def result(identifier: Any, value: Any, role: Role) -> bytes:
    """Raises TypeError or ValueError when ``value`` is no JSON. A large answer is searched in a worker thread."""
    if isinstance(value, Encoded):
        return protocol.result(identifier, msgspec.Raw(value.full if role is Role.ADMIN else value.masked))
    reply = protocol.result(identifier, value)
    if role is Role.ADMIN:
        return reply
    if len(reply) <= SMALL:
        return _without_secrets(reply)
    async with _searching:
        return await asyncio.to_thread(_without_secrets, reply)


def _without_secrets(reply: bytes) -> bytes:
    """Of the bytes: the value may change while a thread looks at it."""
    if not masking.is_suspect(reply):
        return reply
    message = msgspec.json.decode(reply)
    return protocol.result(message["id"], masking.hide_in(message["result"]))


def event(told: Event, role: Role) -> bytes | None:
    """None for what is no JSON: that is a defect, and costs this event only."""
    try:
        message = protocol.notification(told.method, told.params)
        if role is Role.ADMIN or not masking.is_suspect(message):
            return message
        return protocol.notification(told.method, masking.hide_in(msgspec.to_builtins(told.params)))
    except (TypeError, ValueError) as e:
        log.error("event %s can't be sent: %s", told.method, e)
        return None
