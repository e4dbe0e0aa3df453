# SPDX-License-Identifier: GPL-2.0-or-later
"""What a caller can make happen, it can make happen a million times: no caller fills a log.

The first of a kind is one log line; those that follow are counted, and told by one line a second while they last.
There is room for `MOST_KINDS` at a time: what comes beyond them counts as one kind of its own, so that neither a
thousand addresses nor a thousand texts help.

    00.0  the first: its line
    00.1 - 00.9  999 more
    01.0  "999 more: ..."
    02.0  nothing came since: the kind is forgotten
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable

QUIET_S = 1.0
MOST_KINDS = 256

_OTHERS = object()


class Repeats:
    """Told in the loop only: the lines that count are timers of it."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._more: dict[object, int] = {}

    def tell(self, kind: Hashable, text: str) -> None:
        """``kind`` says what is the same thing again, whatever its ``text``."""
        key: object = kind
        if key not in self._more and len(self._more) >= MOST_KINDS:
            key, text = _OTHERS, "of other kinds, too many to tell each"
        if key in self._more:
            self._more[key] += 1
            return
        self._log.warning("%s", text)
        self._wait(key, text)

    def _wait(self, key: object, text: str) -> None:
        self._more[key] = 0
        asyncio.get_running_loop().call_later(QUIET_S, self._sum_up, key, text)

    def _sum_up(self, key: object, text: str) -> None:
        more = self._more.pop(key)
        if more:
            self._log.warning("%d more like: %s", more, text)
            self._wait(key, text)
