# SPDX-License-Identifier: GPL-2.0-or-later
"""What a central engine does with a host, over the API and in the engine's call order.

The demo and the tests stand in for the engine with these functions. Parameters are typed as the real engine types them:
numbers of sizes as text, booleans of some verbs as text.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from contrib.lab import vm_xml
from contrib.lab.control import HostFailed
from contrib.lab.spec import LOCAL_FOLDER, POSIX_IMAGE
from vdsm.client import Client

BLANK = "00000000-0000-0000-0000-000000000000"
LOCALFS, POSIXFS = 4, 6
HOST_ID = 1
# a host waits about 20 s for a sanlock lockspace with its default io_timeout; hosts of the lab use 1 s
STORAGE_S = 60.0
POLL_S = 0.05


@dataclass(frozen=True)
class Pool:
    pool_id: str
    domain_id: str
    domain_type: int
    connection: dict[str, str]


@dataclass(frozen=True)
class Volume:
    pool_id: str
    domain_id: str
    image_id: str
    volume_id: str

    @property
    def ids(self) -> dict[str, str]:
        return {
            "storagepoolID": self.pool_id,
            "storagedomainID": self.domain_id,
            "imageID": self.image_id,
            "volumeID": self.volume_id,
        }

    def disk(self, target: str = "vda") -> vm_xml.Disk:
        return vm_xml.Disk(self.pool_id, self.domain_id, self.image_id, self.volume_id, target)


def posix_connection(image: str = POSIX_IMAGE) -> dict[str, str]:
    return {"id": str(uuid.uuid4()), "connection": image, "vfs_type": "ext4", "mnt_options": "loop"}


def local_connection(folder: str = LOCAL_FOLDER) -> dict[str, str]:
    return {"id": str(uuid.uuid4()), "connection": folder}


async def until(what: str, look: Callable[[], Awaitable[Any]], *, timeout_s: float) -> Any:
    """Ask again and again, as the engine does, until the answer is true; returns it. Raises TimeoutError."""
    limit = time.monotonic() + timeout_s
    while True:
        answer = await look()
        if answer:
            return answer
        if time.monotonic() > limit:
            raise TimeoutError(f"{what}: not so after {timeout_s:g} s")
        await asyncio.sleep(POLL_S)


async def finish_task(client: Client, task_id: str, *, timeout_s: float = STORAGE_S) -> dict[str, Any]:
    """Wait for a task's end and clear it; returns its last status. Raises HostFailed when it did not succeed."""

    async def look() -> Any:
        status = await client.call("Task.getStatus", {"taskID": task_id})
        return status if status["taskState"] in ("finished", "failed", "aborted") else None

    status: dict[str, Any] = await until(f"task {task_id}", look, timeout_s=timeout_s)
    await client.call("Task.clear", {"taskID": task_id})
    if status["taskState"] != "finished" or status["taskResult"] != "success":
        raise HostFailed(f"task {task_id} ended as {status}")
    return status


async def connect_server(client: Client, domain_type: int, connection: dict[str, str], pool_id: str = BLANK) -> None:
    params = {"storagepoolID": pool_id, "domainType": domain_type, "connectionParams": [connection]}
    for answer in await client.call("StoragePool.connectStorageServer", params, timeout_s=STORAGE_S):
        if int(answer["status"]) != 0:
            raise HostFailed(f"connecting {connection['connection']} ended with code {answer['status']}")


async def create_domain(
    client: Client, domain_type: int, connection: dict[str, str], name: str = "data", version: int = 5
) -> str:
    """Connect the storage and make a data domain on it; returns its id."""
    domain_id = str(uuid.uuid4())
    await connect_server(client, domain_type, connection)
    params = {
        "storagedomainID": domain_id,
        "domainType": domain_type,
        "typeArgs": connection["connection"],
        "name": name,
        "domainClass": 1,
        "version": str(version),
    }
    await client.call("StorageDomain.create", params, timeout_s=STORAGE_S)
    return domain_id


async def create_pool(client: Client, domain_id: str, name: str = "pool") -> str:
    pool_id = str(uuid.uuid4())
    params = {
        "storagepoolID": pool_id,
        "name": name,
        "masterSdUUID": domain_id,
        "masterVersion": 1,
        "domainList": [domain_id],
        "lockRenewalIntervalSec": 5,
        "leaseTimeSec": 60,
        "ioOpTimeoutSec": 10,
        "leaseRetries": 3,
    }
    await client.call("StoragePool.create", params, timeout_s=STORAGE_S)
    return pool_id


