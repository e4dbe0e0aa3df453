# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of a pool on NFS, each as an engine asks for it, and as it goes on when the host that made it is gone.

A flow is made on one host (``prepare``), which loses its power in the middle of ``change``. Another host finds what
lies there, as far as an engine knows it, and brings the change to its end (``go_on``); ``left`` says what each domain's
metadata must hold then. What an engine has in its database is a `Pool`.
"""

from __future__ import annotations

import abc
import asyncio
import shlex
import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar

from contrib.lab import engine
from contrib.lab.control import HostFailed
from contrib.lab.microvm import storage_server
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.san import SERVER, address
from tests.hosts.storage_flows import clear_all, run_task, volume_params
from vdsm.client import Client, RpcError

NFS = 1
WRONG_MASTER, UPGRADE_RUNNING = 324, 396
SLOW_S = 300.0
"""For calls of an emulated host that does what takes long."""
SETTLED_S = 90.0
OPTIONS = "rw,no_root_squash"
"""Of exports: sanlock of the lab is root."""
MIB = 1 << 20


@dataclass(frozen=True)
class Domain:
    domain_id: str
    export: str
    connection: dict[str, str] = field(hash=False)


@dataclass
class Pool:
    pool_id: str
    master: Domain
    version: int = 1
    """Of its master."""
    domains: dict[str, Domain] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)

    def learn(self, domain: Domain, status: str) -> None:
        self.domains[domain.domain_id], self.statuses[domain.domain_id] = domain, status


@dataclass(frozen=True)
class Host:
    """One that an engine talks to; the number is its host id in every pool."""

    number: int
    micro: MicroHost
    client: Client

    async def call(self, verb: str, params: dict[str, Any]) -> Any:
        return await self.client.call(verb, params, timeout_s=SLOW_S)

    async def connect(self, pool: Pool, *without: Domain) -> None:
        wanted = [domain for domain in pool.domains.values() if domain not in without]
        await asyncio.gather(*(engine.connect_server(self.client, NFS, d.connection, pool.pool_id) for d in wanted))
        params = {
            "storagepoolID": pool.pool_id,
            "hostID": self.number,
            "scsiKey": "none",
            "masterSdUUID": pool.master.domain_id,
            "masterVersion": pool.version,
            "domainDict": dict(pool.statuses),
        }
        await self.call("StoragePool.connect", params)

    async def lead(self, pool: Pool, *, timeout_s: float = SLOW_S) -> None:
        """Nobody tells an engine that the lease of a dead host is free: it asks again."""

        async def led() -> bool:
            try:
                await engine.become_spm(self.client, pool.pool_id, timeout_s=timeout_s)
            except HostFailed:
                await asyncio.sleep(1)
                return False
            return True

        await engine.until(f"host {self.number} is SPM", led, timeout_s=timeout_s)

    async def spm(self, pool: Pool) -> tuple[str, int]:
        """Its own role, and who has it."""
        status = await self.call("StoragePool.getSpmStatus", {"storagepoolID": pool.pool_id})
        return status["spmStatus"], int(status["spmId"])

    async def yields(self, pool: Pool) -> None:
        await self.call("StoragePool.spmStop", {"storagepoolID": pool.pool_id})

    async def leave(self, pool: Pool) -> None:
        params = {"storagepoolID": pool.pool_id, "hostID": self.number, "scsiKey": "none"}
        await self.call("StoragePool.disconnect", params)
        connections = [domain.connection for domain in pool.domains.values()]
        params = {"storagepoolID": engine.BLANK, "domainType": NFS, "connectionParams": connections}
        answers = await self.call("StoragePool.disconnectStorageServer", params)
        assert [answer["status"] for answer in answers] == [0] * len(connections), answers

    async def domain(self, pool: Pool, verb: str, domain: Domain, **fields: Any) -> None:
        params = {"storagedomainID": domain.domain_id, "storagepoolID": pool.pool_id, **fields}
        await self.call(f"StorageDomain.{verb}", params)

    async def told(self, domain: Domain) -> dict[str, str]:
        """What its metadata says, as this host's agent reads it: in the words of the disk."""
        info = await self.call("StorageDomain.getInfo", {"storagedomainID": domain.domain_id})
        return {"ROLE": info["role"], "VERSION": info["version"], "POOL_UUID": ",".join(info["pool"])}


