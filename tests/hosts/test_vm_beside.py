# SPDX-License-Identifier: GPL-2.0-or-later
"""What else has to do with VMs: scripts that call back about their own VM, and domains that are not the agent's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import tiny_guest
from life_flows import check_nothing_left, code_of, destroy_told, listening, lives, start
from storage_flows import join, lead
from vm_flows import domains, stats

from contrib.lab import engine, vm_xml
from contrib.lab.faults import killed
from contrib.lab.host import PrivateHost
from tests.failure_logs import watched
from vdsm.client import Client, RpcError

HOOKS = "/usr/libexec/vdsm/hooks"
FOREIGN = """<domain type='{kind}'><name>foreign</name><memory unit='MiB'>32</memory>
<os><type machine='q35'>hvm</type></os><devices/></domain>"""
CALLS = """#!/usr/bin/python3
import json, os, socket, time

def call(method):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"vmID": os.environ["vmId"]}}).encode()
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect("/run/vdsm/vdsm.sock")
        head = "POST /jsonrpc HTTP/1.0\\r\\nContent-Type: application/json\\r\\nContent-Length: "
        s.sendall(f"{head}{len(body)}\\r\\n\\r\\n".encode() + body)
        answer = b""
        while part := s.recv(65536):
            answer += part
    told = json.loads(answer.decode().partition("\\r\\n\\r\\n")[2])
    return [method, told.get("error", {"code": 0})["code"], time.monotonic() - began]

told = [call(method) for method in METHODS]
with open("/var/log/vdsm/calls-" + os.environ["vmId"], "w") as f:
    json.dump(told, f)
"""
# as openstacknet does it: a marker beside the flags, seen again by the script after the start
PAUSED = """#!/usr/bin/python3
import os
import hooking
vm = os.environ["vmId"]
hooking.dump_vm_launch_flags_to_file(vm, hooking.load_vm_launch_flags_from_file(vm) | 1)
open(f"/run/vdsm/{vm}/marked_for_unpause", "w").close()
"""
UNPAUSE = """#!/bin/sh
set -e
[ "$(cat /run/vdsm/$vmId/launchflags)" = 1 ]
[ -e /run/vdsm/$vmId/marked_for_unpause ]
until [ "$(virsh -c qemu:///system -r -q domstate $vmId)" = paused ]; do sleep 0.05; done
/usr/local/bin/vdsm call VM.cont vmID=$vmId
rm /run/vdsm/$vmId/marked_for_unpause
virsh -c qemu:///system -r -q domstate $vmId > /var/log/vdsm/calls-$vmId
"""


@pytest.fixture(scope="module")
def local_pool_host() -> Iterator[PrivateHost]:
    with PrivateHost(settings="\n[hook_timeouts]\nafter_vm_start = 10\n") as host, watched(host):
        host.start_agent()
        yield host


@pytest.fixture
async def client(local_pool_host: PrivateHost, local_pool: engine.Pool) -> AsyncIterator[Client]:
    async with local_pool_host.client() as client:
        yield client


@pytest.fixture
def agent_host(local_pool_host: PrivateHost) -> Iterator[PrivateHost]:
    yield local_pool_host
    local_pool_host.run(["sh", "-c", f"rm -rf {HOOKS}/*/50_*"])


@pytest.fixture
async def volume(agent_host: PrivateHost, client: Client, local_pool: engine.Pool) -> engine.Volume:
    await join(client, local_pool)
    await lead(client, local_pool)
    return await tiny_guest.new_volume(agent_host, client, local_pool)


def install(host: PrivateHost, point: str, script: str) -> None:
    host.run(["install", "-D", "-m", "755", "/dev/stdin", f"{HOOKS}/{point}/50_test"], stdin=script.encode())


async def left_by(host: PrivateHost, vm: vm_xml.Vm) -> str:
    """What the VM's script wrote at its end."""
    path = host.path(f"/var/log/vdsm/calls-{vm.vm_id}")

    async def look() -> str:
        return path.read_text() if path.exists() else ""

    return str(await engine.until("the script has ended", look, timeout_s=15))