async def connect_pool(client: Client, pool_id: str, domain_id: str, *, host_id: int = HOST_ID) -> None:
    params = {
        "storagepoolID": pool_id,
        "hostID": host_id,
        "scsiKey": "scsi_key",
        "masterSdUUID": domain_id,
        "masterVersion": 1,
        "domainDict": {domain_id: "active"},
    }
    await client.call("StoragePool.connect", params, timeout_s=STORAGE_S)


async def become_spm(client: Client, pool_id: str, *, timeout_s: float = STORAGE_S) -> None:
    """Elect this host as storage pool manager and wait for the role."""
    status = await client.call("StoragePool.getSpmStatus", {"storagepoolID": pool_id})
    params = {
        "storagepoolID": pool_id,
        "prevID": int(status["spmId"]),
        "prevLver": str(status["spmLver"]),
        "enableScsiFencing": "false",
    }
    task_id = await client.call("StoragePool.spmStart", params, timeout_s=STORAGE_S)
    await finish_task(client, task_id, timeout_s=timeout_s)
    status = await client.call("StoragePool.getSpmStatus", {"storagepoolID": pool_id})
    if status["spmStatus"] != "SPM":
        raise HostFailed(f"spmStart finished, but the host is {status}")


async def new_pool(client: Client, *, domain_type: int = POSIXFS, connection: dict[str, str] | None = None) -> Pool:
    """A domain, a pool on it, this host connected and SPM."""
    connection = connection or (posix_connection() if domain_type == POSIXFS else local_connection())
    domain_id = await create_domain(client, domain_type, connection)
    pool_id = await create_pool(client, domain_id)
    await connect_pool(client, pool_id, domain_id)
    await become_spm(client, pool_id)
    await client.call("StorageDomain.activate", {"storagedomainID": domain_id, "storagepoolID": pool_id})
    return Pool(pool_id, domain_id, domain_type, connection)


async def remove_pool(client: Client, pool: Pool) -> None:
    """Give up the role, leave the pool, disconnect the storage. The domain stays as it is on its storage."""
    await client.call("StoragePool.spmStop", {"storagepoolID": pool.pool_id}, timeout_s=STORAGE_S)
    await disconnect_pool(client, pool)


async def disconnect_pool(client: Client, pool: Pool) -> None:
    params = {"storagepoolID": pool.pool_id, "hostID": HOST_ID, "scsiKey": "scsi_key"}
    await client.call("StoragePool.disconnect", params, timeout_s=STORAGE_S)
    params = {"storagepoolID": pool.pool_id, "domainType": pool.domain_type, "connectionParams": [pool.connection]}
    await client.call("StoragePool.disconnectStorageServer", params, timeout_s=STORAGE_S)


async def create_volume(client: Client, pool: Pool, *, size_bytes: int = 1 << 30, thin: bool = True) -> Volume:
    """A new image of one volume: qcow2 and sparse when thin, else raw and preallocated."""
    volume = Volume(pool.pool_id, pool.domain_id, str(uuid.uuid4()), str(uuid.uuid4()))
    params = {
        **volume.ids,
        "size": str(size_bytes),
        "volFormat": 4 if thin else 5,
        "preallocate": 2 if thin else 1,
        "diskType": "DATA",
        "desc": "lab",
        "srcImgUUID": BLANK,
        "srcVolUUID": BLANK,
    }
    await finish_task(client, await client.call("Volume.create", params))
    return volume


async def delete_image(client: Client, volume: Volume) -> None:
    ids = {key: value for key, value in volume.ids.items() if key != "volumeID"}
    params = {**ids, "postZero": "false", "force": "false"}
    await finish_task(client, await client.call("Image.delete", params))


async def create_vm(client: Client, vm: vm_xml.Vm) -> dict[str, Any]:
    params = {"vmID": vm.vm_id, "vmParams": {"vmId": vm.vm_id, "xml": vm_xml.to_xml(vm)}}
    answer: dict[str, Any] = await client.call("VM.create", params)
    return answer


async def vm_status(client: Client, vm_id: str) -> str:
    """The VM's status as the engine reads it; ``gone`` when the host does not know it."""
    for entry in await client.call("Host.getVMList", {"fullStatus": True}):
        if entry["vmId"] == vm_id:
            return str(entry["status"])
    return "gone"


async def wait_vm(client: Client, vm_id: str, *statuses: str, timeout_s: float = 60) -> str:
    """Wait until the VM has one of the statuses. Raises HostFailed when it goes Down instead."""

    async def look() -> str | None:
        status = await vm_status(client, vm_id)
        if status == "Down" and "Down" not in statuses:
            stats = await client.call("VM.getStats", {"vmID": vm_id})
            raise HostFailed(f"VM {vm_id} went down: {stats}")
        return status if status in statuses else None

    answer: str = await until(f"VM {vm_id} is {' or '.join(statuses)}", look, timeout_s=timeout_s)
    return answer