class Exports:
    """Folders of the server, made beforehand one after the other; each domain takes one."""

    def __init__(self, server: MicroHost, version: str, count: int) -> None:
        self._version = version
        self.names = [f"cut-{uuid.uuid4().hex[:8]}" for _ in range(count)]
        self._paths = iter([storage_server.export(server, name, OPTIONS) for name in self.names])

    async def domain(self, host: Host, version: int = 5) -> Domain:
        """Made by that host, which needs not be of the pool that takes it."""
        path = next(self._paths)[self._version]
        text = f"{address('san-a', SERVER)}:{path}"
        wanted = {"id": str(uuid.uuid4()), "connection": text, "protocol_version": self._version}
        domain_id = await engine.create_domain(host.client, NFS, wanted, version=version)
        return Domain(domain_id, path.rpartition("/")[2], wanted)


class Flow(abc.ABC):
    area: ClassVar[str]
    version: ClassVar[int] = 5
    pool: Pool
    second: Domain

    def __init__(self, exports: Exports) -> None:
        self._exports = exports

    async def prepare(self, host: Host, other: Host) -> None:
        """A pool that ``host`` leads, and a second domain, which the other one made."""
        master, self.second = await asyncio.gather(
            self._exports.domain(host, self.version), self._exports.domain(other, self.version)
        )
        await other.call(
            "StoragePool.disconnectStorageServer",
            {"storagepoolID": engine.BLANK, "domainType": NFS, "connectionParams": [self.second.connection]},
        )
        self.pool = Pool(await engine.create_pool(host.client, master.domain_id), master)
        self.pool.learn(master, "active")
        await host.connect(self.pool)
        await host.lead(self.pool)
        await engine.connect_server(host.client, NFS, self.second.connection)

    async def _attach(self, host: Host) -> None:
        await host.domain(self.pool, "attach", self.second)
        await host.domain(self.pool, "activate", self.second)
        self.pool.learn(self.second, "active")

    async def found(self, host: Host) -> None:
        """Connected as far as an engine knows the pool."""
        await host.connect(self.pool)

    @abc.abstractmethod
    async def change(self, host: Host) -> None: ...
    @abc.abstractmethod
    async def go_on(self, host: Host) -> None: ...
    @abc.abstractmethod
    def left(self) -> dict[Domain, dict[str, str]]: ...

    def _fields(self, role: str, *, pool_id: str | None = None) -> dict[str, str]:
        return {"ROLE": role, "VERSION": "5", "POOL_UUID": self.pool.pool_id if pool_id is None else pool_id}


async def _until_told(host: Host, domain: Domain, **fields: str) -> None:
    async def look() -> bool:
        return fields.items() <= (await host.told(domain)).items()

    await engine.until(f"domain {domain.domain_id} says {fields}", look, timeout_s=SETTLED_S)


class Attach(Flow):
    area = "domain.attach."

    async def change(self, host: Host) -> None:
        await host.domain(self.pool, "attach", self.second)

    async def go_on(self, host: Host) -> None:
        await engine.connect_server(host.client, NFS, self.second.connection)
        info = await host.call("StoragePool.getInfo", {"storagepoolID": self.pool.pool_id})
        assert list(info["dominfo"]) == [self.pool.master.domain_id]
        await self._attach(host)

    def left(self) -> dict[Domain, dict[str, str]]:
        return {self.pool.master: self._fields("Master"), self.second: self._fields("Regular")}


