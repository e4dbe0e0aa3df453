# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM role in its own process: from the lease to the open gate, and back.

Start: host id joined (the agent's monitor has done that, else up to 180 s) -> SDM lease acquired -> the master
converted, when the engine wants a later version -> master's folders -> stored tasks loaded, what lies there and
is no task is told and left -> unfinished ones undone -> garbage of the pool's domains removed -> gate open ->
the other domains brought to the master's version, beside all else. What a dead domain keeps from being undone
or removed within 10 s goes on beside the open gate, under the locks that it asked for before. Anything before
the open gate that fails ends the process: the lock daemon frees the lease of a dead process at once.

While the role is on, the lease is watched (`storage.spm.mastership`); the master may move (`storage.spm.master_move`).

Stop: gate closed -> running verbs and tasks interrupted (they stay stored, the next SPM undoes them) -> I/O helpers
ended -> lease released, unless a writer hangs, which keeps it -> process ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from storage import conversion, locks
from storage.domain import Claims, Domain
from storage.domains import Domains
from storage.locks import LockTable
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.values import DomainRole
from storage.spm.activations import Activations
from storage.spm.agent import Agent
from storage.spm.errors import DomainVersionTooNew, NotSpm, WrongMaster
from storage.spm.mastership import Mastership
from storage.spm.own_lease import OwnLease
from storage.spm.recoveries import Recoveries
from storage.tasks.files import MasterFolders
from storage.tasks.runner import CodeOf, Tasks
from storage.tasks.store import TaskStore
from vdsm.common.clocks import Clock
from vdsm.common.crashpoints import crash_point
from vdsm.common.deadlines import deadline
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.storage.spm")

GARBAGE_S = 60.0
PATIENCE_S = 10.0
LEFT_OVERS = "removing left-overs of volumes"

START_ACQUIRED = crash_point("spm.start.acquired", "the lease is ours, nothing was read yet")
START_LOADED = crash_point("spm.start.loaded", "stored tasks are loaded, none is undone")
START_RECOVERED = crash_point("spm.start.recovered", "unfinished tasks are undone, the gate is closed")
START_OPEN = crash_point("spm.start.open", "the gate is open, the caller was not told")
STOP_CLOSED = crash_point("spm.stop.closed", "the gate is closed, tasks may still run")
STOP_INTERRUPTED = crash_point("spm.stop.interrupted", "no task runs, the lease is still ours")
STOP_RELEASED = crash_point("spm.stop.released", "the lease is released, the process still lives")


@dataclass(frozen=True)
class Wanted:
    """What the agent asks the role to start with."""

    pool_id: str
    host_id: int
    master_id: str
    domain_ids: tuple[str, ...]
    max_version: int | None
    watch_s: float


class Role:
    def __init__(
        self,
        new_lease: Callable[[], OwnLease],
        domains: Domains,
        agent: Agent,
        recoveries: Recoveries,
        held: LockTable,
        code_of: CodeOf,
    ) -> None:
        self._new_lease = new_lease
        self.domains = domains
        self._agent = agent
        self._locks = held
        self.activations = Activations(domains, held, self)
        self._late: set[asyncio.Task[object]] = set()
        self._recoveries = recoveries
        self._code_of = code_of
        self._wanted: Wanted | None = None
        self._tasks: Tasks | None = None
        self._open = False
        self._master: Mastership | None = None
        self._folders: MasterFolders | None = None

    @property
    def pool_id(self) -> str:
        return self._wanted.pool_id if self._wanted is not None else ""

    @property
    def master_id(self) -> str:
        """Also while the gate is closed; empty before the start."""
        return self._wanted.master_id if self._wanted is not None else ""

    @property
    def wanted(self) -> Wanted:
        """What the role was started with. Raises `NotSpm` while the gate is closed."""
        if self._wanted is None or not self._open:
            raise NotSpm(self.pool_id)
        return self._wanted

    @property
    def tasks(self) -> Tasks:
        """The task store, for everything that changes the pool. Raises `NotSpm` while the gate is closed."""
        if self._tasks is None or not self._open:
            raise NotSpm(self.pool_id)
        return self._tasks

    def require_open(self) -> None:
        """Raises `NotSpm` while the gate is closed."""
        if not self._open:
            raise NotSpm(self.pool_id)

    def close_gate(self) -> None:
        self._open = False

    async def start(self, wanted: Wanted) -> int:
        """The lease's version. After an error this process must end."""
        self._wanted = wanted
        with Clock("SPM start", wanted.pool_id) as clock:
            with clock.step("open"):
                master = self._mastership_of(await self._open_master(wanted))
            with clock.step("lease"):
                version = await master.take(wanted.pool_id, wanted.host_id, watch_s=wanted.watch_s)
            self._master = master
            # another host's SPM may have moved the role while this one waited for the lease
            await _check_master(master.domain, wanted)
            START_ACQUIRED.reach()
            if wanted.max_version is not None and master.domain.version < wanted.max_version:
                with clock.step("convert"):
                    await self.activations.convert(master.domain, wanted.max_version)
            with clock.step("load"):
                self._folders = await master.open()
                self._tasks = Tasks(TaskStore(self._folders.tasks), self._recoveries, self._code_of, self._locks)
                for odd in await self._tasks.load():
                    log.warning("%s: left alone", odd)
                    await self._agent.tell_odd_task(f"{odd}: left alone")
            START_LOADED.reach()
            with clock.step("recover"):
                await self._for_a_while([self._tasks.recover_loaded()])
            with clock.step("garbage"):
                claimed = self._recoveries.claims([task.recoveries for task in self._tasks.all()])
                await self._for_a_while(
                    [self._collect_garbage(domain_id, claimed.get(domain_id, ())) for domain_id in wanted.domain_ids]
                )
            START_RECOVERED.reach()
            self._open = True
            others = [domain_id for domain_id in wanted.domain_ids if domain_id != wanted.master_id]
            self.activations.begin(others, int(master.domain.version))
            START_OPEN.reach()
        return version

    async def stop(self) -> None:
        """Give the role up. The process ends afterwards, whatever happened here."""
        if self._wanted is None:
            return
        with Clock("SPM stop", self._wanted.pool_id):
            self.close_gate()
            STOP_CLOSED.reach()
            await self.activations.stop()
            if self._tasks is not None:
                await self._tasks.stop_all()
            STOP_INTERRUPTED.reach()
            for late in self._late:
                late.cancel()
            await asyncio.gather(*self._late, return_exceptions=True)
            if self._master is not None:
                await self._master.give_back()
            STOP_RELEASED.reach()

    async def _open_master(self, wanted: Wanted) -> Domain:
        master = await self.domains.get(wanted.master_id)
        metadata = await _check_master(master, wanted)
        if wanted.max_version is not None and metadata.version > wanted.max_version:
            raise DomainVersionTooNew(wanted.master_id, int(metadata.version), wanted.max_version)
        if wanted.max_version is not None:  # refused while nothing is taken yet
            conversion.plan(wanted.master_id, metadata.domain_class, metadata.version, wanted.max_version)
        return master

    def mastership(self) -> tuple[Mastership, MasterFolders]:
        """What the role has of its master. Raises `NotSpm` while the gate is closed."""
        if self._master is None or self._folders is None or not self._open:
            raise NotSpm(self.pool_id)
        return self._master, self._folders

    async def take_mastership(self, domain_id: str) -> Mastership:
        """Of another domain, beside the one that the role has."""
        wanted = self.wanted
        master = self._mastership_of(await self.domains.get(domain_id))
        await master.take(wanted.pool_id, wanted.host_id, watch_s=wanted.watch_s)
        return master

    def adopt(self, master: Mastership, folders: MasterFolders) -> None:
        """The role goes on with this one; the caller gives the other one back."""
        self._wanted = replace(self.wanted, master_id=master.domain.domain_id)
        self._master, self._folders = master, folders

    def _mastership_of(self, domain: Domain) -> Mastership:
        return Mastership(domain, self._new_lease(), domain.leases)

    async def _for_a_while(self, works: list[Coroutine[Any, Any, object]]) -> None:
        """What is not done within `PATIENCE_S` goes on beside the open gate: a dead domain delays no other."""
        tasks = [asyncio.get_running_loop().create_task(work) for work in works]
        if tasks:
            done, late = await asyncio.wait(tasks, timeout=PATIENCE_S)
            self._late.update(late)
            for task in late:
                task.add_done_callback(_tell_late)
            for task in done:
                task.result()

    async def _collect_garbage(self, domain_id: str, claimed: Claims) -> None:
        """Alone on its domain: a volume that is being made looks just like garbage."""
        alone = locks.domain(domain_id, locks.Mode.EXCLUSIVE)
        try:
            async with (
                self._locks.hold([alone], who=LEFT_OVERS),
                deadline(f"garbage collection of domain {domain_id}", GARBAGE_S),
            ):
                domain = await self.domains.get(domain_id)
                garbage = await domain.volumes.collect_garbage(claimed)
            if garbage.removed or garbage.mended:
                log.warning("domain %s: removed %s, mended %s", domain_id, garbage.removed, garbage.mended)
            await self._purge_images(domain)
        except AgentError as e:  # a domain that is away keeps its garbage until the next start
            log.warning("domain %s: left-overs were not removed: %s", domain_id, e)

    async def _purge_images(self, domain: Domain) -> None:
        """However long it takes: only who deletes the same image again waits for it."""
        domain_id = domain.domain_id
        for removed in await domain.volumes.removed():
            needed = [locks.domain(domain_id), locks.image(domain_id, removed)]
            async with self._locks.hold(needed, who=f"removing what is left of image {removed}"):
                await domain.volumes.purge(removed)
            log.warning("domain %s: removed what was left of image %s", domain_id, removed)


async def _check_master(master: Domain, wanted: Wanted) -> DomainMetadata:
    """Raises `WrongMaster`."""
    metadata = await master.read_metadata()
    if metadata.role is not DomainRole.MASTER or wanted.pool_id not in metadata.pools:
        raise WrongMaster(wanted.pool_id, wanted.master_id, "its metadata says otherwise")
    return metadata


def _tell_late(task: asyncio.Task[object]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("what a domain kept from being undone or removed at the start: %s", task.exception())


def code_of(table: Mapping[str, int]) -> CodeOf:
    """Wire numbers by the kinds that errors have between processes; 200 is the field's 'some storage error'."""

    def number(error: BaseException) -> int:
        for cls in type(error).__mro__:
            found = table.get(f"{cls.__module__}:{cls.__qualname__}")
            if found is not None:
                return found
        return 200

    return number
