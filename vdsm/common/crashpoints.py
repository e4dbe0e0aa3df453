# SPDX-License-Identifier: GPL-2.0-or-later
"""Named places where a test lets the process really die.

Each boundary between two steps of a multi-step change is declared at module level::

    PAYLOAD_MADE = crash_point("volume.create.payload", "the payload exists, its metadata does not")

and reached in the code with ``PAYLOAD_MADE.reach()``. That does nothing unless the process
was started with ``VDSM_CRASH_AT=<name>``: then it kills itself with SIGKILL, as a power cut
would. Tests are parametrised over `REGISTRY`, so there is no point without a test.

``VDSM_CRASH_AT=<name>:<file>`` dies only while ``<file>`` does not exist, and makes it first:
the restarted process gets past the point.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

REGISTRY: dict[str, CrashPoint] = {}

_ENVIRONMENT = "VDSM_CRASH_AT"


@dataclass(frozen=True)
class CrashPoint:
    name: str
    meaning: str

    def reach(self) -> None:
        wanted, _, once = os.environ.get(_ENVIRONMENT, "").partition(":")
        if wanted != self.name:
            return
        if once:
            try:
                os.close(os.open(once, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:
                return
        os.kill(os.getpid(), signal.SIGKILL)


def crash_point(name: str, meaning: str) -> CrashPoint:
    """Declare a crash point. Names are unique: ``<area>.<flow>.<step>``."""
    if name in REGISTRY:
        raise ValueError(f"crash point {name} is declared twice")
    point = REGISTRY[name] = CrashPoint(name, meaning)
    return point