class Detach(Flow):
    area = "domain.detach."

    async def prepare(self, host: Host, other: Host) -> None:
        await super().prepare(host, other)
        await self._attach(host)
        await host.domain(self.pool, "deactivate", self.second)
        self.pool.learn(self.second, "attached")

    async def change(self, host: Host) -> None:
        await host.domain(self.pool, "detach", self.second)

    async def go_on(self, host: Host) -> None:
        await self.change(host)
        info = await host.call("StoragePool.getInfo", {"storagepoolID": self.pool.pool_id})
        assert list(info["dominfo"]) == [self.pool.master.domain_id]
        del self.pool.statuses[self.second.domain_id]

    def left(self) -> dict[Domain, dict[str, str]]:
        return {self.pool.master: self._fields("Master"), self.second: self._fields("Regular", pool_id="")}


class Switch(Flow):
    """With a task that has ended: it must be told by whoever is SPM next, from the master that counts."""

    area = "master.move."

    async def prepare(self, host: Host, other: Host) -> None:
        await super().prepare(host, other)
        await self._attach(host)
        volume = engine.Volume(self.pool.pool_id, self.second.domain_id, str(uuid.uuid4()), str(uuid.uuid4()))
        self.ended = await host.call("Volume.create", volume_params(volume))
        await engine.until("the task has ended", lambda: self._told_ended(host), timeout_s=SETTLED_S)
        self.old = self.pool.master

    async def _told_ended(self, host: Host) -> bool:
        task = await host.call("Task.getStatus", {"taskID": self.ended})
        return (task["taskState"], task["taskResult"]) == ("finished", "success")

    async def change(self, host: Host) -> None:
        await engine.finish_task(host.client, await self.begin(host), timeout_s=SLOW_S)

    async def begin(self, host: Host) -> str:
        params = {
            "storagepoolID": self.pool.pool_id,
            "oldMasterUUID": self.old.domain_id,
            "newMasterUUID": self.second.domain_id,
            "masterVersion": 2,
        }
        task_id: str = await host.call("StoragePool.switchMaster", params)
        return task_id

    async def found(self, host: Host) -> None:
        """The new master is asked for; where it is none yet, that is refused."""
        self.pool.master, self.pool.version = self.second, 2
        try:
            await host.connect(self.pool)
        except RpcError as error:
            if error.code != WRONG_MASTER:
                raise
            self.pool.master, self.pool.version = self.old, 1
            await host.connect(self.pool)

    async def go_on(self, host: Host) -> None:
        assert await self._told_ended(host)
        if self.pool.master is not self.second:
            await self.change(host)
            self.pool.master, self.pool.version = self.second, 2
        await _until_told(host, self.old, ROLE="Regular")
        tasks = await clear_all(host.client)
        assert tasks[self.ended]["taskResult"] == "success", tasks

    def left(self) -> dict[Domain, dict[str, str]]:
        return {self.old: self._fields("Regular"), self.second: self._fields("Master")}


