# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain needs before its pool uses it: data the pool's version, exports the folders of a master.

A domain that says Master and is not its pool's is what a move of the master left that was cut off
(`storage.spm.master_move`): it is regular again first. Whoever becomes SPM looks at all active domains.

The pool's version is its master's. A pool is upgraded master first; its other domains follow, each alone on its locks,
and whenever one that was away is there again. One that fails stays as it is, whole, and is told: nobody but who asked
for that domain hears of it as an error.

Timeline of giving the role up: what waits for its locks is dropped, what is being converted is waited for: each of its
requests has a deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from storage import locks
from storage.domain import Domain
from storage.domains import Domains
from storage.locks import LockTable, Mode
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.values import DomainClass, DomainRole
from storage.spm.errors import UpgradeRunning
from storage.tasks.files import empty
from vdsm.common.clocks import Clock
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.storage.spm")


class Led(Protocol):
    """The pool, as the role has it at this moment."""

    @property
    def pool_id(self) -> str: ...
    @property
    def master_id(self) -> str: ...


class Activations:
    def __init__(self, domains: Domains, held: LockTable, led: Led) -> None:
        self._domains = domains
        self._led = led
        self._locks = held
        self._upgrading: list[str] = []
        """Domains that are found to be older, and the master of an upgrade."""
        self._waiting: set[asyncio.Task[None]] = set()
        self._converting: set[asyncio.Task[bool]] = set()

    async def prepare(self, domain_id: str, version: int) -> None:
        """Raises `LockTimeout`, and what converting it or the storage refuses."""
        domain = await self._domains.get(domain_id)
        if self._is_leftover(await domain.read_metadata()):
            await self._put_back(domain)
        if domain.domain_class is DomainClass.BACKUP:
            async with domain.master_files():  # its folders are made
                pass
        elif domain.domain_class is DomainClass.DATA and domain.version < version:
            await self.convert(domain, version)

    def _is_leftover(self, metadata: DomainMetadata) -> bool:
        ours = metadata.domain_id != self._led.master_id and self._led.pool_id in metadata.pools
        return metadata.role is DomainRole.MASTER and ours

    async def _put_back(self, domain: Domain) -> None:
        """One that is becoming the master at this moment is held alone until it is."""
        async with self._locks.hold([locks.domain(domain.domain_id)], who="putting back a leftover master"):
            await domain.change_metadata(
                lambda metadata: {"ROLE": DomainRole.REGULAR.value} if self._is_leftover(metadata) else {}
            )
            if domain.domain_id != self._led.master_id:
                async with domain.master_files() as folders:
                    await empty(folders.tasks)

    async def convert(self, domain: Domain, version: int) -> None:
        """Alone on the domain. Seen through, whoever is cancelled."""
        alone = locks.domain(domain.domain_id, Mode.EXCLUSIVE)
        async with (
            self._counted(domain.domain_id),
            self._locks.hold([alone], who=f"converting it to version {version}"),
        ):
            conversion = asyncio.ensure_future(_convert(domain, version))
            self._converting.add(conversion)
            conversion.add_done_callback(self._converting.discard)
            try:
                await asyncio.shield(conversion)
            except asyncio.CancelledError:
                await asyncio.wait([conversion])
                if error := conversion.exception():  # nobody else hears of it
                    log.error("domain %s was not converted: %s", domain.domain_id, error)
                raise

    async def upgrade(self, pool_id: str, master: Domain, version: int, others: Iterable[str]) -> None:
        """The master is converted when this returns, the others after it. Raises `UpgradeRunning`.

        That others are only looked at, as after the start of the role, is in nobody's way.
        """
        if self._upgrading:
            raise UpgradeRunning(pool_id)
        async with self._counted(master.domain_id):
            await master.read_metadata()
            if master.version != version:
                await self.convert(master, version)
        self.begin(others, version)

    def begin(self, domain_ids: Iterable[str], version: int) -> None:
        """Prepare these beside all else."""
        for domain_id in domain_ids:
            task = asyncio.get_running_loop().create_task(self._quietly(domain_id, version))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def stop(self) -> None:
        waiting = list(self._waiting)
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)
        if self._converting:
            await asyncio.wait(set(self._converting))

    @asynccontextmanager
    async def _counted(self, domain_id: str) -> AsyncIterator[None]:
        self._upgrading.append(domain_id)
        try:
            yield
        finally:
            self._upgrading.remove(domain_id)

    async def _quietly(self, domain_id: str, version: int) -> None:
        try:
            await self.prepare(domain_id, version)
        except AgentError as e:  # it stays as it is until it is activated, or there again
            log.error("domain %s was not brought to what its pool needs: %s", domain_id, e)


async def _convert(domain: Domain, version: int) -> bool:
    before = domain.version
    with Clock("domain conversion", domain.domain_id):
        converted = await domain.convert(version)
    if converted:
        log.warning("domain %s is of version %d now, it was %d", domain.domain_id, version, before)
    return converted
