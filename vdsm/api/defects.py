# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors that nobody wrote for people: a number for the caller, the place of it in the log.

One that comes again and again is written once in `AGAIN_S` and has the same number for as long as it is remembered: who
finds a defect can't fill the log with it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

log = logging.getLogger("vdsm.api")

AGAIN_S = 60.0
MOST_KNOWN = 256


@dataclass
class _Seen:
    incident: str
    told: float
    more: int = 0


class Defects:
    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str, str], _Seen] = OrderedDict()

    def report(self, error: BaseException, verb: str) -> str:
        """The incident's number."""
        kind = (verb, type(error).__name__, _place(error))
        now = time.monotonic()
        seen = self._seen.get(kind)
        if seen is not None and now - seen.told < AGAIN_S:
            seen.more += 1
            return seen.incident
        if seen is None:
            seen = self._seen[kind] = _Seen(secrets.token_hex(4), now)
            if len(self._seen) > MOST_KNOWN:
                self._seen.popitem(last=False)
        again = f", {seen.more} times more since it was told last" if seen.more else ""
        log.error("%s failed by a defect, incident %s%s", verb, seen.incident, again, exc_info=error)
        seen.told, seen.more = now, 0
        return seen.incident


def _place(error: BaseException) -> str:
    """Where it was raised; the text of an error is the caller's to vary, and says nothing."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
