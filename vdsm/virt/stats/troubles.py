# SPDX-License-Identifier: GPL-2.0-or-later
"""Troubles that come again with every sample, in the log once each.

A trouble is what it is about and the kind of its error. It is told again after it was over.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.virt.stats")


class Troubles:
    def __init__(self) -> None:
        self._told: dict[str, set[type[BaseException]]] = {}

    def tell(self, about: str, text: str, error: BaseException) -> None:
        """A defect is told with its traceback."""
        told = self._told.setdefault(about, set())
        if type(error) in told:
            return
        told.add(type(error))
        defect = None if isinstance(error, AgentError) else error
        log.warning("%s: %s", text, error or type(error).__name__, exc_info=defect)

    def over(self, about: str) -> bool:
        """True when there was one."""
        return self._told.pop(about, None) is not None

    def keep_only(self, about: Collection[str]) -> None:
        for gone in self._told.keys() - set(about):
            del self._told[gone]
