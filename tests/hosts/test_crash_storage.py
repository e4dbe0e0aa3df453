# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage survives kill -9 at every step boundary, and anywhere else.

The process that reaches a crash point dies there. Then, as an engine would, the host is led on: the agent
started if it died, storage and pool connected, the SPM role taken. After that no process of the dead one
lives, no listing shows half a volume, every task is done or undone, and the independent decoder finds
nothing in the domain that should not be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from storage_flows import (
    check_domain,
    clear_all,
    image_params,
    join,
    lead,
    new_id,
    new_volume,
    refused,
    run_task,
    spm_pid,
    until_no_orphans,
    volume_params,
)

import storage.service
import storage.spm.program  # noqa: F401 - declares the crash points of leased processes
from contrib.lab import engine
from contrib.lab.agent_life import AGENT_SOCKET
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost
from contrib.lab.spec import LOCAL_FOLDER
from storage.ondisk.remote_path import mount_name
from tests.decoder import domain as decoder
from tests.soak import SOAK, some
from vdsm.client import Client, ClientError, RpcError
from vdsm.common.crashpoints import REGISTRY

FLOWS = ("volume.", "image.", "task.", "spm.")
POINTS = sorted(name for name in REGISTRY if name.startswith(FLOWS))
MAKING = sorted(name for name in REGISTRY if name.startswith(("domain.create.", "pool.create.")))
# one of each flow, and all where the agent dies; unit tests die at all the others, `make soak` at all of them here
OFTEN = (
    "volume.create.metadata",
    "volume.delete.payload",
    "image.delete.rename",
    "task.undo.stored",
    "task.end.worked",
)
OFTEN += ("spm.start.loaded", "spm.stop.interrupted")
OFTEN += ("spm.start.spawned", "spm.start.told", "spm.stop.asked", "spm.stop.ended")
MADE_OFTEN = ("domain.create.leases", "pool.create.others")
KILLS = 200 if SOAK else 12
LOST = (RpcError, ClientError, HostFailed, TimeoutError, OSError)


def test_there_are_points_at_every_flow() -> None:
    assert len(POINTS) >= 25
    assert {name.rpartition(".")[0] for name in POINTS} >= {
        "volume.create",
        "volume.delete",
        "image.delete",
        "task.start",
        "task.end",
        "spm.start",
        "spm.stop",
    }
    assert {*OFTEN, *MADE_OFTEN} <= {*POINTS, *MAKING}


@contextlib.asynccontextmanager
async def _agent(host: PrivateHost, env: dict[str, str] | None = None) -> AsyncIterator[Client]:
    if host.agent_lives and not host.answers(AGENT_SOCKET):
        host.wait_agent(timeout_s=10)  # killed a moment ago, its end is not known yet
    if env is not None or not host.agent_lives:
        host.restart_agent(env)
    async with host.client() as client:
        yield client


async def _life(client: Client, pool: engine.Pool) -> None:
    """Everything that has crash points, once."""
    await lead(client, pool)
    base, other = new_volume(pool), new_volume(pool)
    leaf, clone = new_volume(pool, base.image_id), new_volume(pool)
    below = {"srcImgUUID": base.image_id, "srcVolUUID": base.volume_id}
    await run_task(client, "Volume.create", volume_params(base, volFormat=5))
    extend = {**base.ids, "newSize": str(16 << 20)}
    await run_task(client, "Volume.extendSize", extend)
    await run_task(client, "Volume.create", volume_params(leaf, size=str(16 << 20), **below))
    await run_task(client, "Volume.delete", {**leaf.ids, "postZero": "false", "force": "false"})
    await run_task(client, "Volume.create", volume_params(other))
    template = {"srcImgUUID": other.image_id, "srcVolUUID": other.volume_id}
    await run_task(client, "Volume.create", volume_params(clone, **template))
    await run_task(client, "Image.delete", image_params(clone))
    await client.call("StoragePool.spmStop", {"storagepoolID": pool.pool_id}, timeout_s=30)


