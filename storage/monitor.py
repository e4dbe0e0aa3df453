# SPDX-License-Identifier: GPL-2.0-or-later
"""Health of each domain of the pool, one task per domain: a dead domain never delays another.

A check reads the domain's metadata directly, asks for the free space and sees to the host id. It
starts every 10 s; one that is still running at the next turn makes the domain bad (no answer) and
is waited for, never doubled. The first check also opens the domain and begins to join its
lockspace; joining takes its time in the lock daemon and delays no check.

What is known is kept in memory, so asking for it never touches storage. Engines read it every 15 s
and worry when the last check is 30 s old.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from storage.domain import Domain, Space
from storage.errors import StorageNotResponding
from storage.leases import Leases
from vdsm.common.errors import AgentError, RemoteError

log = logging.getLogger("vdsm.storage.monitor")

INTERVAL_S = 10.0
LEAVE_S = 30.0
# while the host id is being acquired: the engine waits for it
JOINING_S = 1.0

Opener = Callable[[str], Awaitable[tuple[Domain, Leases]]]
Changed = Callable[[str, bool], None]


@dataclass(frozen=True)
class DomainHealth:
    domain_id: str
    error: BaseException | None = None
    checked_at: float = 0.0
    """Monotonic seconds of the end of the last check; of the monitor's start before the first."""
    delay_s: float = 0.0
    version: int = -1
    acquired: bool = False
    checked: bool = False
    space: Space | None = None

    @property
    def valid(self) -> bool:
        return self.checked and self.error is None

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.checked_at


class DomainMonitor:
    """Watches one domain with one host id until `stop`."""

    def __init__(
        self, domain_id: str, host_id: int, opener: Opener, changed: Changed, interval_s: float = INTERVAL_S
    ) -> None:
        self.domain_id = domain_id
        self.host_id = host_id
        self.health = DomainHealth(domain_id, checked_at=time.monotonic())
        self._open = opener
        self._changed = changed
        self._interval_s = interval_s
        self._first = asyncio.Event()
        self._opened: tuple[Domain, Leases] | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"monitor {domain_id}")

    async def first_check(self) -> None:
        await self._first.wait()

    async def stop(self) -> None:
        """Stop watching and leave the lockspace, unless leases in it are in use."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._opened is None:
            return
        domain, leases = self._opened
        try:
            # asked anew: others may have joined, or the joining ended, since the last check
            async with asyncio.timeout(LEAVE_S):
                if await leases.joined(domain.lockspace, self.host_id) is not False:
                    await leases.leave(domain.lockspace, self.host_id)
        except (AgentError, TimeoutError) as e:
            log.warning("domain %s: host id %d stays joined: %s", self.domain_id, self.host_id, e or "no answer")

    async def _run(self) -> None:
        while True:
            turn = time.monotonic()
            check = asyncio.ensure_future(self._check())
            try:
                await self._supervise(check)
            finally:
                if not check.done():
                    check.cancel()
            self._first.set()
            joining = self.health.valid and not self.health.acquired
            interval_s = min(JOINING_S, self._interval_s) if joining else self._interval_s
            await asyncio.sleep(max(0.0, interval_s - (time.monotonic() - turn)))

    async def _supervise(self, check: asyncio.Future[DomainHealth]) -> None:
        started = time.monotonic()
        while not check.done():
            await asyncio.wait([check], timeout=self._interval_s)
            if not check.done():
                late = StorageNotResponding(self.domain_id, "check", time.monotonic() - started)
                self._become(replace(self.health, error=late, checked=True))
                self._first.set()
        self._become(check.result())

    async def _check(self) -> DomainHealth:
        health = self.health
        try:
            if self._opened is None:
                self._opened = await self._open(self.domain_id)
            domain, leases = self._opened
            delay_s = await domain.probe()
            space = await domain.space()
            acquired = await self._see_to_host_id(domain, leases)
            health = replace(health, error=None, delay_s=delay_s, version=int(domain.version), space=space)
            health = replace(health, acquired=acquired)
        except AgentError as e:
            self._opened = None
            health = replace(health, error=e)
        except Exception as e:  # one domain's surprise must end neither its monitor nor another's
            log.exception("check of domain %s", self.domain_id)
            health = replace(health, error=RemoteError(type(e).__name__, f"{type(e).__name__}: {e}"))
        return replace(health, checked=True, checked_at=time.monotonic())

    async def _see_to_host_id(self, domain: Domain, leases: Leases) -> bool:
        joined = await leases.joined(domain.lockspace, self.host_id)
        if joined is False:
            await leases.start_join(domain.lockspace, self.host_id)
            joined = await leases.joined(domain.lockspace, self.host_id)
        return joined is True

    def _become(self, health: DomainHealth) -> None:
        before, self.health = self.health, health
        if before.checked and before.valid == health.valid:
            return
        if health.valid:
            log.info("domain %s is valid (read in %.3f s)", self.domain_id, health.delay_s)
        else:
            log.error("domain %s is invalid: %s", self.domain_id, health.error)
        self._changed(self.domain_id, health.valid)


class Monitors:
    """The monitors of the connected pool's active domains."""

    def __init__(self, opener: Opener, changed: Changed, interval_s: float = INTERVAL_S) -> None:
        self._open = opener
        self._changed = changed
        self._interval_s = interval_s
        self._monitors: dict[str, DomainMonitor] = {}

    def start(self, domain_id: str, host_id: int) -> DomainMonitor:
        if domain_id not in self._monitors:
            self._monitors[domain_id] = DomainMonitor(domain_id, host_id, self._open, self._changed, self._interval_s)
        return self._monitors[domain_id]

    async def stop(self, domain_id: str) -> None:
        monitor = self._monitors.pop(domain_id, None)
        if monitor is not None:
            await monitor.stop()

    async def stop_all(self) -> None:
        monitors, self._monitors = list(self._monitors.values()), {}
        await asyncio.gather(*(monitor.stop() for monitor in monitors))

    def abandon_all(self) -> None:
        """Stop watching without leaving any lockspace: the agent ends, running VMs' leases go on."""
        for monitor in self._monitors.values():
            monitor._task.cancel()
        self._monitors.clear()

    def health(self) -> dict[str, DomainHealth]:
        return {domain_id: monitor.health for domain_id, monitor in self._monitors.items()}