class Upgrade(Flow):
    """Of a pool of the oldest version whose disk has a base, a layer, and known content in both."""

    area = "domain.convert."
    version = 3

    async def prepare(self, host: Host, other: Host) -> None:
        await super().prepare(host, other)
        await self._attach(host)
        image = str(uuid.uuid4())
        base, leaf = (
            engine.Volume(self.pool.pool_id, self.pool.master.domain_id, image, str(uuid.uuid4())) for _ in range(2)
        )
        self.leaf = leaf
        await run_task(host.client, "Volume.create", volume_params(base, volFormat=5, size=str(4 * MIB)))
        await self._qemu_io(host, base, "write -P 0xa1 0 4M")
        below = {"srcImgUUID": image, "srcVolUUID": base.volume_id, "size": str(8 * MIB)}
        await run_task(host.client, "Volume.create", volume_params(leaf, **below))
        await self._qemu_io(host, leaf, "write -P 0xb2 1M 1M")
        await self._check(host)

    async def _check(self, host: Host) -> None:
        reads = ("read -P 0xa1 0 1M", "read -P 0xb2 1M 1M", "read -P 0xa1 2M 2M", "read -P 0 4M 4M")
        await self._qemu_io(host, self.leaf, *reads)

    async def _qemu_io(self, host: Host, volume: engine.Volume, *commands: str) -> None:
        path = (await host.call("Image.prepare", {**volume.ids, "allowIllegal": False}))["path"]
        kind = (await host.call("Volume.getInfo", volume.ids))["format"]
        argv = ["qemu-io", "-f", {"RAW": "raw", "COW": "qcow2"}[kind], "-t", "none"]
        argv += [word for command in commands for word in ("-c", command)]
        done = await asyncio.to_thread(host.micro.run, [*argv, path], user="vdsm", timeout_s=SLOW_S)
        assert b"verification failed" not in done.stdout, f"{shlex.join(argv)}: {done.stdout!r}"
        await host.call("Image.teardown", volume.ids)

    async def change(self, host: Host) -> None:
        await host.call("StoragePool.upgrade", {"storagepoolID": self.pool.pool_id, "targetDomVersion": "5"})

    async def _taken(self, host: Host) -> bool:
        try:
            await self.change(host)
        except RpcError as error:
            if error.code != UPGRADE_RUNNING:  # of the others, to the version that the master was left at
                raise
            return False
        return True

    async def go_on(self, host: Host) -> None:
        await self._check(host)
        await engine.until("the upgrade is taken", lambda: self._taken(host), timeout_s=SETTLED_S)
        for domain in self.pool.domains.values():
            await _until_told(host, domain, VERSION="5")
        await self._check(host)

    def left(self) -> dict[Domain, dict[str, str]]:
        return {self.pool.master: self._fields("Master"), self.second: self._fields("Regular")}


class Reconstruct(Flow):
    """The master is lost while nobody is in the pool, and is there again later."""

    area = "pool.reconstruct."

    async def prepare(self, host: Host, other: Host) -> None:
        await super().prepare(host, other)
        await self._attach(host)
        await host.yields(self.pool)
        await host.leave(self.pool)
        await engine.connect_server(host.client, NFS, self.second.connection)
        self.lost = self.pool.master

    async def change(self, host: Host) -> None:
        params = {
            "storagepoolID": self.pool.pool_id,
            "hostId": host.number,
            "name": "again",
            "masterSdUUID": self.second.domain_id,
            "masterVersion": 2,
            "domainDict": {self.lost.domain_id: "attached", self.second.domain_id: "active"},
            "lockRenewalIntervalSec": 5,
            "leaseTimeSec": 60,
            "ioOpTimeoutSec": 10,
            "leaseRetries": 3,
        }
        await host.call("StoragePool.reconstructMaster", params)

    async def found(self, host: Host) -> None:
        await engine.connect_server(host.client, NFS, self.second.connection)

        async def made() -> bool:
            try:
                await self.change(host)
            except RpcError:  # the dead host has the lease still
                await asyncio.sleep(1)
                return False
            return True

        await engine.until("the pool is made anew", made, timeout_s=SLOW_S)
        self.pool.master, self.pool.version = self.second, 2
        self.pool.learn(self.lost, "attached")
        await host.connect(self.pool, self.lost)

    async def go_on(self, host: Host) -> None:
        await engine.connect_server(host.client, NFS, self.lost.connection)
        await host.domain(self.pool, "activate", self.lost)
        self.pool.learn(self.lost, "active")
        await _until_told(host, self.lost, ROLE="Regular")

    def left(self) -> dict[Domain, dict[str, str]]:
        return {self.lost: self._fields("Regular"), self.second: self._fields("Master")}


FLOWS: tuple[type[Flow], ...] = (Attach, Detach, Switch, Upgrade, Reconstruct)


def flow_at(point: str) -> type[Flow]:
    return next(flow for flow in FLOWS if point.startswith(flow.area))
