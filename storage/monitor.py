# SPDX-License-Identifier: GPL-2.0-or-later
"""Health of each domain of the pool, two tasks per domain: a dead domain never delays another.

- One reads the domain's metadata directly and asks for the free space, every 10 s. A check that runs for more than
  4 s makes the domain bad (no answer) and is waited for, never doubled: so whatever happens to storage is told
  within 15 s. The first one also opens the domain, and has 10 s.
- One sees to the host id, once the domain was opened: it begins to join the lockspace and looks at how that goes.
  What it meets (another host with our id, a lock daemon that does not answer) is told as its own trouble: the
  domain stays valid, since its storage is.

What is known is kept in memory, so asking for it never touches storage. Engines read it every 15 s
and worry when the last check is 30 s old. Neither task ends before `stop`, whatever it meets.
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
from storage.health import by_cause, full, not_writable
from storage.leases import Leases
from storage.leases.joining import Joining
from vdsm.common import masking, metrics
from vdsm.common.errors import AgentError, RemoteError

log = logging.getLogger("vdsm.storage.monitor")

INTERVAL_S = 10.0
# of the interval; the engine warns of storage that takes 5 s
LATE = 0.4
LEAVE_S = 30.0
# while the host id is being acquired: the engine waits for it
JOINING_S = 1.0

_SURPRISES = metrics.counter("vdsm_storage_monitor_errors", "Unexpected errors of a domain's monitor", ("part",))
_TROUBLES = metrics.counter("vdsm_storage_domain_troubles", "Times a domain became bad, by part", ("part",))

Opener = Callable[[str], Awaitable[tuple[Domain, Leases]]]
Changed = Callable[[str, bool], None]
Leave = Callable[[str], Awaitable[None]]
"""Leaves what is joined of a domain, without the domain."""


@dataclass(frozen=True)
class DomainHealth:
    domain_id: str
    error: BaseException | None = None
    """Of the storage."""
    host_id_error: BaseException | None = None
    """Why the host id is not held, when that is known; the storage may be well."""
    checked_at: float = 0.0
    """Monotonic seconds of the end of the last check; of the monitor's start before the first."""
    changed_at: float = 0.0
    """Monotonic seconds since when it is valid, or is not; of the monitor's start before the first check."""
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

    @property
    def since_s(self) -> float:
        return time.monotonic() - self.changed_at

    @property
    def reason(self) -> str:
        """What a person should know; empty when all is well."""
        return str(self.error or self.host_id_error or full(self.domain_id, self.space))


