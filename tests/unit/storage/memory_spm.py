# SPDX-License-Identifier: GPL-2.0-or-later
"""An SPM whose pool is one domain in memory: whole flows in milliseconds, with a death at any change of the storage."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from inside import NoAgent
from memory_domain import MemoryStorage
from memory_faults import Died, Faults
from memory_source import MemorySource
from spm_verbs import CODES, SpmVerbs

from storage.domain import Domain
from storage.domains import Domains
from storage.file.iopool import IoPools
from storage.halves import STEPS_BACK
from storage.in_use import InUse
from storage.leases.kept import Kept
from storage.lock_table import Locks
from storage.ondisk.domain_fields import master_fields
from storage.ondisk.values import DomainStatus
from storage.spm.own_lease import OwnLease
from storage.spm.serving import Server
from vdsm.common.ids import new_uuid


class MemoryPool:
    """What lies on the storage, and who uses images on the host."""

    def __init__(self, records: Path) -> None:
        self.pool_id = new_uuid()
        self.storage = MemoryStorage()
        self.in_use = InUse(str(records))
        fields = master_fields(
            pool_id=self.pool_id,
            pool_description="memory",
            domains={self.storage.domain_id: DomainStatus.ACTIVE},
            master_version=1,
        )
        self.storage.metadata = self.storage.metadata.with_fields(fields)

    def volumes(self) -> dict[str, dict[str, tuple[str, int]]]:
        """Images with the roles and capacities of their volumes, as they lie there."""
        found: dict[str, dict[str, tuple[str, int]]] = {}
        for image_id, entries in self.storage.stored.images.items():
            found[image_id] = {}
            for volume_id, entry in entries.items():
                metadata = entry.volume.metadata
                assert entry.visible and metadata is not None, f"{volume_id} is half a volume"
                found[image_id][volume_id] = (str(metadata.role), metadata.capacity)
        return found


class MemoryLease(OwnLease):
    """Of a process without writers: whoever asks has it."""

    async def take(self, domain: Domain, host_id: int, *, timeout_s: float) -> int:
        return await domain.leases.acquire(domain.sdm_lease, timeout_s=timeout_s)

    async def give_back(self) -> None:
        return


class MemorySpm(SpmVerbs):
    def __init__(self, pool: MemoryPool) -> None:
        self.pool = pool
        self.faults = Faults()
        self.domain = pool.storage.open(self.faults)
        self.agent = NoAgent(pool.in_use)
        domains = Domains(MemorySource(self.domain))
        lease = MemoryLease(domains, IoPools(), Kept(), "")
        server = Server(
            lambda: lease,
            domains,
            self.agent,
            Locks(),
            readers=STEPS_BACK,
            repository="/rhev/data-center",
            codes=CODES,
        )
        super().__init__(server, pool.pool_id, pool.storage.domain_id)

    async def stop(self) -> None:
        await self.server.stop()

    async def die(self) -> None:
        """Nothing of it does anything any more."""
        self.faults.dies_before = 0
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # nobody asks how its tasks ended
        ours = asyncio.all_tasks() - {asyncio.current_task()}
        for task in ours:
            task.cancel()
        for task in ours:
            with contextlib.suppress(asyncio.CancelledError, Died):
                await task
