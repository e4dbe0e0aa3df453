# SPDX-License-Identifier: GPL-2.0-or-later
"""The death of a process at a crash point, as far as storage sees it: nothing of it runs after that."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest
from memory_faults import Died

from vdsm.common.crashpoints import CrashPoint


class Death:
    """``at``: the crash point at which whoever reaches it dies."""

    def __init__(self) -> None:
        self.at = ""

    def reach(self, point: CrashPoint) -> None:
        if point.name == self.at:
            self.at = ""
            raise Died


async def dies(work: Awaitable[object]) -> None:
    with pytest.raises(Died):
        await work
