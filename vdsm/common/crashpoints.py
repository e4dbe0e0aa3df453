# SPDX-License-Identifier: GPL-2.0-or-later
"""Named places where a test lets the process really die.

Each boundary between two steps of a multi-step change is declared at module level::

    PAYLOAD_MADE = crash_point("volume.create.payload", "the payload exists, its metadata does not")

and reached in the code with ``PAYLOAD_MADE.reach()``. That does nothing unless the process
was started with ``VDSM_CRASH_AT=<name>``: then it kills itself with SIGKILL, as a power cut
would. Tests are parametrised over `REGISTRY`, so there is no point without a test.

``VDSM_CRASH_AT=<name>:<file>`` dies only while ``<file>`` does not exist, and makes it first:
the restarted process gets past the point. ``VDSM_CRASH_AT=@<file>`` reads the value from that file
at every point, so that a running process can be told.

``VDSM_CRASH_POWER=<file>`` (a test machine's /proc/sysrq-trigger) makes it a power cut of the whole machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass

REGISTRY: dict[str, CrashPoint] = {}

_ENVIRONMENT = "VDSM_CRASH_AT"
_POWER = "VDSM_CRASH_POWER"
# to the kernel: reboot now, without writing anything back
_REBOOT = b"b"


@dataclass(frozen=True)
class CrashPoint:
    name: str
    meaning: str

    def reach(self) -> None:
        wanted, _, once = _asked().partition(":")
        if wanted != self.name:
            return
        if once:
            try:
                os.close(os.open(once, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:
                return
        if power := os.environ.get(_POWER):
            with contextlib.suppress(OSError), open(power, "wb", buffering=0) as trigger:
                trigger.write(_REBOOT)
        os.kill(os.getpid(), signal.SIGKILL)


def _asked() -> str:
    asked = os.environ.get(_ENVIRONMENT, "")
    if not asked.startswith("@"):
        return asked
    try:
        with open(asked[1:], encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def crash_point(name: str, meaning: str) -> CrashPoint:
    """Declare a crash point. Names are unique: ``<area>.<flow>.<step>``."""
    if name in REGISTRY:
        raise ValueError(f"crash point {name} is declared twice")
    point = REGISTRY[name] = CrashPoint(name, meaning)
    return point
