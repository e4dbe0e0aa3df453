# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs whose disk is full, fails or hangs, and hosts whose own disk is full: what stops, what goes on, what is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import life_hosts
import pytest
import tiny_guest
from life_flows import (
    check_nothing_left,
    check_nothing_runs,
    code_of,
    destroy_told,
    listening,
    qemu_of,
    start,
    until_settled,
)
from life_hosts import Behave
from tiny_guest import press, until_says
from vm_flows import connect, destroy, domains, records, stats

from contrib.lab import engine
from contrib.lab.faults import file_system_full
from contrib.lab.host import PrivateHost
from vdsm.client import Client, RpcError

STATE = "/var/lib/vdsm"


local_pool_host = life_hosts.host(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "state", STATE])
agent_host, client = life_hosts.agent_host, life_hosts.client
volume, disk = life_hosts.volume, life_hosts.disk


@pytest.mark.cost(4)
async def test_a_guest_that_finds_no_room_stands_until_it_is_continued(
    agent_host: PrivateHost, client: Client, local_pool: engine.Pool, volume: engine.Volume, disk: Behave
) -> None:
    vm = tiny_guest.describe(volume)
    async with listening(client) as told:
        await start(client, vm)
        await until_says(agent_host, vm, "R")
        disk("ENOSPC")
        press(agent_host, vm, "w")
        paused = await told.until(vm, "Paused")
        assert paused["pauseCode"] == "ENOSPC"
        assert paused["ioerror"]["alias"] == f"ua-{volume.image_id}"
        assert paused["ioerror"]["name"] == "vda"
        assert paused["ioerror"]["path"].endswith(f"/{volume.image_id}/{volume.volume_id}")
    agent_host.restart_agent()
    async with agent_host.client() as client:
        await connect(client, local_pool)
        assert (await stats(client, vm.vm_id))["pauseCode"] == "ENOSPC"
        disk("well")
        assert await code_of(client, "VM.cont", vm) == 0
        await until_says(agent_host, vm, "W")
        assert await engine.vm_status(client, vm.vm_id) == "Up"
        await destroy(client, vm.vm_id)
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(5)
@pytest.mark.parametrize(("behaviour", "status"), [("auto_resume", "Up"), ("kill", "Up"), ("leave_paused", "Paused")])
async def test_what_a_vm_does_when_its_storage_is_well_again(
    behaviour: str,
    status: str,
    agent_host: PrivateHost,
    client: Client,
    local_pool: engine.Pool,
    volume: engine.Volume,
    disk: Behave,
) -> None:
    vm = tiny_guest.describe(volume, resume_behaviour=behaviour)
    async with listening(client) as told:
        await start(client, vm)
        await until_says(agent_host, vm, "R")
        disk("EIO")
        press(agent_host, vm, "w")
        paused = await told.until(vm, "Paused")
        assert paused["pauseCode"] in ("EIO", "EOTHER")
        assert paused["ioerror"]["name"] == "vda"
        with domain_gone(agent_host, local_pool):
            await until_valid(client, local_pool, valid=False)
            assert await engine.vm_status(client, vm.vm_id) == "Paused"
        disk("well")
        await until_valid(client, local_pool, valid=True)
        if status == "Up":
            await until_says(agent_host, vm, "W")
        else:
            await asyncio.sleep(0.5)
            assert domains(agent_host)[vm.vm_id] == "paused"
        await until_settled(client, vm, status)
        await destroy_told(client, told, vm)
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(5)
async def test_a_vm_that_somebody_paused_stays_so_when_its_storage_is_well_again(
    agent_host: PrivateHost, client: Client, local_pool: engine.Pool, volume: engine.Volume, disk: Behave
) -> None:
    vm = tiny_guest.describe(volume)
    async with listening(client) as told:
        await start(client, vm)
        await until_says(agent_host, vm, "R")
        disk("EIO")
        press(agent_host, vm, "w")
        await told.until(vm, "Paused")
        assert await code_of(client, "VM.pause", vm) == 0
        assert (await stats(client, vm.vm_id))["pauseCode"] == "NOERR"
        with domain_gone(agent_host, local_pool):
            await until_valid(client, local_pool, valid=False)
        disk("well")
        await until_valid(client, local_pool, valid=True)
        await asyncio.sleep(0.5)
        assert domains(agent_host)[vm.vm_id] == "paused"
        assert await code_of(client, "VM.cont", vm) == 0
        await until_says(agent_host, vm, "W")
        await destroy_told(client, told, vm)


