# SPDX-License-Identifier: GPL-2.0-or-later
"""A storage domain in memory: `storage.domain.Domain`, for flows that are to meet errors, delays and deaths.

`MemoryStorage` is what lies there. `MemoryStorage.open` is the domain as one process sees it; what one left, the next
finds. The task store's files lie there, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from memory_faults import Faults
from memory_leases import MemoryLeases
from memory_volumes import Entry, MemoryChains, MemoryVolumes, Stored, Volume

from storage import conversion
from storage.domain import Chains, ChangeFields, Domain, PeoplesFile, Space, VolumeStore
from storage.errors import IoFailed
from storage.leases import HostIdOwner, Lease, Leases, Lockspace
from storage.ondisk import domain_fields
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.values import DomainKind, FormatVersion
from storage.tasks.files import MasterFolders
from vdsm.common.ids import new_uuid

MIB = 1 << 20


@dataclass
class MemoryStorage:
    domain_id: str = field(default_factory=new_uuid)
    stored: Stored = field(default_factory=Stored)
    tasks: dict[str, dict[str, bytes]] = field(default_factory=dict)
    ovfs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    metadata_writes: int = 0
    gone: bool = False
    metadata: DomainMetadata = field(init=False)

    def __post_init__(self) -> None:
        self.metadata = domain_fields.new_file_domain(
            domain_id=self.domain_id,
            kind=DomainKind.LOCALFS,
            description="memory",
            remote_path="/memory",
            block_size=512,
            alignment=MIB,
            version=FormatVersion.V5,
        )

    def leave_payload(self, image_id: str, volume_id: str) -> None:
        """As a creation that died leaves one."""
        self.stored.images.setdefault(image_id, {})[volume_id] = Entry(Volume())

    def open(self, faults: Faults | None = None) -> MemoryDomain:
        return MemoryDomain(self, faults or Faults())


class MemoryDomain:
    def __init__(self, storage: MemoryStorage, faults: Faults) -> None:
        self.storage, self.faults = storage, faults
        self.domain_id = storage.domain_id
        self.kind = storage.metadata.kind
        self.domain_class = storage.metadata.domain_class
        self.leases: Leases = MemoryLeases()
        self.block_size, self.alignment = storage.metadata.block_size, storage.metadata.alignment
        self.folder = f"/memory/{self.domain_id}"
        self.place = self.folder
        self.lockspace = Lockspace(self.domain_id, f"{self.folder}/ids", self.alignment, self.block_size, 1)
        self.sdm_lease = Lease(self.domain_id, "SDM", f"{self.folder}/leases", MIB, self.alignment, self.block_size)
        self.volumes: VolumeStore = MemoryVolumes(self.domain_id, storage.stored, faults)
        self.chains: Chains = MemoryChains(self.domain_id, storage.stored, faults)
        self._changing = asyncio.Lock()

    @property
    def version(self) -> FormatVersion:
        return self.storage.metadata.version

    @property
    def seen(self) -> DomainMetadata | None:
        return self.storage.metadata

    @seen.setter
    def seen(self, _: DomainMetadata | None) -> None:
        """It is read each time."""

    async def host_id_owner(self, host_id: int) -> HostIdOwner | None:
        return None

    async def host_id_owners(self) -> Mapping[int, HostIdOwner]:
        return {}

    async def read_leader(self, lease: Lease) -> bytes:
        return bytes(self.block_size)

    async def read_metadata(self) -> DomainMetadata:
        await self.faults.read("read_metadata")
        return self.storage.metadata

    async def change_metadata(self, change: ChangeFields) -> DomainMetadata:
        async with self._changing:
            found = await self.read_metadata()
            changed = found.with_fields(change(found))
            if changed.fields != found.fields:
                await self.faults.change("change_metadata")
                self.storage.metadata = changed
                self.storage.metadata_writes += 1
            return changed

    async def convert(self, version: int) -> bool:
        """Its only version is the latest one."""
        return bool(conversion.plan(self.domain_id, self.domain_class, self.version, version))

    @contextlib.asynccontextmanager
    async def master_files(self) -> AsyncIterator[MasterFolders]:
        tasks, ovfs = (
            MemoryFiles(held, self.faults, f"{self.folder}/master/{name}")
            for name, held in (("tasks", self.storage.tasks), ("vms", self.storage.ovfs))
        )
        yield MasterFolders(tasks, ovfs)

    async def peoples_files(self) -> Mapping[str, PeoplesFile]:
        """It is a data domain."""
        return {}

    async def format(self) -> None:
        await self.faults.change("format")
        self.storage.gone = True
        self.storage.stored.images.clear()

    async def probe(self) -> float:
        await self.faults.read("probe")
        return 0.001

    async def space(self) -> Space:
        await self.faults.read("space")
        return Space(1 << 40, 1 << 39)

    async def close(self) -> None:
        return


class MemoryFiles:
    """`storage.tasks.files.Files`. ``folder`` is only a name here."""

    def __init__(self, tasks: dict[str, dict[str, bytes]], faults: Faults, folder: str) -> None:
        self._tasks, self._faults = tasks, faults
        self.folder = folder

    async def listdir(self, name: str = "") -> list[str]:
        await self._faults.read("listdir")
        return sorted(self._at(name) if name else self._tasks)

    async def read(self, name: str, max_bytes: int) -> bytes:
        await self._faults.read("read_file")
        folder, _, file = name.partition("/")
        if file not in self._at(folder):
            raise IoFailed("read", name, "ENOENT", "No such file")
        data = self._at(folder)[file]
        if len(data) > max_bytes:
            raise IoFailed("read", name, "EFBIG", "File too large")
        return data

    async def write_tree(self, name: str, files: Mapping[str, bytes]) -> None:
        self._tasks.pop(name, None)
        for file, data in files.items():
            await self._faults.change("write_tree")
            self._tasks.setdefault(name, {})[file] = data

    async def rename(self, old: str, new: str) -> None:
        await self._faults.change("rename")
        self._tasks[new] = self._at(old)
        del self._tasks[old]

    async def remove_tree(self, name: str) -> None:
        await self._faults.change("remove_tree")
        self._tasks.pop(name, None)

    async def sync(self) -> None:
        return

    def _at(self, name: str) -> dict[str, bytes]:
        if name not in self._tasks:
            raise IoFailed("list_folder", name, "ENOENT", "No such folder")
        return self._tasks[name]


def conforms(domain: MemoryDomain) -> Domain:
    """For the type checker."""
    return domain
