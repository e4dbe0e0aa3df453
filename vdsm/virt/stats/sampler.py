# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes a sample of all VMs every 15 s, and soon after a VM began to run.

One bulk call at a time. Without VMs nothing is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import VirtError
from vdsm.virt.hypervisor import Hypervisor
from vdsm.virt.stats.samples import Samples

log = logging.getLogger("vdsm.virt.stats")

PERIOD_S = 15.0
_SOONEST_S = 1.0


class Sampler:
    def __init__(
        self, hypervisor: Hypervisor, samples: Samples, running: Callable[[], set[str]], *, period_s: float = PERIOD_S
    ) -> None:
        """``running`` tells which VMs of ours run now."""
        self._hypervisor = hypervisor
        self._samples = samples
        self._running = running
        self._period_s = period_s
        self._soon = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="vm statistics")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def soon(self) -> None:
        """A fresh sample is wanted; many wishes within a second are one sample."""
        self._soon.set()

    async def _run(self) -> None:
        while True:
            if self._running():
                try:
                    stats = await self._hypervisor.statistics()
                    self._samples.put(stats, self._running())
                except (VirtError, DeadlineExceeded) as e:
                    log.warning("no statistics: %s", e)
                except Exception:  # one odd answer must not end the statistics of all
                    log.exception("no statistics")
            try:
                async with asyncio.timeout(self._period_s):
                    await self._soon.wait()
                await asyncio.sleep(min(_SOONEST_S, self._period_s))  # gather wishes
            except TimeoutError:
                pass
            self._soon.clear()