async def _listed(client: Client, pool: engine.Pool) -> dict[str, list[str]]:
    """Images and their volumes as the agent lists them; each listed volume must be a whole one."""
    ids = {"storagedomainID": pool.domain_id, "storagepoolID": pool.pool_id}
    listed = {}
    for image in await client.call("StorageDomain.getImages", {"storagedomainID": pool.domain_id}):
        with refused(268):  # removed meanwhile by a task that a living SPM still runs
            listed[image] = await client.call("StorageDomain.getVolumes", {**ids, "imageID": image})
    for image, volumes in listed.items():
        for volume in volumes:
            with refused(201, 268):
                info = await client.call("Volume.getInfo", {**ids, "imageID": image, "volumeID": volume})
                assert info["status"] in ("OK", "ILLEGAL"), info
                await client.call("Volume.getQemuImageInfo", {**ids, "imageID": image, "volumeID": volume})
    return listed


async def _remove_all(client: Client, pool: engine.Pool) -> None:
    """Delete every image: clones before their templates."""
    left = await client.call("StorageDomain.getImages", {"storagedomainID": pool.domain_id})
    for _ in range(2):
        for image in left:
            with contextlib.suppress(HostFailed):
                await run_task(client, "Image.delete", image_params(new_volume(pool, image)))
        left = await client.call("StorageDomain.getImages", {"storagedomainID": pool.domain_id})
    assert left == []


@pytest.mark.cost(3)
@pytest.mark.parametrize("point", some(POINTS, OFTEN))
async def test_a_crash_is_survived(host: PrivateHost, pool: engine.Pool, point: str) -> None:
    marker = f"/tmp/crash-{new_id()}"
    async with _agent(host, {"VDSM_CRASH_AT": f"{point}:{marker}"}) as client:
        with contextlib.suppress(*LOST):
            await join(client, pool)
            await _life(client, pool)
    assert host.path(marker).exists(), f"{point} was not reached"
    await until_no_orphans(host)
    async with _agent(host) as client:
        await join(client, pool)
        before = await _listed(client, pool)
        await lead(client, pool)
        tasks = await clear_all(client)
        assert all(task["taskResult"] in ("success", "cleanSuccess") for task in tasks.values()), tasks
        after = await _listed(client, pool)
        decoded = check_domain(host, pool)
        assert {image: set(volumes) for image, volumes in decoded.images.items()} == {
            image: set(volumes) for image, volumes in after.items()
        }
        assert after.keys() <= before.keys()
        await _remove_all(client, pool)
        assert check_domain(host, pool).images == {}
        await client.call("StoragePool.spmStop", {"storagepoolID": pool.pool_id}, timeout_s=30)


async def _make_pool(client: Client, kind: int, connection: dict[str, str], domain_id: str) -> None:
    await engine.connect_server(client, kind, connection)
    params = {
        "storagedomainID": domain_id,
        "domainType": kind,
        "typeArgs": connection["connection"],
        "name": "data",
        "domainClass": 1,
        "version": 5,
    }
    if domain_id not in await client.call("Host.getStorageDomains", {}):
        await client.call("StorageDomain.create", params)
    pool_id = await engine.create_pool(client, domain_id)
    await engine.connect_pool(client, pool_id, domain_id)
    await engine.become_spm(client, pool_id)
    await client.call("StoragePool.destroy", {"storagepoolID": pool_id, "hostID": 1, "scsiKey": ""})
    await client.call("StorageDomain.format", {"storagedomainID": domain_id, "autoDetach": False})


def _place(host: PrivateHost, point: str) -> tuple[int, dict[str, str], str]:
    """Kind, connection and folder for a new domain: a local one, the faster kind, where that reaches the point."""
    if point != "domain.create.leases":
        return engine.LOCALFS, engine.local_connection(), LOCAL_FOLDER
    image = f"/srv/second-{new_id()}.img"
    host.run(["truncate", "-s", "1G", image])
    host.run(["mkfs.ext4", "-q", "-E", "root_owner=36:36", image])
    return engine.POSIXFS, engine.posix_connection(image), f"/rhev/data-center/mnt/{mount_name(image)}"


