# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent is killed, or libvirtd is: guests run on, and everything is found again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
from vm_flows import connect, describe, destroy, domains, is_prepared, settled, stats

from contrib.lab import engine, vm_xml
from contrib.lab.host import PrivateHost
from vdsm.client.errors import RpcError

FOREIGN = """<domain type='{kind}'><name>foreign</name><memory unit='MiB'>32</memory>
<os><type machine='q35'>hvm</type></os><devices/></domain>"""


@pytest.fixture
def agent_host(local_pool_host: PrivateHost) -> PrivateHost:
    return local_pool_host


@pytest.fixture
async def volume(agent_host: PrivateHost, local_pool: engine.Pool) -> engine.Volume:
    async with agent_host.client() as client:
        await connect(client, local_pool)
        await engine.become_spm(client, local_pool.pool_id)
        return await engine.create_volume(client, local_pool, size_bytes=64 << 20)


@pytest.fixture
async def vm(agent_host: PrivateHost, volume: engine.Volume) -> AsyncIterator[vm_xml.Vm]:
    vm = describe(volume)
    async with agent_host.client() as client:
        await engine.create_vm(client, vm)
        assert await settled(client, vm.vm_id) == "Up"
    yield vm
    async with agent_host.client() as client:
        if await engine.vm_status(client, vm.vm_id) != "gone":
            await destroy(client, vm.vm_id)
    assert vm.vm_id not in domains(agent_host)


@pytest.mark.cost(5)
async def test_a_running_vm_does_not_notice_the_agents_death(
    agent_host: PrivateHost, vm: vm_xml.Vm, volume: engine.Volume
) -> None:
    pid = agent_host.path(f"/run/libvirt/qemu/{vm.name}.pid").read_text()
    agent_host.restart_agent()
    assert agent_host.path(f"/run/libvirt/qemu/{vm.name}.pid").read_text() == pid
    async with agent_host.client() as client:
        assert await settled(client, vm.vm_id) == "Up"
        assert is_prepared(agent_host, volume)
        await client.call("VM.pause", {"vmID": vm.vm_id})
        await client.call("VM.cont", {"vmID": vm.vm_id})
        assert domains(agent_host)[vm.vm_id] == "running"


@pytest.mark.cost(10)
@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        ("kill -9 $(cat /run/libvirt/qemu/{vm.name}.pid); until virsh domstate {vm.name} | grep off; do :; done", 1, 2),
        ("virsh destroy {vm.vm_id}", 0, 6),
    ],
    ids=["killed", "destroyed"],
)
async def test_a_vm_that_ended_meanwhile_is_down_with_a_reason(
    agent_host: PrivateHost, vm: vm_xml.Vm, volume: engine.Volume, end: str, code: int, reason: int
) -> None:
    agent_host.kill_agent()
    agent_host.run(["sh", "-c", end.format(vm=vm)])
    agent_host.start_agent()
    async with agent_host.client() as client:
        assert await settled(client, vm.vm_id) == "Down"
        told = await stats(client, vm.vm_id)
    assert (told["exitCode"], told["exitReason"]) == (code, reason)
    assert told["exitMessage"]
    assert not is_prepared(agent_host, volume)


@pytest.mark.cost(5)
async def test_a_foreign_domain_is_shown_and_left_alone(agent_host: PrivateHost, vm: vm_xml.Vm) -> None:
    xml = FOREIGN.format(kind=vm_xml.domain_type())
    agent_host.run(["virsh", "create", "/dev/stdin"], stdin=xml.encode())
    foreign = agent_host.run(["virsh", "domuuid", "foreign"]).stdout.decode().strip()
    try:
        before = agent_host.run(["virsh", "dumpxml", foreign]).stdout
        agent_host.restart_agent()
        async with agent_host.client() as client:
            assert await settled(client, vm.vm_id) == "Up"
            assert await engine.vm_status(client, foreign) == "Up"
            with pytest.raises(RpcError, match="not the agent's"):
                await client.call("VM.destroy", {"vmID": foreign})
        assert agent_host.run(["virsh", "dumpxml", foreign]).stdout == before
    finally:
        agent_host.run(["virsh", "destroy", foreign])


@pytest.mark.cost(8)
async def test_vms_outlive_libvirtd_and_are_seen_again(agent_host: PrivateHost, vm: vm_xml.Vm) -> None:
    agent_host.run(["pkill", "-9", "-x", "libvirtd"])
    agent_host.start_process(["libvirtd", "--listen"], log="/var/log/libvirtd-again.log")
    async with agent_host.client() as client:
        # one that met the old connection's end says so; the next waits for a connection within its own deadline
        with contextlib.suppress(RpcError):
            await client.call("VM.pause", {"vmID": vm.vm_id}, timeout_s=30)
        await client.call("VM.pause", {"vmID": vm.vm_id}, timeout_s=30)
        assert domains(agent_host)[vm.vm_id] == "paused"
        assert await settled(client, vm.vm_id) == "Paused"
