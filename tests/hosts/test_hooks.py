# SPDX-License-Identifier: GPL-2.0-or-later
"""Hooks of real VMs on a real host: failures as the engine hears them, and scripts that call back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from contrib.lab import engine, vm_xml
from contrib.lab.host import PrivateHost
from vdsm.client import Client, Notice, RpcError

HOOKS = "/usr/libexec/vdsm/hooks"
SHIPPED = Path(__file__).resolve().parents[2] / "hooks"
TIMEOUT_S = 3.0

CALL_BACK = """#!/usr/bin/python3
import http.client, json, os, socket, sys, time

def call(method, **params):
    connection = http.client.HTTPConnection("agent", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/run/vdsm/vdsm.sock")
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    started = time.monotonic()
    connection.request("POST", "/jsonrpc", body, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    told = answer["error"]["message"] if "error" in answer else "ok"
    print(json.dumps([method, time.monotonic() - started, told]), file=sys.stderr)

vm = os.environ["vmId"]
call("VM.getStats", vmID=vm)
call("VM.cont", vmID=vm)
"""
START_PAUSED = """#!/usr/bin/python3
import os
import hooking
hooking.dump_vm_launch_flags_to_file(os.environ["vmId"], 1)
"""


@pytest.fixture(scope="module")
def host() -> Iterator[PrivateHost]:
    limits = "".join(f"{name} = {TIMEOUT_S}\n" for name in ("before_vm_start", "after_vm_start"))
    with PrivateHost(settings=f"\n[hook_timeouts]\n{limits}") as host:
        yield host


@pytest.fixture(autouse=True)
def no_hooks(host: PrivateHost) -> Iterator[None]:
    yield
    for folder in host.path(HOOKS).iterdir():
        shutil.rmtree(folder)


def install(host: PrivateHost, point: str, name: str, text: str, mode: int = 0o755) -> Path:
    path = host.path(f"{HOOKS}/{point}/{name}")
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def is_down(notice: Notice) -> bool:
    return notice.operation == "VM_status" and notice.params.get(notice.unique_id, {}).get("status") == "Down"


@contextlib.asynccontextmanager
async def listening(client: Client) -> AsyncIterator[list[Notice]]:
    """Every event while the body runs."""
    heard: list[Notice] = []

    async def listen() -> None:
        async for notice in client.events():
            heard.append(notice)

    task = asyncio.create_task(listen())
    await engine.until("the listener", lambda: listens(client), timeout_s=5)
    try:
        yield heard
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def listens(client: Client) -> bool:
    return "vdsm_rpc_websockets 1.0" in (await client.metrics()).splitlines()


def trace_of(host: PrivateHost, vm_id: str) -> list[dict[str, Any]]:
    lines = host.path("/var/lib/vdsm/hooks/trace.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["vm_id"] == vm_id]


FAILURES = {
    "hangs": ("echo waiting >&2; sleep 1000", 0o755, "was killed (exit code -9): waiting"),
    "crashes": ("echo dying >&2; kill -SEGV $$", 0o755, "was killed by SIGSEGV (exit code -11): dying"),
    "fails": ("echo no licence >&2; exit 2", 0o755, "ended with exit code 2: no licence"),
    "breaks": (
        'echo oops >&2; printf "<domain>" > "$_hook_domxml"',
        0o755,
        "ended with exit code 0 and left XML that can't be used",
    ),
    "is_writable": ("exit 0", 0o777, "was refused (exit code 126): it is writable by every user (mode 0777)"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_one_down_event_names_script_code_and_stderr(
    host: PrivateHost, pool: engine.Pool, client: Client, name: str
) -> None:
    body, mode, expected = FAILURES[name]
    install(host, "before_vm_start", f"50_{name}", f"#!/bin/sh\n{body}\n", mode)
    volume = await engine.create_volume(client, pool, size_bytes=1 << 20)
    vm = vm_xml.Vm(str(uuid.uuid4()), f"vm-{name}", disks=[volume.disk()])
    async with listening(client) as heard:
        answer = await engine.create_vm(client, vm)
        assert answer["status"] == "WaitForLaunch"
        await engine.wait_vm(client, vm.vm_id, "Down", timeout_s=TIMEOUT_S + 10)
        await asyncio.sleep(0.5)  # a second event would come now
    (down,) = [notice.params[vm.vm_id] for notice in heard if is_down(notice) and notice.unique_id == vm.vm_id]
    assert f"before_vm_start/50_{name} " in down["exitMessage"]
    assert expected in down["exitMessage"]
    assert int(down["exitCode"]) == 1
    run_links = host.path(f"/run/vdsm/storage/{pool.domain_id}/{volume.image_id}")
    assert not run_links.is_symlink(), "the image is still prepared"
    assert not run_links.exists()
    assert trace_of(host, vm.vm_id)[0]["scripts"][0]["script"] == f"50_{name}"
    assert vm.name not in host.run(["virsh", "list", "--all", "--name"]).stdout.decode()
    await client.call("VM.destroy", {"vmID": vm.vm_id})
    await engine.delete_image(client, volume)


SECRET = "S3cr3tMark"
WITH_SECRETS = f"<devices><graphics type='vnc' autoport='yes' passwd='{SECRET}' passwdValidTo='2030-01-01T00:00:00'/>"


async def test_no_secret_of_a_start_that_failed_is_found_on_the_host(
    host: PrivateHost, agent_host: PrivateHost, client: Client
) -> None:
    """The script prints all that it gets; a mount with a password fails, too."""
    install(host, "before_vm_start", "50_tells", '#!/bin/sh\ncat "$_hook_domxml" >&2\necho no licence >&2\nexit 2\n')
    vm = vm_xml.Vm(str(uuid.uuid4()), "vm-secret")
    xml = vm_xml.to_xml(vm).replace("<devices>", WITH_SECRETS)
    assert SECRET in xml
    share = {
        "id": str(uuid.uuid4()),
        "connection": "192.0.2.1:/share",
        "vfs_type": "ext4",
        "mnt_options": f"loop,password={SECRET}",
        "password": f"{SECRET}2",
        "user": "me",
    }
    async with listening(client) as heard:
        told = [await client.call("VM.create", {"vmID": vm.vm_id, "vmParams": {"vmId": vm.vm_id, "xml": xml}})]
        await engine.wait_vm(client, vm.vm_id, "Down", timeout_s=TIMEOUT_S + 10)
        told.append(await client.call("Host.dumpxmls", {"vmList": [vm.vm_id]}))
        told.append(await client.call("Host.getAllVmStats"))
        for connection in (share, {**share, "vfs_type": 5}):
            params = {"domainType": 6, "storagepoolID": str(uuid.uuid4()), "connectionParams": [connection]}
            with contextlib.suppress(RpcError):
                told.append(await client.call("StoragePool.connectStorageServer", params))
        told += [notice.params for notice in heard]
    assert "50_tells" in str(told)
    assert SECRET not in str(told[1:])
    await client.call("VM.destroy", {"vmID": vm.vm_id})
    grep = ["grep", "-rlI", SECRET, "/var/log", "/var/lib/vdsm", "/run/vdsm", "/etc/vdsm"]
    assert host.run(grep, check=False).stdout.decode() == ""


async def test_a_hook_may_call_back_about_its_own_vm(
    host: PrivateHost, agent_host: PrivateHost, client: Client
) -> None:
    """The VM is started paused by a script and resumed by another; each call ends within a second."""
    install(host, "before_vm_start", "10_paused", START_PAUSED)
    for point in ("before_vm_start", "after_vm_start", "before_vm_cont"):
        install(host, point, "50_call", CALL_BACK)
    vm = vm_xml.Vm(str(uuid.uuid4()), "vm-calls")
    await engine.create_vm(client, vm)
    await engine.wait_vm(client, vm.vm_id, "Up", "Powering up", timeout_s=30)
    runs = await engine.until("three runs", lambda: enough(host, vm.vm_id, 3), timeout_s=10)
    calls = {run["point"]: [json.loads(line) for line in run["scripts"][-1]["stderr"].splitlines()] for run in runs}
    assert set(calls) == {"before_vm_start", "after_vm_start", "before_vm_cont"}
    for point, made in calls.items():
        assert [method for method, _, _ in made] == ["VM.getStats", "VM.cont"], point
        assert all(seconds < 1 for _, seconds, _ in made if point != "after_vm_start"), made
    # this one waits for the script of before_vm_cont, which takes its own time to start
    assert all(seconds < 2 for _, seconds, _ in calls["after_vm_start"]), calls
    assert [told for _, _, told in calls["after_vm_start"]] == ["ok", "ok"]
    await client.call("VM.destroy", {"vmID": vm.vm_id})


async def test_scripts_see_the_end_of_a_vm(host: PrivateHost, agent_host: PrivateHost, client: Client) -> None:
    for point in ("before_vm_destroy", "after_vm_destroy"):
        install(
            host, point, "50_see", '#!/bin/sh\ngrep -o "<name>[^<]*" "$_hook_domxml" >&2\necho "$vmId" >&2\nexit 2\n'
        )
    vm = vm_xml.Vm(str(uuid.uuid4()), "vm-ends")
    await engine.create_vm(client, vm)
    await engine.wait_vm(client, vm.vm_id, "Up", "Powering up", timeout_s=30)
    async with listening(client) as heard:
        await client.call("VM.destroy", {"vmID": vm.vm_id})
        await engine.until("two events", lambda: told(heard, vm.vm_id, 2), timeout_s=10)
    runs = trace_of(host, vm.vm_id)
    assert [run["point"] for run in runs] == ["before_vm_destroy", "after_vm_destroy"]
    assert [run["scripts"][0]["stderr"] for run in runs] == [f"<name>vm-ends\n{vm.vm_id}\n"] * 2
    assert await engine.vm_status(client, vm.vm_id) == "gone", "a failure there keeps no VM alive"


async def told(heard: list[Notice], vm_id: str, count: int) -> bool:
    return sum(notice.method == f"|hook|failed|{vm_id}" for notice in heard) == count


async def test_scripts_run_before_and_after_the_agent(fresh_host: PrivateHost) -> None:
    for point in ("before_vdsm_start", "after_vdsm_stop"):
        install(fresh_host, point, "50_who", "#!/bin/sh\nid -u >&2\n")
    fresh_host.start_agent()
    fresh_host.kill_agent(signal.SIGTERM)
    runs = trace_of(fresh_host, "")
    who = [(run["point"], run["scripts"][0]["stderr"]) for run in runs]
    assert who == [("before_vdsm_start", "0\n"), ("after_vdsm_stop", "36\n")]


async def enough(host: PrivateHost, vm_id: str, count: int) -> list[dict[str, Any]] | None:
    runs = trace_of(host, vm_id)
    return runs if len(runs) >= count else None


async def test_the_shipped_hooks_change_what_runs(host: PrivateHost, agent_host: PrivateHost, client: Client) -> None:
    for name in ("smbios", "pincpu"):
        install(host, "before_vm_start", f"50_{name}", (SHIPPED / name / "before_vm_start" / f"50_{name}").read_text())
    vm = vm_xml.Vm(
        str(uuid.uuid4()), "vm-shipped", custom={"smbios": "{'serial':'4711'}^{'vendor':'Acme'}", "pincpu": "0"}
    )
    await engine.create_vm(client, vm)
    await engine.wait_vm(client, vm.vm_id, "Up", "Powering up", timeout_s=30)
    live = etree.fromstring(host.run(["virsh", "dumpxml", vm.vm_id]).stdout)
    assert live.findtext("sysinfo/system/entry[@name='serial']") == "4711"
    assert live.findtext("sysinfo/bios/entry[@name='vendor']") == "Acme"
    assert live.find("vcpu").get("cpuset") == "0"
    reported = (await client.call("Host.getCapabilities", {}))["hooks"]
    assert re.fullmatch("[0-9a-f]{64}", reported["before_vm_start"]["50_smbios"]["checksum"])
    await client.call("VM.destroy", {"vmID": vm.vm_id})


async def test_a_killed_agent_leaves_no_script_behind(fresh_host: PrivateHost) -> None:
    host = fresh_host
    install(host, "before_vm_start", "50_hang", "#!/bin/sh\nsleep 98765 & wait\n")
    host.start_agent()
    vm = vm_xml.Vm(str(uuid.uuid4()), "vm-killed")
    sleepers = ["pgrep", "-f", "50_hang|98765"]
    async with host.client() as client:
        await engine.create_vm(client, vm)
        limit = time.monotonic() + 10
        while len(host.run(sleepers, check=False).stdout.split()) < 2:
            assert time.monotonic() < limit, "the script did not start"
            await asyncio.sleep(0.05)
    host.kill_agent()
    host.path(f"{HOOKS}/before_vm_start/50_hang").unlink()
    host.start_agent()
    assert host.run(sleepers, check=False).stdout == b""
