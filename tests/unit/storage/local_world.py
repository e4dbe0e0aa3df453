# SPDX-License-Identifier: GPL-2.0-or-later
"""A storage pool on a local folder: real files, real I/O helpers, a real SPM process, no privileges."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from storage.domains import Domains
from storage.edges import lease_edges
from storage.file.files import METADATA
from storage.file.iopool import IoPools
from storage.file.source import MountedFolders
from storage.leases.kept import Kept
from storage.ondisk import domain_fields
from storage.ondisk.values import DomainClass, DomainKind, DomainStatus
from storage.servers.kinds import LocalFolder
from storage.service import Storage
from storage.spm.control import SpmStatus
from vdsm.api.codes import all_codes
from vdsm.common import groups
from vdsm.common.events import Events
from vdsm.common.ids import new_uuid
from vdsm.common.jobs import Jobs
from vdsm.common.paths import Paths
from vdsm.root.server import folders  # noqa: F401 - its verbs
from vdsm.root.server.registry import Helper, dispatch


class OwnRoot:
    """The root helper's verbs, run here: who owns this test's folders needs no root for them."""

    def __init__(self, paths: Paths) -> None:
        self._helper = Helper(paths, os.geteuid(), os.getegid())

    async def call(self, verb: str, params: Any, *, timeout_s: float) -> Any:
        async with asyncio.timeout(timeout_s):
            return await dispatch(self._helper, verb, params)


def mounted_domains(mounts: str, pools: IoPools, kept: Kept | None = None) -> Domains:
    return Domains(MountedFolders(mounts, lease_edges(kept), pools, io_timeout_s=1))


def take_domain(made: Path, folder: Path, domain_id: str) -> None:
    shutil.copytree(made, folder)
    metadata = folder / domain_id / METADATA
    made_there = domain_fields.decode(metadata.read_bytes(), str(metadata))
    here = replace(made_there, fields={**made_there.fields, "REMOTE_PATH": str(folder)})
    metadata.write_bytes(domain_fields.encode(here))


@dataclass
class World:
    """One host with one local folder. ``restart`` is what a killed and started agent does."""

    top: Path
    storage: Storage = field(init=False)
    pool_id: str = field(default_factory=new_uuid)
    domain_id: str = field(default_factory=new_uuid)

    @property
    def folder(self) -> Path:
        return self.top / "data"

    @property
    def domain(self) -> Path:
        return self.folder / self.domain_id

    @property
    def paths(self) -> Paths:
        return Paths(repository=f"{self.top}/rhev", run=f"{self.top}/run")

    async def start(self) -> None:
        groups.set_folder(self.paths.commands)
        os.makedirs(self.paths.mounts, exist_ok=True)
        self.storage = Storage(
            paths=self.paths,
            root=OwnRoot(self.paths),
            events=Events(),
            jobs=Jobs(),
            io_timeout_s=1,
            host_name="unit",
            error_codes=all_codes(),
            monitor_interval_s=0.2,
            qemu_users=(),
        )
        await self.storage.start()
        results = await self.storage.connections.connect([LocalFolder("c", str(self.folder))])
        assert results[0].error is None

    async def connect_folder(self, folder: Path) -> None:
        results = await self.storage.connections.connect([LocalFolder("d", str(folder))])
        assert results[0].error is None

    async def create_domain(self, domain_id: str, folder: Path, **changes: Any) -> None:
        folder.mkdir(exist_ok=True)
        await self.connect_folder(folder)
        await self.storage.catalogue.create(
            domain_id,
            DomainKind.LOCALFS,
            str(folder),
            "name",
            **{"domain_class": DomainClass.DATA, "version": 5, "block_size": 512, "max_hosts": 250, **changes},
        )

    async def create_pool(self, **changes: Any) -> None:
        await self.create_domain(self.domain_id, self.folder, **changes)
        await self.storage.new_pools.create(self.pool_id, "the pool", self.domain_id, 1, [self.domain_id], {})

    def take(self, made: World) -> None:
        """The domain of another world, as if it had been created here: that takes most of a second."""
        take_domain(made.folder, self.folder, self.domain_id)

    async def connect(self, master_version: int = 1) -> None:
        domains = {self.domain_id: DomainStatus.ACTIVE}
        await self.storage.pool.connect(self.pool_id, 1, self.domain_id, master_version, domains)

    async def become_spm(self) -> dict[str, Any]:
        return await self.finish(await self.storage.tasks.start_spm(self.pool_id, None))

    async def finish(self, task_id: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while True:
                status = dict(await self.storage.tasks.status(task_id))
                if status["taskState"] == "finished":
                    return status
                await asyncio.sleep(0.01)

    async def until_free(self) -> None:
        """Until it is known here that the SPM process is gone."""
        async with asyncio.timeout(20):
            while self.storage.pool.spm.status is not SpmStatus.FREE:
                await asyncio.sleep(0.01)

    async def start_volume(self, image_id: str, volume_id: str, **changes: Any) -> str:
        source, domain_id = changes.pop("source_image_id", ""), changes.pop("domain_id", self.domain_id)
        volume = {
            "image_id": image_id,
            "volume_id": volume_id,
            "capacity": 1 << 20,
            "format": "COW",
            "allocation": "SPARSE",
            **changes,
        }
        params = {"domain_id": domain_id, "source_image_id": source, "volume": volume}
        task_id: str = await self.storage.pool.call_spm("volume.create", params)
        return task_id

    async def create_volume(self, image_id: str, volume_id: str, **changes: Any) -> dict[str, Any]:
        return await self.finish(await self.start_volume(image_id, volume_id, **changes))

    async def stop(self) -> None:
        await self.storage.monitors.stop_all()
        await self.storage.stop()

    def image_files(self, image_id: str) -> set[str]:
        with contextlib.suppress(FileNotFoundError):
            return set(os.listdir(self.domain / "images" / image_id))
        return set()

    def stored_tasks(self) -> list[str]:
        return sorted(os.listdir(self.domain / "master" / "tasks"))
