# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs on a real libvirt and QEMU, driven by JSON-RPC, seen in libvirt, on the serial console and in events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from vm_flows import describe, destroy, domains, is_prepared, records, settled, stats

from contrib.lab import engine, vm_xml
from contrib.lab.guest import Guest
from contrib.lab.host import PrivateHost
from vdsm.client import Client, RpcError

HOOKS = "/usr/libexec/vdsm/hooks"


@pytest.fixture
async def volume(client: Client, local_pool_host: PrivateHost, local_pool: engine.Pool) -> engine.Volume:
    return await engine.create_volume(client, local_pool, size_bytes=64 << 20)


@pytest.fixture
def agent_host(local_pool_host: PrivateHost) -> PrivateHost:
    """VMs here live on the local pool: no lockspace to wait for."""
    return local_pool_host


@pytest.fixture
async def client(agent_host: PrivateHost, local_pool: engine.Pool) -> AsyncIterator[Client]:
    async with agent_host.client() as client:
        yield client


async def _down_events(client: Client, vm_id: str, into: list[dict[str, Any]]) -> None:
    async for notice in client.events():
        told = notice.params.get(vm_id)
        if told and told["status"] == "Down":
            into.append(told)


async def _serial_says(host: PrivateHost, vm: vm_xml.Vm, word: str) -> None:
    async def look() -> bool:
        path = host.path(vm.serial_log)
        return path.exists() and word in path.read_text(errors="replace")

    await engine.until(f"serial console says {word}", look, timeout_s=30)


@pytest.mark.cost(12)
async def test_a_guest_boots_pauses_and_ends_by_the_power_button(
    agent_host: PrivateHost, client: Client, volume: engine.Volume, guest: Guest
) -> None:
    vm = describe(volume, guest)
    downs: list[dict[str, Any]] = []
    listening = asyncio.create_task(_down_events(client, vm.vm_id, downs))
    answer = await engine.create_vm(client, vm)
    assert answer["status"] == "WaitForLaunch"
    assert await settled(client, vm.vm_id) == "Up"
    assert is_prepared(agent_host, volume)
    await _serial_says(agent_host, vm, f"kernel command line says {vm.vm_id[:8]}")
    await client.call("VM.pause", {"vmID": vm.vm_id})
    assert domains(agent_host)[vm.vm_id] == "paused"
    assert (await stats(client, vm.vm_id))["pauseCode"] == "NOERR"
    assert isinstance(await client.call("VM.cont", {"vmID": vm.vm_id}), dict)
    assert domains(agent_host)[vm.vm_id] == "running"
    await asyncio.sleep(1)  # the guest's power button driver comes after its first words
    await client.call("VM.shutdown", {"vmID": vm.vm_id, "delay": "0", "timeout": "20"})
    assert await settled(client, vm.vm_id, 30) == "Down"
    told = await stats(client, vm.vm_id)
    assert (told["exitCode"], told["exitReason"]) == (0, 6)
    assert vm.vm_id not in domains(agent_host)
    assert not is_prepared(agent_host, volume)
    await destroy(client, vm.vm_id)
    assert records(agent_host) == []
    listening.cancel()
    assert len(downs) == 1