class DomainMonitor:
    """Watches one domain with one host id until `stop`."""

    def __init__(
        self,
        domain_id: str,
        host_id: int,
        opener: Opener,
        changed: Changed,
        leave: Leave,
        interval_s: float,
        after: asyncio.Task[None] | None = None,
    ) -> None:
        """``after``: an earlier one of the domain that leaves the lockspace still; nothing is joined before its end."""
        self.domain_id = domain_id
        self.host_id = host_id
        now = time.monotonic()
        self.health = DomainHealth(domain_id, checked_at=now, changed_at=now)
        self._open = opener
        self._changed = changed
        self._leave_unopened = leave
        self._interval_s = interval_s
        self._after = after
        self._opened: tuple[Domain, Leases] | None = None
        self._joining: Joining | None = None  # kept when the domain is closed: what was joined must be left
        self._known = asyncio.Event()
        self._nudge = asyncio.Event()  # the storage is well again: joining need not wait for its turn
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._watch_storage(), name=f"monitor {domain_id}", context=masking.outside()),
            loop.create_task(self._watch_host_id(), name=f"host id {domain_id}", context=masking.outside()),
        ]

    def abandon(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        """Stop watching and leave the lockspace, unless leases in it are in use."""
        self.abandon()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._joining is None:  # never opened here; who watched it before may have joined
            await self._leave_unopened(self.domain_id)
            return
        leases, space = self._joining.leases, self._joining.space
        try:
            # asked anew: others may have joined, or the joining ended, since the last look
            async with asyncio.timeout(LEAVE_S):
                if await leases.joined(space, self.host_id) is not False:
                    await leases.leave(space, self.host_id)
        except (AgentError, TimeoutError) as e:
            log.warning("domain %s: host id %d stays joined: %s", self.domain_id, self.host_id, e or "no answer")

    # Storage

    async def _watch_storage(self) -> None:
        while True:
            turn = time.monotonic()
            check = asyncio.ensure_future(self._check())
            try:
                await self._supervise(check)
            finally:
                if not check.done():
                    check.cancel()
            await asyncio.sleep(max(0.0, self._interval_s - (time.monotonic() - turn)))

    async def _supervise(self, check: asyncio.Future[DomainHealth]) -> None:
        started = time.monotonic()
        patience_s = self._interval_s * (LATE if self.health.checked else 1)
        while not check.done():
            await asyncio.wait([check], timeout=patience_s)
            if not check.done():
                late = StorageNotResponding(self.domain_id, "check", time.monotonic() - started)
                self._become(replace(self.health, error=late, checked=True))
        found = check.result()
        self._become(replace(found, acquired=self.health.acquired, host_id_error=self.health.host_id_error))

    async def _check(self) -> DomainHealth:
        health = self.health
        try:
            if self._opened is None:
                self._opened = await self._open(self.domain_id)
            domain, leases = self._opened
            if self._joining is None:
                self._joining = Joining(leases, domain, self.host_id)
            delay_s = await domain.probe()
            space = await domain.space()
            refused = not_writable(self.domain_id, domain.domain_class, space)
            health = replace(health, error=refused, delay_s=delay_s, version=int(domain.version), space=space)
            self._known.set()
        except AgentError as e:
            self._opened = None
            health = replace(health, error=by_cause(self.domain_id, e))
        except Exception as e:  # noqa: BLE001 - one domain's surprise must end neither its monitor nor another's
            self._surprise("storage", e, self.health.error)
            health = replace(health, error=RemoteError(type(e).__name__, f"{type(e).__name__}: {e}"))
        return replace(health, checked=True, checked_at=time.monotonic())

    def _become(self, health: DomainHealth) -> None:
        before, self.health = self.health, replace(health, changed_at=self.health.changed_at)
        if before.checked and before.valid == health.valid:
            return
        self.health = replace(health, changed_at=time.monotonic())
        if health.valid:
            self._nudge.set()
            log.info("domain %s is valid (read in %.3f s)", self.domain_id, health.delay_s)
        else:
            _TROUBLES.labels("storage").inc()
            log.error("domain %s is invalid: %s", self.domain_id, health.error)
        try:
            self._changed(self.domain_id, health.valid)
        except Exception as e:  # noqa: BLE001 - who listens must not end the watching
            self._surprise("listener", e, None)

    # The host id

    async def _watch_host_id(self) -> None:
        await self._known.wait()
        if self._after is not None:
            await asyncio.wait([self._after])
        while True:
            turn = time.monotonic()
            acquired, error = await self._see_to_host_id()
            self._tell_host_id(acquired, error)
            under_way = not acquired and error is None and self.health.valid
            interval_s = min(JOINING_S, self._interval_s) if under_way else self._interval_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, interval_s - (time.monotonic() - turn))):
                    await self._nudge.wait()
            self._nudge.clear()

    async def _see_to_host_id(self) -> tuple[bool, BaseException | None]:
        """Whether it is held, and what is wrong. While the storage is bad nothing is begun."""
        assert self._joining is not None
        joining = self._joining
        try:
            if self.health.valid:
                return await joining.step(), None
            held = await joining.leases.joined(joining.space, self.host_id) is True
            return held, None if held else self.health.host_id_error
        except AgentError as e:
            return False, e
        except Exception as e:  # noqa: BLE001 - as above
            self._surprise("host id", e, self.health.host_id_error)
            return False, RemoteError(type(e).__name__, f"{type(e).__name__}: {e}")

    def _tell_host_id(self, acquired: bool, error: BaseException | None) -> None:
        before = self.health
        if not acquired and error is None and self.health.valid and not before.acquired:
            error = before.host_id_error  # tried again: it stays true until it is acquired
        self.health = replace(before, acquired=acquired, host_id_error=error)
        if acquired and not before.acquired:
            log.info("domain %s: host id %d is held", self.domain_id, self.host_id)
        elif error is not None and str(error) != str(before.host_id_error or ""):
            _TROUBLES.labels("host id").inc()
            log.error("domain %s: %s", self.domain_id, error)
        elif before.acquired and not acquired:
            _TROUBLES.labels("host id").inc()
            log.error("domain %s: host id %d is held no more", self.domain_id, self.host_id)

    def _surprise(self, part: str, error: Exception, before: BaseException | None) -> None:
        _SURPRISES.labels(part).inc()
        if before is None or str(before) != f"{type(error).__name__}: {error}":  # told once, counted each time
            log.error("monitor of domain %s, %s", self.domain_id, part, exc_info=error)


class Monitors:
    """The monitors of the connected pool's active domains."""

    def __init__(self, opener: Opener, changed: Changed, leave: Leave, interval_s: float = INTERVAL_S) -> None:
        self._open = opener
        self._changed = changed
        self._leave = leave
        self._interval_s = interval_s
        self._monitors: dict[str, DomainMonitor] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}

    def start(self, domain_id: str, host_id: int) -> DomainMonitor:
        if domain_id not in self._monitors:
            self._monitors[domain_id] = DomainMonitor(
                domain_id,
                host_id,
                self._open,
                self._changed,
                self._leave,
                self._interval_s,
                self._leaving.get(domain_id),
            )
        return self._monitors[domain_id]

    def begin_to_stop(self, domain_id: str) -> asyncio.Task[None] | None:
        """The domain is watched no more from now on; what is awaited leaves its lockspace, `LEAVE_S` at most."""
        monitor = self._monitors.pop(domain_id, None)
        if monitor is None:
            return None
        leaving = asyncio.get_running_loop().create_task(
            monitor.stop(), name=f"leaving {domain_id}", context=masking.outside()
        )
        self._leaving[domain_id] = leaving
        leaving.add_done_callback(lambda _: self._left(domain_id, leaving))
        return leaving

    async def stop(self, domain_id: str) -> None:
        if (leaving := self.begin_to_stop(domain_id)) is not None:
            await asyncio.shield(leaving)

    def _left(self, domain_id: str, leaving: asyncio.Task[None]) -> None:
        if self._leaving.get(domain_id) is leaving:
            del self._leaving[domain_id]

    async def stop_all(self) -> None:
        monitors, self._monitors = list(self._monitors.values()), {}
        await asyncio.gather(*(monitor.stop() for monitor in monitors))

    def abandon_all(self) -> None:
        """Stop watching without leaving any lockspace: the agent ends, running VMs' leases go on."""
        for monitor in self._monitors.values():
            monitor.abandon()
        self._monitors.clear()

    def health(self) -> dict[str, DomainHealth]:
        return {domain_id: monitor.health for domain_id, monitor in self._monitors.items()}
