# SPDX-License-Identifier: GPL-2.0-or-later
"""Numeric codes of the wire, one module per area: ``CODES = {VolumeExists: 212, ...}``.

A code counts for a class and its subclasses that have none of their own.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from vdsm.common.errors import AgentError

GENERAL = 100  # an error of ours that has no code


@functools.cache
def all_codes() -> dict[type[AgentError], int]:
    codes: dict[type[AgentError], int] = {}
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        codes.update(importlib.import_module(module.name).CODES)
    return codes


def code_of(kind: type[AgentError]) -> int:
    """The wire code of an error class: its own, or that of its nearest ancestor."""
    codes = all_codes()
    return next((codes[cls] for cls in kind.__mro__ if cls in codes), GENERAL)
