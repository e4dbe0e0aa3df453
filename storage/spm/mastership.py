# SPDX-License-Identifier: GPL-2.0-or-later
"""What the SPM has of its pool's master: the lease, which is watched, and the folders that tasks are stored in.

While it is held, the lease is asked for every 2 I/O timeouts, without touching storage; when it is gone this process
kills itself, since somebody else may be writing already. The lock daemon does the same to it when the host cannot
renew. An answer that fails, whatever it is, is told and asked again; after the fourth in a row the lease counts as
gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import AsyncExitStack

from storage.domain import Domain
from storage.errors import LeaseError, LeaseHeld, LeaseNotFormatted
from storage.leases import Leases
from storage.spm.errors import SpmLeaseNotAcquired
from storage.spm.own_lease import OwnLease
from storage.tasks.files import MasterFolders
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.storage.spm")

ACQUIRE_S = 240.0
MAX_INQUIRE_FAILURES = 3


class Mastership:
    def __init__(self, domain: Domain, lease: OwnLease, leases: Leases) -> None:
        self.domain = domain
        self._lease = lease
        self._leases = leases
        self._opened = AsyncExitStack()
        self._watchdog: asyncio.Task[None] | None = None

    async def take(self, pool_id: str, host_id: int, *, watch_s: float) -> int:
        """The lease, asked for every ``watch_s`` from now on; its version. Raises `SpmLeaseNotAcquired`."""
        try:
            version = await self._lease.take(self.domain, host_id, timeout_s=ACQUIRE_S)
        except (LeaseHeld, LeaseNotFormatted, LeaseError) as e:
            raise SpmLeaseNotAcquired(pool_id, str(e)) from e
        self._watchdog = asyncio.get_running_loop().create_task(self._watch(watch_s))
        self._watchdog.add_done_callback(_end_unwatched)
        return version

    async def open(self) -> MasterFolders:
        """Usable until the mastership is given up."""
        return await self._opened.enter_async_context(self.domain.master_files())

    async def give_back(self) -> None:
        """With all that this process has: it ends afterwards."""
        await self._close()
        await self._lease.give_back()

    async def leave(self) -> None:
        """This master alone: the role goes on with another one."""
        await self._close()
        await self._lease.release()

    async def _close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        await self._opened.aclose()

    async def _watch(self, interval_s: float) -> None:
        lease = self.domain.sdm_lease
        failures = 0
        while True:
            await asyncio.sleep(interval_s)
            try:
                held = await self._leases.held(lease)
                failures = 0
            except AgentError as e:
                failures += 1
                log.error("it is not known who holds %s (%d in a row): %s", lease, failures, e)
            except Exception:  # a watch that ends watches nothing
                failures += 1
                log.exception("it is not known who holds %s (%d in a row)", lease, failures)
            if failures:
                held = failures <= MAX_INQUIRE_FAILURES
            if not held:
                log.critical("the SPM lease %s is lost: this process ends now", lease)
                end_now()


def end_now() -> None:
    """Kill this process and its children: somebody else may be writing."""
    os.killpg(0, signal.SIGKILL)


def _end_unwatched(watchdog: asyncio.Task[None]) -> None:
    if not watchdog.cancelled():
        log.critical("the watch on the SPM lease ended, so this process does: %r", watchdog.exception())
        end_now()
