# SPDX-License-Identifier: GPL-2.0-or-later
"""One line for every call of a verb that changes something: who, what, on what, result.

"On what" is made of ids and of the names in maps (networks, domains); values of other parameters may be
secrets or huge and never get here. Calls that their caller's role forbids change nothing, and anybody may make a
million of them: they are told once for a flood.
"""

from __future__ import annotations

import logging
from typing import Any

from vdsm.api.roles import Identity
from vdsm.common import logs
from vdsm.common.ids import BLANK_UUID, is_uuid
from vdsm.common.repeats import Repeats

log = logging.getLogger(logs.AUDIT)

MAX_SUBJECTS = 12
MAX_NAME = 40
MAX_IDENTITY = 200
MAX_RESULT = 2000


def record(verb: str, identity: Identity, transport: str, params: Any, result: str) -> None:
    log.info("%s", _line(verb, identity, transport, params, result))


class Forbidden:
    def __init__(self) -> None:
        self._told = Repeats(log)

    def record(self, verb: str, identity: Identity, transport: str, params: Any, result: str) -> None:
        self._told.tell((identity.name, verb), _line(verb, identity, transport, params, result))


def _line(verb: str, identity: Identity, transport: str, params: Any, result: str) -> str:
    who = _printable(identity.name, MAX_IDENTITY)
    return f"{verb} by {who} over {transport} on {_subjects(params)}: {result[:MAX_RESULT]}"


def _subjects(params: Any) -> str:
    found: list[str] = []
    if isinstance(params, dict):
        for name, value in params.items():
            if is_uuid(value) and value != BLANK_UUID:
                found.append(f"{_printable(name)}={value}")
            elif isinstance(value, dict) and value:
                names = ",".join(_printable(key) for key in list(value)[:MAX_SUBJECTS])
                found.append(f"{_printable(name)}={{{names}}}")
    elif isinstance(params, list):
        found = [value for value in params if is_uuid(value)]
    return " ".join(found[:MAX_SUBJECTS]) or "the host"


def _printable(name: str, most: int = MAX_NAME) -> str:
    return name[:most] if name.isprintable() else repr(name[:most])