@pytest.mark.cost(6)
@pytest.mark.parametrize("point", some(MAKING, MADE_OFTEN))
async def test_a_half_made_domain_or_pool_can_be_made_again(host: PrivateHost, point: str) -> None:
    """By the same ids, as a person repeats what failed."""
    marker, domain_id = f"/tmp/crash-{new_id()}", new_id()
    kind, connection, folder = _place(host, point)
    async with _agent(host, {"VDSM_CRASH_AT": f"{point}:{marker}"}) as client:
        with contextlib.suppress(*LOST):
            await _make_pool(client, kind, connection, domain_id)
    assert host.path(marker).exists(), f"{point} was not reached"
    await until_no_orphans(host)
    async with _agent(host) as client:
        await engine.connect_server(client, kind, connection)
        for listed in set(await client.call("Host.getStorageDomains", {})) & {domain_id}:
            decoder.decode(host.path(f"{folder}/{listed}"))
        await _make_pool(client, kind, connection, domain_id)
    assert list(host.path(folder).glob("*-*")) == []


async def _load(client: Client, pool: engine.Pool, dice: random.Random) -> None:
    """Create and delete until something breaks: the other side is killed."""
    while True:
        volume = new_volume(pool)
        raw = {"volFormat": 5, "preallocate": dice.choice([1, 2])}
        await run_task(client, "Volume.create", volume_params(volume, **(raw if dice.random() < 0.3 else {})))
        if dice.random() < 0.5:
            child = new_volume(pool, volume.image_id)
            source = {"srcImgUUID": volume.image_id, "srcVolUUID": volume.volume_id}
            await run_task(client, "Volume.create", volume_params(child, **source))
            if dice.random() < 0.5:
                await run_task(client, "Volume.delete", {**child.ids, "postZero": "false", "force": "false"})
        await run_task(client, "Image.delete", image_params(volume))


async def _kill_once(host: PrivateHost, client: Client, pool: engine.Pool, dice: random.Random) -> None:
    workers = [asyncio.ensure_future(_load(client, pool, dice)) for _ in range(3)]
    await asyncio.sleep(dice.uniform(0.0, 0.15))
    if dice.random() < 0.1:
        host.kill_agent()
    else:
        host.run(["kill", "-9", str(spm_pid(host))], check=False)
    for result in await asyncio.gather(*workers, return_exceptions=True):
        assert isinstance(result, LOST), result


async def _led_again(client: Client, pool: engine.Pool) -> None:
    """An engine's patience: the death of an SPM process takes a moment to be seen."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(HostFailed, RpcError):
                await lead(client, pool)
                await client.call("Host.getAllTasksStatuses", {})
                return
            await asyncio.sleep(0.02)


@pytest.mark.cost(12)
@pytest.mark.timeout(400)
async def test_random_kills(host: PrivateHost, pool: engine.Pool) -> None:
    seed = random.randrange(1 << 32)
    dice, killed = random.Random(seed), 0
    print(f"seed {seed}")
    while killed < KILLS:
        async with _agent(host) as client:
            await join(client, pool)
            while host.agent_lives and killed < KILLS:
                await _led_again(client, pool)
                await _kill_once(host, client, pool, dice)
                killed += 1
                await until_no_orphans(host)
                if host.agent_lives and killed % 10 == 0:
                    await _check(host, client, pool)
    async with _agent(host) as client:
        await join(client, pool)
        await _check(host, client, pool)


async def _check(host: PrivateHost, client: Client, pool: engine.Pool) -> None:
    await _listed(client, pool)
    await _led_again(client, pool)
    tasks: dict[str, Any] = await clear_all(client)
    assert all(task["taskResult"] in ("success", "cleanSuccess") for task in tasks.values()), tasks
    decoded = check_domain(host, pool)
    listed = await _listed(client, pool)
    assert {image: set(volumes) for image, volumes in decoded.images.items()} == {
        image: set(volumes) for image, volumes in listed.items()
    }
    await _remove_all(client, pool)
    assert check_domain(host, pool).images == {}
