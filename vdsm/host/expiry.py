# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the host's certificates last: a metric for each, and an event a day once it gets late.

The files are looked at by a command of their own (`vdsm.certificates`): reading dates needs a library that the
agent would carry for nothing between two looks. It runs at start, when a file changed, and every six hours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from typing import Any

import msgspec

from vdsm.certificates import places
from vdsm.common import commands, metrics
from vdsm.common.errors import AgentError
from vdsm.common.events import Events

log = logging.getLogger("vdsm.host.expiry")

CHECK_S = 60.0
EVERY_S = 6 * 3600.0
TOLD_EVERY_S = 24 * 3600.0
SOON_DAYS = 30
COMMAND_S = 60.0

_DAYS = metrics.gauge("vdsm_certificate_days_left", "Days until a certificate expires", ("certificate",))


class Expiry:
    def __init__(self, pki: str, events: Events) -> None:
        self._pki = pki
        self._events = events
        self._seen: list[tuple[str, int]] = []
        self._looked_at = -EVERY_S
        self._told: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="certificates' expiry")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except (AgentError, msgspec.DecodeError) as e:
                log.warning("certificates below %s could not be looked at: %s", self._pki, e)
            await asyncio.sleep(CHECK_S)

    async def look(self) -> None:
        """Update metrics and tell, if there is a reason to look."""
        now = time.monotonic()
        changes = _changes(self._pki)
        if changes == self._seen and now - self._looked_at < EVERY_S:
            return
        self._looked_at, self._seen = now, changes
        if not changes:
            return
        done = await commands.run([sys.executable, "-m", "vdsm.certificates", self._pki], timeout_s=COMMAND_S)
        for report in msgspec.json.decode(done.out, type=list[dict[str, Any]]):
            self._tell(report, now)

    def _tell(self, report: dict[str, Any], now: float) -> None:
        name, days = report["name"], report["days_left"]
        if days is None:
            return
        _DAYS.labels(name).set(days)
        if days >= SOON_DAYS:
            self._told.pop(name, None)
            return
        if now - self._told.get(name, -TOLD_EVERY_S) < TOLD_EVERY_S:
            return
        self._told[name] = now
        log.warning(
            "certificate %s expires at %s, %d days left: vdsm cert renew", report["file"], report["expires"], days
        )
        told = {"certificate": report["file"], "expires": report["expires"], "days_left": days}
        self._events.publish("host", "certificate", name, told)


def _changes(pki: str) -> list[tuple[str, int]]:
    """Local files: no waiting worth a thread."""
    found = []
    for place in places.known(pki):
        with contextlib.suppress(OSError):
            found.append((place.certificate, os.stat(place.certificate).st_mtime_ns))
    return found
