# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage of this host as its neighbours see it: one object, its parts as attributes.

- ``connections``, ``catalogue``, ``domains``: what storage there is;
- ``pool``: the connected pool and the SPM role; ``pool_domains``: what belongs to it;
- ``volumes``: images and volumes, read here and changed by the SPM process;
- ``tasks``: tasks of the SPM and of this host, by one id space;
- ``under_way``: changes that outlast their callers;
- ``reports``: all of it as people look at it.

VMs and statistics use the methods of `Storage` itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from storage.access import Identity, qemu_identities
from storage.catalogue import Catalogue
from storage.connections import Connections
from storage.domains import Domains
from storage.earlier_writers import EarlierWriters
from storage.edges import lease_edges
from storage.forced_detach import ForcedDetach
from storage.halves import REQUEST_S, halves
from storage.holders import PREPARE
from storage.images import Images, PreparedImage, VolumePath
from storage.in_use import InUse
from storage.iso_files import IsoFiles
from storage.links import PoolLinks
from storage.lock_table import Locks
from storage.lockspaces import Lockspaces
from storage.monitor import INTERVAL_S, DomainHealth, Monitors
from storage.new_pools import NewPools
from storage.ondisk.values import DomainStatus
from storage.pool import Pool
from storage.pool_domains import PoolDomains
from storage.pool_tasks import PoolTasks
from storage.pool_versions import PoolVersions
from storage.reports import Reports
from storage.servers.connectors import connectors
from storage.servers.records import ConnectionRecords
from storage.source import MountedPlace
from storage.spm.control import SpmControl
from storage.spm.role import code_of
from storage.turns import DomainTurns
from storage.under_way import UnderWay
from storage.volumes import VolumeReader
from vdsm.common.errors import AgentError
from vdsm.common.events import Events
from vdsm.common.ids import BLANK_UUID
from vdsm.common.jobs import Jobs
from vdsm.common.paths import Paths
from vdsm.root.client import Root

log = logging.getLogger("vdsm.storage")

__all__ = ["PreparedImage", "Storage", "VolumePath"]