@pytest.mark.cost(4)
async def test_qemu_is_unprivileged_and_the_xml_is_this_hosts(
    agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = describe(volume)
    await engine.create_vm(client, vm)
    assert await settled(client, vm.vm_id) == "Up"
    users = agent_host.run(["ps", "-o", "user=", "-C", "qemu-system-x86_64"]).stdout.decode().split()
    assert users
    assert "root" not in users
    xml = (await client.call("Host.dumpxmls", {"vmList": [vm.vm_id]}))[vm.vm_id]
    for word in ("OS-NAME:", "OS-VERSION:", "HOST-SERIAL:"):
        assert word not in xml
    assert f"/{volume.image_id}/{volume.volume_id}" in xml
    assert "type='qcow2'" in xml
    assert agent_host.spec.host_id in xml
    await destroy(client, vm.vm_id)


@pytest.mark.cost(4)
async def test_a_guest_killed_from_outside_is_down_with_an_error_once(
    agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = describe(volume)
    downs: list[dict[str, Any]] = []
    listening = asyncio.create_task(_down_events(client, vm.vm_id, downs))
    await engine.create_vm(client, vm)
    assert await settled(client, vm.vm_id) == "Up"
    agent_host.run(["pkill", "-9", "-f", f"guest={vm.name}"])
    assert await settled(client, vm.vm_id) == "Down" or await engine.wait_vm(client, vm.vm_id, "Down") == "Down"
    assert not is_prepared(agent_host, volume)
    await destroy(client, vm.vm_id)
    listening.cancel()
    assert [(told["exitCode"], told["exitReason"]) for told in downs] == [(1, 2)]


@pytest.mark.cost(3)
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\necho no such colour >&2\nexit 2\n", ["50_bad", "2", "no such colour"]),
        ('#!/bin/sh\necho "<domain" > "$_hook_domxml"\n', ["XML"]),
    ],
)
async def test_a_bad_hook_is_the_one_down_event_and_leaves_nothing(
    script: str, words: list[str], agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = describe(volume)
    path = f"{HOOKS}/before_vm_start/50_bad"
    agent_host.run(["install", "-D", "-m", "755", "/dev/stdin", path], stdin=script.encode())
    downs: list[dict[str, Any]] = []
    listening = asyncio.create_task(_down_events(client, vm.vm_id, downs))
    try:
        await engine.create_vm(client, vm)
        assert await engine.wait_vm(client, vm.vm_id, "Down") == "Down"
    finally:
        agent_host.run(["rm", path])
    message = (await stats(client, vm.vm_id))["exitMessage"]
    assert all(word in message for word in words), message
    assert vm.vm_id not in domains(agent_host)
    assert not is_prepared(agent_host, volume)
    await destroy(client, vm.vm_id)
    listening.cancel()
    assert len(downs) == 1


@pytest.mark.cost(3)
async def test_statistics_have_the_fields_types(agent_host: PrivateHost, client: Client, volume: engine.Volume) -> None:
    vm = describe(volume)
    await engine.create_vm(client, vm)
    assert await settled(client, vm.vm_id) == "Up"

    async def sampled() -> bool:
        return "vda" in (await stats(client, vm.vm_id)).get("disks", {})

    await engine.until("a first sample", sampled, timeout_s=10)
    told = (await client.call("Host.getAllVmStats"))[0]
    for key in ("vmId", "status", "statusTime", "hash", "elapsedTime", "monitorResponse", "cpuUser", "cpuUsage"):
        assert isinstance(told[key], str), key
    disk = told["disks"]["vda"]
    assert disk["imageID"] == volume.image_id
    assert all(isinstance(value, str) for value in disk.values())
    assert int(disk["apparentsize"]) > 0
    json.dumps(told)
    listed = await client.call("Host.getVMList", {"vmList": [vm.vm_id]})
    assert [sorted(entry) for entry in listed] == [["status", "statusTime", "vmId"]]
    await destroy(client, vm.vm_id)


@pytest.mark.cost(2)
@pytest.mark.parametrize(
    ("method", "params", "named"),
    [
        ("VM.create", {"vmID": "../../x", "vmParams": {"xml": "<domain/>"}}, "vmID"),
        ("VM.create", {"vmID": "11111111-1111-4111-8111-111111111111", "vmParams": {"xml": "<domain"}}, "xml"),
        ("VM.create", {"vmID": "11111111-1111-4111-8111-111111111111", "vmParams": {}}, "xml"),
        ("VM.create", {"vmID": "11111111-1111-4111-8111-111111111111", "vmParams": {"xml": "x" * (10 << 20)}}, "xml"),
        ("VM.shutdown", {"vmID": "11111111-1111-4111-8111-111111111111", "force": "perhaps"}, "force"),
        ("VM.destroy", {}, "vmID"),
        ("VM.pause", {"vmID": 7}, "vmID"),
    ],
)
async def test_wrong_input_names_the_parameter(
    method: str, params: dict[str, Any], named: str, agent_host: PrivateHost, client: Client
) -> None:
    before = records(agent_host)
    with pytest.raises(RpcError) as caught:
        await client.call(method, params)
    assert named in str(caught.value)
    assert records(agent_host) == before


async def test_an_unknown_vm_is_code_1(client: Client) -> None:
    with pytest.raises(RpcError) as caught:
        await client.call("VM.getStats", {"vmID": "11111111-1111-4111-8111-111111111111"})
    assert caught.value.code == 1


CALLING = """#!{python}
import json, os, socket, sys, time

def call(method, params):
    body = json.dumps({{"jsonrpc": "2.0", "id": 1, "method": method, "params": params}}).encode()
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect("/run/vdsm/vdsm.sock")
        head = "POST /jsonrpc HTTP/1.0\\r\\nContent-Type: application/json\\r\\nContent-Length: "
        s.sendall(f"{{head}}{{len(body)}}\\r\\n\\r\\n".encode() + body)
        answer = b""
        while part := s.recv(65536):
            answer += part
    return answer.decode().partition("\\r\\n\\r\\n")[2]

start = time.monotonic()
told = [call(m, {{"vmID": os.environ["vmId"]}}) for m in ("VM.getStats", "VM.cont")]
with open("/var/log/vdsm/calls-" + os.environ["vmId"], "w") as f:
    json.dump([time.monotonic() - start, *told], f)
"""


@pytest.mark.cost(4)
@pytest.mark.parametrize("point", ["before_vm_cont", "after_vm_start"])
async def test_a_hook_that_calls_about_its_own_vm_ends_within_a_second(
    point: str, agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = describe(volume)
    path = f"{HOOKS}/{point}/50_calling"
    script = CALLING.format(python="/usr/bin/python3").encode()
    agent_host.run(["install", "-D", "-m", "755", "/dev/stdin", path], stdin=script)
    try:
        await engine.create_vm(client, vm)
        assert await settled(client, vm.vm_id) == "Up"
        if point == "before_vm_cont":
            await client.call("VM.pause", {"vmID": vm.vm_id})
            await client.call("VM.cont", {"vmID": vm.vm_id})
            assert domains(agent_host)[vm.vm_id] == "running"
        left = agent_host.path(f"/var/log/vdsm/calls-{vm.vm_id}")

        async def written() -> bool:
            return left.exists() and left.stat().st_size > 0

        await engine.until("the hook called", written, timeout_s=10)
        seconds, seen, resumed = json.loads(left.read_text())
    finally:
        agent_host.run(["rm", path])
    assert seconds < 1
    assert json.loads(seen)["result"][0]["vmId"] == vm.vm_id
    if point == "before_vm_cont":  # what it waits for itself is refused, not waited for
        assert json.loads(resumed)["error"]["code"] == 16
    else:
        assert json.loads(resumed)["result"] == {"vmList": {}}
    await destroy(client, vm.vm_id)
