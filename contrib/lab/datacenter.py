# SPDX-License-Identifier: GPL-2.0-or-later
"""A central engine's part over several hosts: its pool, who manages its storage, where its VMs run.

    async with DataCenter(cluster) as center:      # agents run
        pool = await center.create_pool()           # every host connected, the first one SPM
        await center.move_spm(second, dead=first)   # once the first one is known to be off

Each host has one connection. Only verbs of the API are used, except for `migrate`, which speaks to libvirt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from contrib.lab import engine, vm_xml
from contrib.lab.cluster import Cluster, address
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost
from vdsm.client import Client, Notice, RpcError

ELECTION_S = 30.0
RETRY_S = 1.0
MIGRATION_S = 60.0
EVENT_S = 30.0


@dataclass(frozen=True)
class Migration:
    total_s: float
    # the guest stood still for so long
    downtime_ms: int


class DataCenter:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stack = AsyncExitStack()
        self._clients: dict[str, Client] = {}
        self._pool: engine.Pool | None = None

    async def __aenter__(self) -> Self:
        for host in self._cluster.hosts:
            await self.add_host(host)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # -- hosts

    async def add_host(self, host: PrivateHost) -> dict[str, Any]:
        """Connect to a host whose agent runs and see that it can serve; its capabilities. Raises HostFailed."""
        client = await self._stack.enter_async_context(host.client())
        capabilities: dict[str, Any] = await client.call("Host.getCapabilities")
        if capabilities["uuid"] != host.spec.host_id:
            raise HostFailed(f"{host.spec.name} says it is {capabilities['uuid']}")
        self._clients[host.spec.name] = client
        if self._pool is not None:
            await self._join(host, self._pool)
        return capabilities

    def client(self, host: PrivateHost) -> Client:
        return self._clients[host.spec.name]

    @property
    def pool(self) -> engine.Pool:
        if self._pool is None:
            raise HostFailed("the data center has no pool")
        return self._pool

    # -- storage

    async def create_pool(self) -> engine.Pool:
        """A domain on the shared file system, a pool of it, every host connected, the first one SPM."""
        first, *others = self._cluster.hosts
        client, connection = self.client(first), self._cluster.connection()
        domain_id = await engine.create_domain(client, engine.POSIXFS, connection)
        pool_id = await engine.create_pool(client, domain_id)
        pool = self._pool = engine.Pool(pool_id, domain_id, engine.POSIXFS, connection)
        await self._join(first, pool)
        await self.elect(first)
        await client.call("StorageDomain.activate", {"storagedomainID": domain_id, "storagepoolID": pool_id})
        await asyncio.gather(*(self._join(host, pool) for host in others))
        return pool

    async def spm(self) -> PrivateHost | None:
        """The host that says of itself that it manages the pool's storage. Raises HostFailed if several do."""
        managing = []
        for host in self._cluster.hosts:
            if host.pid:
                status = await self.client(host).call(
                    "StoragePool.getSpmStatus", {"storagepoolID": self.pool.pool_id}, timeout_s=ELECTION_S
                )
                managing += [host] if status["spmStatus"] == "SPM" else []
        if len(managing) > 1:
            raise HostFailed(f"several hosts say that they are SPM: {[host.spec.name for host in managing]}")
        return managing[0] if managing else None

    async def elect(self, host: PrivateHost, *, timeout_s: float = ELECTION_S) -> None:
        """Make that host the SPM. Raises HostFailed when it can't be, as while another one is."""
        try:
            await engine.become_spm(self.client(host), self.pool.pool_id, timeout_s=timeout_s)
        except (RpcError, TimeoutError) as error:
            raise HostFailed(f"spmStart on {host.spec.name}: {error}") from error

    async def move_spm(self, host: PrivateHost, *, dead: PrivateHost, timeout_s: float) -> None:
        """Make that host the SPM after another one's death, trying again until its lease is free.

        Raises HostFailed when the dead one is not off, or with the last refusal after ``timeout_s``.
        """
        if dead.pid:
            raise HostFailed(f"{dead.spec.name} is not off: its role may not be given away")
        limit = time.monotonic() + timeout_s
        while True:
            try:
                return await self.elect(host, timeout_s=timeout_s)
            except HostFailed:
                if time.monotonic() > limit:
                    raise
                # the engine's way: it tries again, nobody tells it that the lease is free
                await asyncio.sleep(RETRY_S)

    # -- VMs

    async def run_vm(self, host: PrivateHost, vm: vm_xml.Vm) -> None:
        client = self.client(host)
        await engine.create_vm(client, vm)
        await engine.wait_vm(client, vm.vm_id, "Up")

    async def stop_vm(self, host: PrivateHost, vm: vm_xml.Vm) -> dict[str, Any]:
        """Destroy the VM and wait for the event that says it is down; what the event told of it."""
        notices = await self.client(host).listen()
        try:
            await self.client(host).call("VM.destroy", {"vmID": vm.vm_id}, timeout_s=60)
            return await _told_down(notices, vm.vm_id)
        finally:
            await notices.aclose()

    async def migrate(self, vm: vm_xml.Vm, source: PrivateHost, target: PrivateHost) -> Migration:
        """Move a running VM, over the migration network, by libvirt of the two hosts."""
        to = address("migration", self._cluster.number(target))
        # unsafe only in libvirt's eyes: it does not know that the folder is shared
        argv = ["virsh", "migrate", "--live", "--p2p", "--unsafe", vm.name, f"qemu+tcp://{to}/system"]
        began = time.monotonic()
        await asyncio.to_thread(source.run, [*argv, "--migrateuri", f"tcp://{to}"], timeout_s=MIGRATION_S)
        total_s = time.monotonic() - began
        told = await asyncio.to_thread(target.run, ["virsh", "domjobinfo", "--completed", vm.name])
        fields = dict(line.split(":", 1) for line in told.stdout.decode().splitlines() if ":" in line)
        return Migration(total_s, int(fields["Total downtime"].split()[0]))

    async def _join(self, host: PrivateHost, pool: engine.Pool) -> None:
        client = self.client(host)
        await engine.connect_server(client, pool.domain_type, pool.connection, pool.pool_id)
        number = self._cluster.number(host)
        await engine.connect_pool(client, pool.pool_id, pool.domain_id, host_id=number)


async def _told_down(notices: AsyncGenerator[Notice, None], vm_id: str) -> dict[str, Any]:
    async with asyncio.timeout(EVENT_S):
        async for notice in notices:
            told = notice.params.get(vm_id, {})
            if notice.operation == "VM_status" and told.get("status") == "Down":
                return dict(told)
    raise HostFailed(f"the events ended before VM {vm_id} was down")
