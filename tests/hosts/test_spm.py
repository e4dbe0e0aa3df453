# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM role under a real sanlock lease: taken, lost, taken over."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from storage_flows import (
    check_domain,
    clear_all,
    image_params,
    lead,
    new_volume,
    run_task,
    spm_pid,
    until_no_orphans,
    volume_params,
)

from contrib.lab import engine
from contrib.lab.host import PrivateHost
from vdsm.client import Client, RpcError


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
