# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of a flow went: one log line at its end, and the same figures as metrics.

>>> with Clock("VM.create") as clock:
...     with clock.step("prepare"):
...         ...
VM.create 0.512 s: prepare 0.101, hooks 0.040, libvirt 0.370
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from vdsm.common import metrics

log = logging.getLogger("vdsm.clock")


# the field's clock does not begin at 0: an engine would take us for older than the VDSM that this host had before
BASE_MS = (1 << 31) - 1


def event_ms() -> int:
    """The clock of ``notify_time`` and ``statusTime`` (wire.md 4.2): milliseconds, never back till a boot.

    Engines compare what it says with what the VM's last host, which may be a VDSM host, said.
    """
    return BASE_MS + time.monotonic_ns() // 1_000_000


class Clock:
    """Times the steps of one flow. Steps of one name add up; steps may overlap."""

    def __init__(self, flow: str, about: str = "") -> None:
        self.flow = flow
        self.about = about
        self.steps: dict[str, float] = {}
        self.total_s = 0.0
        self._started = time.monotonic()

    def __enter__(self) -> Clock:
        self._started = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.total_s = time.monotonic() - self._started
        metrics.observe_flow(self.flow, "failed" if error else "done", self.total_s)
        steps = ", ".join(f"{name} {seconds:.3f}" for name, seconds in self.steps.items())
        log.info(
            "%s%s %.3f s%s%s",
            self.flow,
            f" {self.about}" if self.about else "",
            self.total_s,
            f": {steps}" if steps else "",
            " (failed)" if error else "",
        )

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.steps[name] = self.steps.get(name, 0.0) + time.monotonic() - started
