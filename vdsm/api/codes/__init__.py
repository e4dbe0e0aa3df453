# SPDX-License-Identifier: GPL-2.0-or-later
"""Numeric codes of the wire, one module per area: ``CODES = {VolumeExists: 212, ...}``.

A code counts for a class and its subclasses that have none of their own. A class without any gets the verb's
default (`vdsm.api.default_codes`). ``table.json`` holds every code of the field, also those that no error of ours
has: ``[name, the engine's name, what the engine does]``, a name is null where that side has none.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path
from typing import Literal

import msgspec

from vdsm.api import default_codes
from vdsm.api.default_codes import GENERAL
from vdsm.common.errors import AgentError

TABLE = Path(__file__).with_name("table.json")

# K a known failure; F, on the SPM's channel, moves the SPM; N trouble of the network; R the host starts;
# S forgets the SPM; M trouble of the master domain; U is shown as "no unicode"
Reaction = Literal["K", "F", "N", "R", "S", "M", "U"]


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A code of the field."""

    name: str | None
    engine_name: str | None
    reaction: Reaction


@functools.cache
def table() -> dict[int, Known]:
    return msgspec.json.decode(TABLE.read_bytes(), type=dict[int, Known])


@functools.cache
def numbers() -> dict[str, int]:
    """Name, of either side, to code. A name that two codes have means the lower one."""
    found: dict[str, int] = {}
    for code, known in table().items():
        for name in (known.name, known.engine_name):
            if name is not None:
                found.setdefault(name, code)
    return found


def name_of(code: int) -> str:
    """The field's name of a code; empty when it has none."""
    known = table().get(code)
    return "" if known is None else known.name or known.engine_name or ""


@functools.cache
def all_codes() -> dict[type[AgentError], int]:
    codes: dict[type[AgentError], int] = {}
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        codes.update(importlib.import_module(module.name).CODES)
    return codes


def code_of(kind: type[AgentError]) -> int:
    """The wire code of an error class: its own, or that of its nearest ancestor; `GENERAL` when it has none."""
    return own_code(kind) or GENERAL


def code_for(error: AgentError, verb: str) -> int:
    """The code of a failure of ``verb``: the error's own, or the verb's default."""
    return own_code(type(error)) or default_codes.of_error(verb)


def own_code(kind: type[AgentError]) -> int | None:
    codes = all_codes()
    return next((codes[cls] for cls in kind.__mro__ if cls in codes), None)
