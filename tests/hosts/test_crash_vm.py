# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs survive kill -9 of the agent at every step boundary of create and destroy, and anywhere else.

After each death and restart there is one truth: a VM is Up and in libvirt with its image prepared, or Down (or
gone) with neither; and it can be destroyed, which leaves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from life_flows import check_no_half_file, listening
from vm_flows import connect, describe, destroy, domains, is_prepared, records, settled, stats

import vdsm.virt.vms  # noqa: F401 - declares the crash points
from contrib.lab import engine
from contrib.lab.host import PrivateHost
from tests.soak import SOAK
from vdsm.client import ClientError, RpcError
from vdsm.common.crashpoints import REGISTRY

CREATE = sorted(name for name in REGISTRY if name.startswith("vm.create."))
DESTROY = sorted(name for name in REGISTRY if name.startswith("vm.destroy."))
RUNS_AFTER = {"vm.create.launched", "vm.create.running"}
KILLS = 100 if SOAK else 4
LOST = (RpcError, ClientError, OSError, TimeoutError)


def test_every_vm_point_is_of_create_or_destroy() -> None:
    assert {name for name in REGISTRY if name.startswith("vm.")} == {*CREATE, *DESTROY}
    assert len(CREATE) >= 7
    assert len(DESTROY) >= 5


@pytest.fixture
async def volume(agent_host: PrivateHost, pool: engine.Pool) -> engine.Volume:
    async with agent_host.client() as client:
        await connect(client, pool)
        await engine.become_spm(client, pool.pool_id)
        return await engine.create_volume(client, pool, size_bytes=64 << 20)


def check_one_truth(host: PrivateHost, status: str, vm_id: str, volume: engine.Volume) -> None:
    if status in ("Up", "Paused"):
        assert domains(host).get(vm_id) in ("running", "paused")
        assert is_prepared(host, volume)
    else:
        assert vm_id not in domains(host)
        assert not is_prepared(host, volume)


async def check_end(host: PrivateHost, vm_id: str, volume: engine.Volume) -> None:
    async with host.client() as client:
        if await engine.vm_status(client, vm_id) != "gone":
            await destroy(client, vm_id)
        assert await engine.vm_status(client, vm_id) == "gone"
    assert vm_id not in domains(host)
    assert not is_prepared(host, volume)
    assert vm_id not in records(host)
    assert not host.path(f"/run/vdsm/{vm_id}").exists()
    check_no_half_file(host)


@pytest.mark.cost(4)
@pytest.mark.parametrize("point", CREATE)
async def test_death_in_create(point: str, agent_host: PrivateHost, pool: engine.Pool, volume: engine.Volume) -> None:
    host = agent_host
    host.restart_agent({"VDSM_CRASH_AT": point})
    vm = describe(volume)
    async with host.client() as client, listening(client) as told:
        await connect(client, pool)
        with contextlib.suppress(*LOST):
            await engine.create_vm(client, vm)
        assert host.wait_agent(timeout_s=30) == -9
        host.start_agent()
        async with host.client() as again:
            status = await settled(again, vm.vm_id)
            assert status == ("Up" if point in RUNS_AFTER else "Down")
            if status == "Down":
                now = await stats(again, vm.vm_id)
                assert now["exitCode"] == 1
                assert "ended while it was starting" in now["exitMessage"]
    assert len(told.ends(vm)) <= 1, "nobody listens yet when the next agent tells it, but it tells it once"
    check_one_truth(host, status, vm.vm_id, volume)
    await check_end(host, vm.vm_id, volume)


@pytest.mark.cost(4)
@pytest.mark.parametrize("point", DESTROY)
async def test_death_in_destroy(point: str, agent_host: PrivateHost, pool: engine.Pool, volume: engine.Volume) -> None:
    host = agent_host
    host.restart_agent({"VDSM_CRASH_AT": point})
    vm = describe(volume)
    async with host.client() as client, listening(client) as told:
        await connect(client, pool)
        await engine.create_vm(client, vm)
        assert await settled(client, vm.vm_id) == "Up"
        with contextlib.suppress(*LOST):
            await destroy(client, vm.vm_id)
        assert host.wait_agent(timeout_s=30) == -9
        host.start_agent()

        async def gone() -> bool:
            async with host.client() as again:
                return await engine.vm_status(again, vm.vm_id) == "gone"

        await engine.until("the destroy is finished by the next agent", gone, timeout_s=30)
    assert told.ends(vm) in ([], [(0, 6)])
    check_one_truth(host, "gone", vm.vm_id, volume)
    await check_end(host, vm.vm_id, volume)


@pytest.mark.cost(8)
@pytest.mark.timeout(600)
async def test_death_anywhere(agent_host: PrivateHost, pool: engine.Pool, volume: engine.Volume) -> None:
    host = agent_host
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(KILLS):
        vm = describe(volume)

        async def life(vm_id: str = vm.vm_id, vm: object = vm) -> None:
            async with host.client() as client:
                await connect(client, pool)
                await engine.create_vm(client, vm)  # type: ignore[arg-type]
                await settled(client, vm_id)
                await destroy(client, vm_id)

        task = asyncio.create_task(life())
        await asyncio.sleep(chance.uniform(0.05, 1.2))
        host.kill_agent()
        with contextlib.suppress(*LOST):
            await task
        host.start_agent()
        async with host.client() as client:
            status = await settled(client, vm.vm_id)
        check_one_truth(host, status, vm.vm_id, volume)
        await check_end(host, vm.vm_id, volume)
