# SPDX-License-Identifier: GPL-2.0-or-later
"""The host as verbs see it. What other parts know of it (network, hooks, storage, VMs, libvirt) comes from
providers that the composition root gives; this part knows none of them.

Statistics are sampled every period by a task of their own; `stats` answers from memory. Versions of packages
are looked up once, in the background, from the start. When libvirt does not answer, capabilities repeat what
it said last; a failing network or VM provider fails the call, because an engine takes a host that names no
network or no VM at its word.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from vdsm.common.errors import AgentError
from vdsm.common.paths import Paths
from vdsm.host import capabilities, hardware, machines, statistics, system
from vdsm.host.identity import host_uuid
from vdsm.host.machines import Hypervisor
from vdsm.host.statistics import Sample
from vdsm.host.system import Packages
from vdsm.host.tree import Tree

log = logging.getLogger("vdsm.host")

T = TypeVar("T")
Provider = Callable[[], T | Awaitable[T]]

PERIOD_S = 15.0
FIRST_PAIR_S = 1.0  # so that rates are known a second after the start
# stored as Up, whatever the guest is asked to do or was just doing
ACTIVE = frozenset({"Up", "Powering up", "Powering down", "RebootInProgress"})
NETWORK_KEYS = ("networks", "nics", "bondings", "vlans", "bridges")


async def _no_hypervisor() -> Hypervisor:
    return Hypervisor()


def _nothing() -> Mapping[str, Any]:
    return {}


def _no_vms() -> Sequence[str]:
    return ()


class Host:
    def __init__(
        self,
        *,
        paths: Paths,
        tree: Tree | None = None,
        period_s: float = PERIOD_S,
        hypervisor: Callable[[], Awaitable[Hypervisor]] = _no_hypervisor,
        network: Provider[Mapping[str, Any]] = _nothing,
        network_statistics: Provider[Mapping[str, Any]] | None = None,
        network_dirty: Callable[[], bool] = lambda: False,
        hooks: Provider[Mapping[str, Any]] = _nothing,
        storage_domains: Provider[Mapping[str, Any]] = _nothing,
        vm_states: Provider[Sequence[str]] = _no_vms,
        dmi: Provider[Mapping[str, str]] | None = None,
        packages: Callable[[], Coroutine[Any, Any, Packages]] = system.installed_packages,
    ) -> None:
        """``vm_states``: the status of each VM in the wire's words; ``dmi``: what root may read of the hardware."""
        self._paths = paths
        self._tree = tree or Tree()
        self._period_s = period_s
        self._ask_hypervisor = hypervisor
        self._network = network
        self._network_statistics = network_statistics
        self._network_dirty = network_dirty
        self._hooks = hooks
        self._storage_domains = storage_domains
        self._vm_states = vm_states
        self._dmi = dmi
        self._ask_packages = packages
        self._host_id = ""
        self._hypervisor = Hypervisor()
        self._told_limit = ""
        self._packages: asyncio.Task[Packages] | None = None
        self._sampling: asyncio.Task[None] | None = None
        self._samples: tuple[Sample | None, Sample | None] = (None, None)
        self._started_s = time.monotonic()

    async def start(self) -> None:
        self._packages = asyncio.create_task(self._ask_packages(), name="versions of packages")
        self._sampling = asyncio.create_task(self._sample_for_ever(), name="host statistics")

    async def stop(self) -> None:
        for task in (self._sampling, self._packages):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def capabilities(self) -> dict[str, Any]:
        try:
            self._hypervisor = await self._ask_hypervisor()
        except AgentError as e:
            log.warning("capabilities repeat what libvirt said last: %s", e)
        self._tell_limit(machines.what_limits_the_cluster(self._hypervisor))
        if self._packages is None:
            self._packages = asyncio.create_task(self._ask_packages(), name="versions of packages")
        packages = await asyncio.shield(self._packages)
        own = await asyncio.to_thread(capabilities.describe, self._tree, self._id(), self._hypervisor, packages)
        network = dict(await _ask(self._network))
        return {
            **own,
            **{key: {} for key in NETWORK_KEYS},
            "nameservers": [],
            "netConfigDirty": "False",
            **network,
            "hooks": dict(await _ask(self._hooks)),
        }

    def _tell_limit(self, limit: str) -> None:
        """Once: it changes with the hypervisor only."""
        if limit and limit != self._told_limit:
            self._told_limit = limit
            log.warning("%s", limit)

    async def stats(self) -> dict[str, Any]:
        before, now = self._samples
        if now is None:
            now = await self._sample()
        found = statistics.figures(before, now)
        if self._network_statistics is not None:
            found["network"] = dict(await _ask(self._network_statistics))
        states = list(await _ask(self._vm_states))
        return {
            **found,
            "elapsedTime": str(int(time.monotonic() - self._started_s)),
            "dateTime": time.strftime("%Y-%m-%dT%H:%M:%S GMT", time.gmtime()),
            "storageDomains": dict(await _ask(self._storage_domains)),
            **vm_counts(states),
            "momStatus": "inactive",
            "netConfigDirty": str(self._network_dirty()),
            "haScore": 0,
            "haStats": {
                "configured": False,
                "active": False,
                "score": 0,
                "globalMaintenance": False,
                "localMaintenance": False,
            },
            "v2vJobs": {},
            "multipathHealth": {},
        }

    async def hardware_info(self) -> dict[str, str]:
        found = hardware.read_hardware(self._tree, self._id())
        if self._dmi is not None:
            found.update(await _ask(self._dmi))
        return found

    def _id(self) -> str:
        if not self._host_id:
            self._host_id = host_uuid(self._paths, self._tree)
        return self._host_id

    async def _sample(self) -> Sample:
        folders = ("/tmp", "/var/log", self._paths.run)  # noqa: S108 - only its free space is looked at
        sample = await asyncio.to_thread(statistics.take, self._tree, folders)
        self._samples = (self._samples[1], sample)
        return sample

    async def _sample_for_ever(self) -> None:
        pause_s = min(FIRST_PAIR_S, self._period_s)
        while True:
            try:
                await self._sample()
            except Exception:  # a file in an odd form must not end the statistics; the last sample stays
                log.exception("this host's statistics could not be read")
            await asyncio.sleep(pause_s)
            pause_s = self._period_s if self._samples[0] is not None else pause_s


def vm_counts(states: Sequence[str]) -> dict[str, int]:
    outgoing = sum(state == "Migration Source" for state in states)
    incoming = sum(state == "Migration Destination" for state in states)
    return {
        "vmCount": len(states),
        "vmActive": sum(state in ACTIVE for state in states),
        "vmMigrating": outgoing + incoming,
        "incomingVmMigrations": incoming,
        "outgoingVmMigrations": outgoing,
    }


async def _ask(provider: Provider[T]) -> T:
    answer = provider()
    return await answer if inspect.isawaitable(answer) else answer
