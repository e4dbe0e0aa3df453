# SPDX-License-Identifier: GPL-2.0-or-later
"""What the storage tests do with a host again and again: the engine's part around kills."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from pathlib import Path
from typing import Any

from contrib.lab import engine
from contrib.lab.host import PrivateHost
from tests.decoder import domain as decoder
from vdsm.client import Client, RpcError

POSIX_MOUNT = "/rhev/data-center/mnt/_srv_posixfs.img"
LEFT_OVER = re.compile(rb"storage\.spm|iohelper|qemu-img")


def new_id() -> str:
    return str(uuid.uuid4())


def domain_path(host: PrivateHost, pool: engine.Pool) -> Path:
    return host.path(f"{POSIX_MOUNT}/{pool.domain_id}")


async def join(client: Client, pool: engine.Pool) -> None:
    """What an engine does with a restarted agent: connect the storage and the pool."""
    await engine.connect_server(client, pool.domain_type, pool.connection, pool.pool_id)
    await engine.connect_pool(client, pool.pool_id, pool.domain_id)


async def lead(client: Client, pool: engine.Pool) -> None:
    """Until this host is SPM; a start that is under way is waited for."""
    status = await client.call("StoragePool.getSpmStatus", {"storagepoolID": pool.pool_id})
    if status["spmStatus"] != "SPM":
        await engine.become_spm(client, pool.pool_id)


async def clear_all(client: Client) -> dict[str, Any]:
    """Wait for the end of all tasks of the pool and clear them; their last states by verb and id."""

    async def ended() -> Any:
        tasks = await client.call("Host.getAllTasksStatuses", {})
        return (tasks or {"none": {}}) if all(t["taskState"] == "finished" for t in tasks.values()) else None

    tasks = await engine.until("tasks have ended", ended, timeout_s=30)
    tasks.pop("none", None)
    for task_id in tasks:
        await client.call("Task.clear", {"taskID": task_id})
    return dict(tasks)


def volume_params(volume: engine.Volume, **changes: Any) -> dict[str, Any]:
    return {
        **volume.ids,
        "size": str(8 << 20),
        "volFormat": 4,
        "preallocate": 2,
        "diskType": "DATA",
        "desc": "",
        "srcImgUUID": engine.BLANK,
        "srcVolUUID": engine.BLANK,
        **changes,
    }


async def run_task(client: Client, verb: str, params: dict[str, Any]) -> dict[str, Any]:
    return await engine.finish_task(client, await client.call(verb, params))


def new_volume(pool: engine.Pool, image: str = "") -> engine.Volume:
    return engine.Volume(pool.pool_id, pool.domain_id, image or new_id(), new_id())


def image_params(volume: engine.Volume) -> dict[str, Any]:
    ids = {key: value for key, value in volume.ids.items() if key != "volumeID"}
    return {**ids, "postZero": "false", "force": "false"}


def spm_pid(host: PrivateHost) -> int:
    """The SPM process by its number inside the host; 0 when there is none."""
    found = host.run(["pgrep", "-f", "storage.spm"], check=False).stdout.split()
    return int(found[0]) if found else 0


def children_of_nobody(host: PrivateHost) -> list[bytes]:
    """Processes of storage whose parent is the host's init: what a killed agent or SPM process left behind."""
    told = host.run(["ps", "-eo", "ppid=,pid=,stat=,args="]).stdout.splitlines()
    return [
        line
        for line in told
        if LEFT_OVER.search(line) and line.split()[0] == b"1" and not line.split()[2].startswith(b"Z")
    ]


async def until_no_orphans(host: PrivateHost) -> None:
    for _ in range(100):
        if not children_of_nobody(host):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"left behind: {children_of_nobody(host)}")


def check_domain(host: PrivateHost, pool: engine.Pool) -> Any:
    """The independent decoder's word: no unknown file, no half volume, no task that still runs."""
    decoded = decoder.decode(domain_path(host, pool))
    leftovers = sorted(path.name for path in (domain_path(host, pool) / "master" / "tasks").iterdir())
    assert leftovers == [], leftovers
    return decoded


@contextlib.contextmanager
def refused(*codes: int) -> Any:
    try:
        yield
    except RpcError as e:
        if e.code not in codes:
            raise