class Storage:
    def __init__(
        self,
        *,
        paths: Paths,
        root: Root,
        events: Events,
        jobs: Jobs,
        io_timeout_s: int,
        host_name: str,
        error_codes: Mapping[type[AgentError], int] | None = None,
        monitor_interval_s: float = INTERVAL_S,
        request_timeout_s: float = REQUEST_S,
        qemu_users: Sequence[Identity] | None = None,
    ) -> None:
        """``qemu_users``: who must be able to use local folders; by default the users that QEMU has on this host."""
        codes = {f"{cls.__module__}:{cls.__qualname__}": code for cls, code in (error_codes or {}).items()}
        self._code_of = code_of(codes)
        self._paths = paths
        self._leases_of = lease_edges()
        self._links = PoolLinks(paths.repository, root)
        below = halves(paths.mounts, self._leases_of, io_timeout_s=io_timeout_s, request_timeout_s=request_timeout_s)
        self._io = below.writers
        self.domains = Domains(below.source)
        self.lockspaces = Lockspaces(paths.mounts, self._leases_of)
        self.monitors = Monitors(
            self.domains.with_leases, self._domain_changed, self.lockspaces.leave_domain, monitor_interval_s
        )
        qemu_users = qemu_identities() if qemu_users is None else qemu_users
        self.in_use = InUse(os.path.join(paths.run, "prepared"))
        self._earlier = EarlierWriters(self.domains.source.hang_with)
        self.locks = Locks(self._earlier)
        turns = DomainTurns(self.locks)
        self.images = Images(paths.storage_run, self.in_use, self.locks, self.domains.opened)
        self.connections = Connections(
            paths.mounts,
            connectors(paths.mounts, root, below.folders, qemu_users=qemu_users, io_timeout_s=io_timeout_s),
            self.domains,
            users_below=self._users_below,
            records=ConnectionRecords(paths.connections),
        )
        self._events = events
        spm = SpmControl(
            self.in_use,
            self.locks,
            self.domains.source.hang_with,
            self._told_of_odd_task,
            self._master_moved,
            {
                "commands": paths.commands,
                "leased": paths.leased,
                "locks": {"spm": paths.spm_lock, "once": paths.once_lock},
                "mounts": paths.mounts,
                "repository": paths.repository,
                "io_timeout_s": io_timeout_s,
                "request_timeout_s": request_timeout_s,
                "codes": codes,
                "log_level": logging.getLevelName(logging.getLogger().getEffectiveLevel()),
            },
        )
        self.under_way = UnderWay(
            lambda about, sentence: events.publish("storage", "change_ended", about, {"message": sentence})
        )
        self.pool = Pool(
            self._links,
            self.domains,
            self.monitors,
            spm,
            self.lockspaces,
            turns,
            self.under_way,
            watch_s=max(1.0, 2.0 * io_timeout_s),
        )
        self.new_pools = NewPools(self.pool, self.domains, self.lockspaces, turns, self.under_way)
        self.forced_detach = ForcedDetach(self.pool, self.domains, self.in_use, self.lockspaces, turns, self.under_way)
        self.versions = PoolVersions(self.pool, self.domains)
        self.iso_files = IsoFiles(self.domains, qemu_users)
        self.pool_domains = PoolDomains(self.pool, self.domains, self.in_use, self.lockspaces, turns, self.under_way)
        self.catalogue = Catalogue(
            self.domains,
            below.sources,
            self.pool,
            self.in_use,
            self.lockspaces,
            turns,
            self.under_way,
        )
        self.tasks = PoolTasks(self.pool, self._code_of, self.locks)
        self.volumes = VolumeReader(self.domains)
        self.reports = Reports(self.pool, self.domains, self.monitors, paths.leased)
        self._beside: set[asyncio.Task[None]] = set()
        self._tell_valid: Callable[[str], None] = lambda _domain_id: None

    def when_valid(self, tell: Callable[[str], None]) -> None:
        """``tell`` hears of each domain that becomes valid, also by the first look at it."""
        self._tell_valid = tell

    async def start(self) -> None:
        """Remove links of pools that an earlier run was connected to; engines connect again.

        Host ids that it held for a moment only are given back meanwhile: storage that is away delays no start.
        """
        self._earlier.learn(self._paths.leased)
        os.makedirs(self._paths.storage_run, mode=0o755, exist_ok=True)
        self._run_beside(self.lockspaces.leave_reserved())
        await self._links.remove_stale()

    async def stop(self) -> None:
        """Give the SPM role back. Lockspaces stay joined: running VMs may hold leases in them."""
        for task in self._beside:
            task.cancel()
        self._earlier.stop()
        await self.connections.close()
        await self.reports.close()
        await self.under_way.stop()
        await self.pool.spm.end()
        self.monitors.abandon_all()
        await self.domains.close()
        await self._io.close()

    def _users_below(self, mount: str) -> list[str]:
        """Who keeps a connection: domains that the connected pool uses, users of images. From memory and records."""
        return [
            *(f"domain {domain_id} of the pool" for domain_id in self._active_on(mount)),
            *self.images.users_below(mount),
        ]

    def _active_on(self, mount: str) -> list[str]:
        """By their links, which say by which way the pool goes: one export may be mounted under two names."""
        pool = self.pool.connected
        if pool is None:
            return []
        links, seen = self._links.targets(pool.pool_id), self.domains.source.seen_at(MountedPlace(mount))
        active = [domain_id for domain_id, status in pool.domains.items() if status is DomainStatus.ACTIVE]
        return [d for d in active if (links[d].startswith(f"{mount}/") if d in links else d in seen)]

    # For VMs

    async def prepare_image(
        self,
        pool_id: str,
        domain_id: str,
        image_id: str,
        volume_id: str,
        *,
        allow_illegal: bool = False,
        consumer: str = PREPARE,
    ) -> PreparedImage:
        """Make a volume and all below it usable here, for ``consumer`` (`storage.holders`).

        Raises `PoolUnknown`, `VolumeNotFound`, `VolumeIllegal`, `BeingRemoved`.
        """
        if pool_id != BLANK_UUID:
            self.pool.require(pool_id)
        domain = await self.domains.get(domain_id)
        return await self.images.prepare(domain, image_id, volume_id, consumer=consumer, allow_illegal=allow_illegal)

    async def teardown_image(self, pool_id: str, domain_id: str, image_id: str, *, consumer: str = PREPARE) -> None:
        """Undo `prepare_image` for one consumer; needs neither the pool nor the storage."""
        await self.images.teardown(domain_id, image_id, consumer=consumer)

    async def resume_prepared(
        self, images: Sequence[tuple[str, str, str, str]], *, consumer: str = PREPARE
    ) -> list[tuple[str, str, str, str]]:
        """After a restart: these (pool, domain, image, volume) are in use. Those that were not on record."""
        lost = []
        for image in images:
            _, domain_id, image_id, _ = image
            if consumer not in self.in_use.users(domain_id, image_id):
                log.error("image %s of domain %s is used by %s: that was not on record", image_id, domain_id, consumer)
                # which volumes lie below it is not known before the storage is there: all of the image
                self.in_use.add(domain_id, image_id, consumer, [])
                lost.append(image)
        return lost

    # For statistics

    def repo_stats(self, wanted: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """Health of the pool's domains as `Host.getStats` shows it (storage.md 18), from memory."""
        return {
            domain_id: self._shown(health)
            for domain_id, health in self.monitors.health().items()
            if not wanted or domain_id in wanted
        }

    async def _master_moved(self, domain_id: str, version: int) -> None:
        await self.pool.master_moved(domain_id, version)

    def _told_of_odd_task(self, what: str) -> None:
        self._events.publish("storage", "odd_task", self.pool.spm.pool_id, {"message": what})

    def _shown(self, health: DomainHealth) -> dict[str, Any]:
        """``reason`` is extra: why the domain is bad, or its host id not held."""
        shown = {
            "code": 0 if health.error is None else self._code_of(health.error),
            "lastCheck": f"{health.age_s:.1f}",
            "delay": f"{health.delay_s:.9f}",
            "valid": health.valid,
            "version": health.version,
            "acquired": health.acquired,
            "actual": health.checked,
        }
        return {**shown, "reason": health.reason} if health.reason else shown

    def _domain_changed(self, domain_id: str, valid: bool) -> None:
        if valid:
            self._run_beside(self.pool.link_domain(domain_id))
            self._run_beside(self.versions.bring_up(domain_id))
            self._tell_valid(domain_id)

    def _run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