@pytest.mark.cost(3)
@pytest.mark.parametrize(
    ("methods", "codes", "outer", "state"),
    [
        (["VM.getStats", "VM.getInfo", "VM.cont"], [0, 0, 16], 0, "running"),
        (["VM.pause"], [0], 16, "paused"),
        (["VM.destroy"], [0], 6, None),
    ],
    ids=["reads-cont", "pause", "destroy"],
)
async def test_a_script_before_cont_may_call_about_its_own_vm(
    methods: list[str],
    codes: list[int],
    outer: int,
    state: str | None,
    agent_host: PrivateHost,
    client: Client,
    volume: engine.Volume,
) -> None:
    install(agent_host, "before_vm_cont", CALLS.replace("METHODS", repr(methods)))
    vm = tiny_guest.describe(volume)
    async with listening(client) as told:
        await start(client, vm)
        assert await code_of(client, "VM.pause", vm) == 0
        assert await code_of(client, "VM.cont", vm) == outer
        made = json.loads(await left_by(agent_host, vm))
        assert [(method, code) for method, code, _ in made] == list(zip(methods, codes, strict=True))
        assert all(seconds < (3 if method == "VM.destroy" else 1) for method, _, seconds in made), made
        assert domains(agent_host).get(vm.vm_id) == state
        if state is not None:
            await destroy_told(client, told, vm)
        await told.until(vm, "Down")
    assert told.ends(vm) == [(0, 6)]
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(4)
async def test_a_script_starts_its_vm_paused_and_another_resumes_it(
    agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    install(agent_host, "before_vm_start", PAUSED)
    install(agent_host, "after_vm_start", UNPAUSE)
    vm = tiny_guest.describe(volume)
    async with listening(client) as told:
        await start(client, vm)
        assert (await left_by(agent_host, vm)).strip() == "running"
        assert await engine.vm_status(client, vm.vm_id) == "Up"
        assert told.statuses(vm) == ["Up"]
        await destroy_told(client, told, vm)
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(6)
async def test_a_foreign_domain_is_followed_and_never_changed(agent_host: PrivateHost, client: Client) -> None:
    xml = FOREIGN.format(kind=vm_xml.domain_type())
    agent_host.run(["virsh", "create", "/dev/stdin"], stdin=xml.encode())
    foreign = vm_xml.Vm(agent_host.run(["virsh", "domuuid", "foreign"]).stdout.decode().strip(), "foreign")
    pid = int(agent_host.path("/run/libvirt/qemu/foreign.pid").read_text())
    before = agent_host.run(["virsh", "dumpxml", foreign.vm_id]).stdout

    async def is_told(status: str) -> None:
        async def look() -> bool:
            return await engine.vm_status(client, foreign.vm_id) == status

        await engine.until(f"the foreign domain is {status}", look, timeout_s=20)

    await is_told("Up")
    seen = await stats(client, foreign.vm_id)
    assert (seen["status"], seen["vmName"]) == ("Up", "foreign")
    assert foreign.vm_id in [told["vmId"] for told in await client.call("Host.getAllVmStats")]
    agent_host.run(["virsh", "suspend", foreign.vm_id])
    await is_told("Paused")
    for verb, more in VERBS.items():
        with pytest.raises(RpcError, match="not the agent's"):
            await client.call(verb, {"vmID": foreign.vm_id, **more})
    assert domains(agent_host)[foreign.vm_id] == "paused"
    with killed(agent_host, "libvirtd"):
        assert lives(agent_host, pid)
    agent_host.run(["virsh", "resume", foreign.vm_id])
    await is_told("Up")
    assert agent_host.run(["virsh", "dumpxml", foreign.vm_id]).stdout == before
    assert lives(agent_host, pid)
    agent_host.run(["virsh", "destroy", foreign.vm_id])
    await is_told("gone")


VERBS: dict[str, dict[str, Any]] = {
    "VM.cont": {},
    "VM.pause": {},
    "VM.reset": {},
    "VM.destroy": {},
    "VM.shutdown": {"force": True},
    "VM.setDestroyOnReboot": {},
    "VM.freeze": {},
}