@pytest.mark.cost(6)
async def test_a_full_state_folder_costs_no_vm_its_end(
    agent_host: PrivateHost, client: Client, local_pool: engine.Pool, volume: engine.Volume
) -> None:
    volumes = [volume, *[await tiny_guest.new_volume(agent_host, client, local_pool) for _ in range(3)]]
    ends, destroyed, killed, late = vms = [tiny_guest.describe(each) for each in volumes]
    async with listening(client) as told:
        await asyncio.gather(*(start(client, vm) for vm in vms[:3]))
        await until_says(agent_host, ends, "R")
        with file_system_full(agent_host, STATE):
            with pytest.raises(RpcError, match=r"can't be written.*No space left") as refused:
                await engine.create_vm(client, late)
            assert "Make room in /var/lib/vdsm" in refused.value.advice
            press(agent_host, ends, "o")
            agent_host.run(["kill", "-9", str(qemu_of(agent_host, killed))])
            assert await code_of(client, "VM.destroy", destroyed) == 0
            for vm in (ends, killed):
                await told.until(vm, "Down")
            for vm, each in zip(vms, volumes, strict=True):
                check_nothing_runs(agent_host, vm, each)
            assert await engine.vm_status(client, destroyed.vm_id) == "gone"
            assert await engine.vm_status(client, late.vm_id) == "gone"
        await until_settled(client, ends, "Down")

        async def paid() -> bool:
            return records(agent_host) == sorted([ends.vm_id, killed.vm_id])

        await engine.until("the records are as they should be", paid, timeout_s=15)
        await start(client, late)
        for vm, each in ((ends, volumes[0]), (killed, volumes[2]), (late, volumes[3])):
            await destroy_told(client, told, vm)
            check_nothing_left(agent_host, vm, each)
    assert [told.ends(vm) for vm in vms] == [[(0, 7)], [(0, 6)], [(1, 2)], [(0, 6)]]
    assert records(agent_host) == []


@pytest.mark.cost(4)
async def test_a_disk_that_fails_while_the_state_folder_is_full_is_known_to_the_next_agent(
    agent_host: PrivateHost, client: Client, local_pool: engine.Pool, volume: engine.Volume, disk: Behave
) -> None:
    vm = tiny_guest.describe(volume)
    async with listening(client) as told:
        await start(client, vm)
        await until_says(agent_host, vm, "R")
        with file_system_full(agent_host, STATE):
            disk("ENOSPC")
            press(agent_host, vm, "w")
            assert (await told.until(vm, "Paused"))["pauseCode"] == "ENOSPC"
            agent_host.kill_agent()
        agent_host.start_agent()
    async with agent_host.client() as client:
        assert (await stats(client, vm.vm_id))["pauseCode"] == "ENOSPC"
        await destroy(client, vm.vm_id)
        await connect(client, local_pool)


@contextlib.contextmanager
def domain_gone(host: PrivateHost, pool: engine.Pool) -> Iterator[None]:
    """The domain's own files can't be read: the agent finds it invalid."""
    folder = host.path(pool.connection["connection"]) / pool.domain_id
    (folder / "dom_md").rename(folder / "dom_md.away")
    try:
        yield
    finally:
        (folder / "dom_md.away").rename(folder / "dom_md")


async def until_valid(client: Client, pool: engine.Pool, *, valid: bool) -> None:
    async def look() -> bool:
        told = (await client.call("Host.getStorageRepoStats", {}))[pool.domain_id]
        return bool(told["valid"]) is valid

    await engine.until(f"the domain is {'valid' if valid else 'bad'}", look, timeout_s=30)
