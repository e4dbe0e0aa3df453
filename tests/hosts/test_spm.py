# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM role under a real sanlock lease: taken, lost, taken over."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
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
    run_task,
    spm_pid,
    until_no_orphans,
    volume_params,
)

from contrib.lab import engine
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost
from storage.ondisk.remote_path import mount_name
from tests.decoder import domain as decoder
from vdsm.client import Client, RpcError

pytestmark = pytest.mark.cost(4)


async def _until(client: Client, pool: engine.Pool, wanted: str) -> dict[str, Any]:
    async def look() -> Any:
        status = await client.call("StoragePool.getSpmStatus", {"storagepoolID": pool.pool_id})
        return status if status["spmStatus"] == wanted else None

    status: dict[str, Any] = await engine.until(f"SPM status {wanted}", look, timeout_s=20)
    return status


@pytest.fixture
async def spm(client: Client, pool: engine.Pool) -> engine.Pool:
    await lead(client, pool)
    return pool


async def test_the_spm_process_alone_is_registered_and_holds_the_lease(
    agent_host: PrivateHost, client: Client, spm: engine.Pool
) -> None:
    told = agent_host.run(["sanlock", "client", "status"]).stdout.decode().splitlines()
    registered = {int(line.split()[1]) for line in told if line.startswith("p ")} - {-1}
    held = [line for line in told if line.startswith("r ") and ":SDM:" in line]
    assert registered == {spm_pid(agent_host)}
    assert len(held) == 1
    assert held[0].endswith(f"p {spm_pid(agent_host)}")
    status = await client.call("StoragePool.getSpmStatus", {"storagepoolID": spm.pool_id})
    assert status["spmId"] == engine.HOST_ID
    assert status["spmLver"] >= 1


async def test_killing_the_spm_process_ends_the_role_only(
    agent_host: PrivateHost, client: Client, spm: engine.Pool
) -> None:
    volume = new_volume(spm)
    await run_task(client, "Volume.create", volume_params(volume))
    agent = agent_host.agent_pid
    agent_host.run(["kill", "-9", str(spm_pid(agent_host))])
    assert (await _until(client, spm, "Free"))["spmId"] in (-1, engine.HOST_ID)
    assert agent_host.agent_lives
    assert agent_host.agent_pid == agent
    assert (await client.call("Volume.getInfo", volume.ids))["status"] == "OK"
    with pytest.raises(RpcError) as caught:
        await client.call("Host.getAllTasksStatuses", {})
    assert caught.value.code == 654
    await until_no_orphans(agent_host)
    await lead(client, spm)
    await run_task(client, "Image.delete", image_params(volume))


async def test_a_lease_taken_away_ends_the_role_only(agent_host: PrivateHost, client: Client, spm: engine.Pool) -> None:
    """As when sanlock gives the lease up behind our back: the watchdog of the SPM process notices."""
    pid = spm_pid(agent_host)
    resource = f"{spm.domain_id}:SDM:/rhev/data-center/mnt/_srv_posixfs.img/{spm.domain_id}/dom_md/leases:1048576"
    agent_host.run(["sanlock", "client", "release", "-p", str(pid), "-r", resource])
    await _until(client, spm, "Free")
    assert await client.call("Host.ping2") is True
    assert spm_pid(agent_host) == 0
    await lead(client, spm)


async def test_a_stopped_spm_gives_the_lease_back(agent_host: PrivateHost, client: Client, spm: engine.Pool) -> None:
    await client.call("StoragePool.spmStop", {"storagepoolID": spm.pool_id})
    status = await client.call("StoragePool.getSpmStatus", {"storagepoolID": spm.pool_id})
    assert status == {"spmStatus": "Free", "spmLver": -1, "spmId": -1}
    assert ":SDM:" not in agent_host.run(["sanlock", "client", "status"]).stdout.decode()
    await until_no_orphans(agent_host)


async def test_tasks_of_a_stopped_spm_are_told_by_the_next(client: Client, spm: engine.Pool) -> None:
    volume = new_volume(spm)
    task_id = await client.call("Volume.create", volume_params(volume))
    await engine.until("task ends", lambda: _ended(client, task_id), timeout_s=20)
    await client.call("StoragePool.spmStop", {"storagepoolID": spm.pool_id})
    await lead(client, spm)
    tasks = await client.call("Host.getAllTasksInfo", {})
    assert tasks == {task_id: {"id": task_id, "verb": "createVolume"}}
    assert (await clear_all(client))[task_id]["taskResult"] == "success"
    await run_task(client, "Image.delete", image_params(volume))


async def _ended(client: Client, task_id: str) -> bool:
    return bool((await client.call("Task.getStatus", {"taskID": task_id}))["taskState"] == "finished")


async def test_a_terminated_agent_gives_the_role_back(
    agent_host: PrivateHost, client: Client, spm: engine.Pool
) -> None:
    assert agent_host.kill_agent(signal.SIGTERM) == 0
    assert ":SDM:" not in agent_host.run(["sanlock", "client", "status"]).stdout.decode()
    await until_no_orphans(agent_host)
    check_domain(agent_host, spm)


async def _second(
    host: PrivateHost, client: Client, pool: engine.Pool, version: int = 5
) -> tuple[dict[str, str], dict[str, Any]]:
    """An active domain beside the master, its host id held: the ids of both, and what disconnects its storage."""
    if not await client.call("Host.getConnectedStoragePools"):
        await join(client, pool)
    await lead(client, pool)
    image = f"/srv/second-{new_id()}.img"
    host.run(["truncate", "-s", "1G", image])
    host.run(["mkfs.ext4", "-q", "-E", "root_owner=36:36", image])
    connection = engine.posix_connection(image)
    second = await engine.create_domain(client, engine.POSIXFS, connection, "second", version=version)
    path = host.path(f"/rhev/data-center/mnt/{mount_name(image)}/{second}")
    assert decoder.decode(path).fields["VERSION"] == str(version)
    ids = {"storagedomainID": second, "storagepoolID": pool.pool_id}
    await client.call("StorageDomain.attach", ids, timeout_s=60)
    assert (await client.call("StorageDomain.getInfo", {"storagedomainID": second}))["pool"] == [pool.pool_id]
    await client.call("StorageDomain.activate", ids)
    assert decoder.decode(path).fields["VERSION"] == "5"

    async def acquired() -> bool:
        return bool((await client.call("Host.getStorageRepoStats")).get(second, {}).get("acquired"))

    await engine.until("the domain's host id", acquired, timeout_s=30)
    return ids, {"storagepoolID": engine.BLANK, "domainType": engine.POSIXFS, "connectionParams": [connection]}


async def _remove(host: PrivateHost, client: Client, ids: dict[str, str], server: dict[str, Any]) -> None:
    await client.call("StorageDomain.detach", {**ids, "masterSdUUID": engine.BLANK, "masterVersion": 0, "force": False})
    assert ids["storagedomainID"] not in host.run(["sanlock", "client", "status"]).stdout.decode()
    await client.call("StorageDomain.format", {"storagedomainID": ids["storagedomainID"], "autoDetach": False})
    assert [a["status"] for a in await client.call("StoragePool.disconnectStorageServer", server)] == [0]


async def test_a_second_domain_of_an_old_version_comes_and_goes(
    agent_host: PrivateHost, client: Client, pool: engine.Pool
) -> None:
    ids, server = await _second(agent_host, client, pool, version=3)
    with pytest.raises(RpcError) as caught:
        await client.call("StorageDomain.detach", ids)
    assert caught.value.code == 347
    await client.call("StorageDomain.deactivate", {**ids, "masterSdUUID": engine.BLANK, "masterVersion": 0})
    await _remove(agent_host, client, ids, server)


async def test_the_masters_role_goes_with_its_lease_and_comes_back(
    agent_host: PrivateHost, client: Client, pool: engine.Pool
) -> None:
    ids, server = await _second(agent_host, client, pool)
    second = ids["storagedomainID"]
    moving = {"storagepoolID": pool.pool_id, "oldMasterUUID": pool.domain_id, "newMasterUUID": second}
    await run_task(client, "StoragePool.switchMaster", {**moving, "masterVersion": 2})
    told = agent_host.run(["sanlock", "client", "status"]).stdout.decode().splitlines()
    assert [line.split()[1].partition(":")[0] for line in told if line.startswith("r ") and ":SDM:" in line] == [second]
    assert (await client.call("StoragePool.getInfo", {"storagepoolID": pool.pool_id}))["info"]["master_uuid"] == second

    volume = new_volume(pool)
    await run_task(client, "Volume.create", volume_params(volume))
    agent_host.run(["kill", "-9", str(spm_pid(agent_host))])
    await _until(client, pool, "Free")
    await engine.become_spm(client, pool.pool_id)
    await run_task(client, "Image.delete", image_params(volume))

    back = {**ids, "masterSdUUID": pool.domain_id, "masterVersion": 3}
    await client.call("StorageDomain.deactivate", back, timeout_s=60)
    await _remove(agent_host, client, ids, server)
    check_domain(agent_host, pool)


@pytest.mark.timeout(180)
async def test_another_host_takes_over_and_undoes_what_was_left(tmp_path: Path) -> None:
    image = tmp_path / "pool.img"
    subprocess.check_call(["truncate", "-s", "2G", str(image)])
    subprocess.check_call(["mkfs.ext4", "-q", "-E", "root_owner=36:36", str(image)])
    shared = {"/srv/shared": str(tmp_path)}
    connection = engine.posix_connection("/srv/shared/pool.img")
    with PrivateHost(shared=shared) as first, PrivateHost(shared=shared) as second:
        first.start_agent({"VDSM_CRASH_AT": "volume.create.payload"})
        second.start_agent()
        async with first.client() as one, second.client() as other:
            pool = await engine.new_pool(one, connection=connection)
            await engine.connect_server(other, engine.POSIXFS, connection)
            await engine.connect_pool(other, pool.pool_id, pool.domain_id, host_id=2)
            with pytest.raises(HostFailed, match="651"):
                await engine.become_spm(other, pool.pool_id)
            status = await other.call("StoragePool.getSpmStatus", {"storagepoolID": pool.pool_id})
            assert (status["spmStatus"], status["spmId"]) == ("Free", engine.HOST_ID)
            volume = new_volume(pool)
            task_id = await one.call("Volume.create", volume_params(volume))
            await _until(one, pool, "Free")
            await lead(other, pool)
            assert (await clear_all(other))[task_id]["taskResult"] == "cleanSuccess"
            assert await other.call("StorageDomain.getImages", {"storagedomainID": pool.domain_id}) == []
            await run_task(other, "Volume.create", volume_params(volume))
            listed = await one.call("StorageDomain.getImages", {"storagedomainID": pool.domain_id})
            assert listed == [volume.image_id]
