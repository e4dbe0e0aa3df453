# SPDX-License-Identifier: GPL-2.0-or-later
"""RPC of a real agent: who may call, what it survives, how it stops and comes back."""

import asyncio
import contextlib
import json
import pathlib
import signal

import pytest

from contrib.lab import engine, vm_xml
from contrib.lab.agent_life import AGENT_SOCKET
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PYTHON
from vdsm.client import Client, RpcError
from vdsm.common.ids import new_uuid

CALL = """
import socket, sys
body = b'{"jsonrpc":"2.0","method":"%s","params":%s,"id":1}' % (sys.argv[2].encode(), sys.argv[3].encode())
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
head = b"POST /jsonrpc HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n"
s.sendall(head % len(body) + body)
data = b""
while part := s.recv(65536): data += part
print(data.decode())
"""
OPERATORS = 4711


def call_as(host, uid, groups, method, params="{}"):
    identity = ["setpriv", "--reuid", str(uid), "--regid", str(uid)]
    identity += ["--groups", groups] if groups else ["--clear-groups"]
    done = host.run([*identity, "--", PYTHON, "-c", CALL, AGENT_SOCKET, method, params])
    return done.stdout.decode()


@pytest.fixture
def operators(agent_host):
    path = agent_host.path("/etc/group")
    before = path.read_text()
    path.write_text(f"{before}vdsm-operator:x:{OPERATORS}:\n")
    yield agent_host
    path.write_text(before)


async def answers(client):
    """Whether the agent is ready; until its VMs are found again, it says that it is recovering."""
    try:
        return await client.call("Host.ping2")
    except RpcError as e:
        if e.code == 99:
            return False
        raise


async def test_agent_describes_itself_as_checked_in(client):
    served = await client.call("rpc.discover")
    name = f"openrpc-{served['info']['version']}.json"
    page = pathlib.Path(__file__).parents[2] / "docs" / "api" / name
    assert served == json.loads(page.read_bytes())


def test_root_and_vdsm_may_call(agent_host):
    for uid in (0, 36):
        assert '"result":true' in call_as(agent_host, uid, "", "Host.ping2")


def test_stranger_is_refused(agent_host):
    assert "403" in call_as(agent_host, 1234, "", "Host.ping2").splitlines()[0]


def test_operator_reads_and_does_not_administrate(operators):
    groups = str(OPERATORS)
    assert '"result":true' in call_as(operators, 1234, groups, "Host.ping2")
    denied = call_as(operators, 1234, groups, "StoragePool.create")
    assert '"code":-32001' in denied
    assert "needs role admin" in denied


async def test_every_listener_is_told_of_a_vm_that_starts_and_ends(agent_host, client):
    vm = vm_xml.Vm(new_uuid(), "told", memory_mib=64)

    async def statuses(listener):
        told = []
        async with contextlib.aclosing(listener.events()) as events:
            async for notice in events:
                if (notice.component, notice.operation, notice.unique_id) == ("virt", "VM_status", vm.vm_id):
                    assert isinstance(notice.params["notify_time"], int)
                    told.append(notice.params[vm.vm_id]["status"])
                    if told[-1] == "Down":
                        return told
        return told

    async with agent_host.client() as one, agent_host.client() as other:
        listening = [asyncio.ensure_future(statuses(listener)) for listener in (one, other)]
        await engine.until("listeners", lambda: listeners(client, 2), timeout_s=5)
        await engine.create_vm(client, vm)
        await engine.wait_vm(client, vm.vm_id, "Up")
        await client.call("VM.destroy", {"vmID": vm.vm_id})
        for told in await asyncio.wait_for(asyncio.gather(*listening), 20):
            assert "Up" in told
            assert told[-1] == "Down"


async def listeners(client, count):
    return f"vdsm_rpc_websockets {float(count)}" in (await client.metrics()).splitlines()


async def test_plain_tcp_reads_and_never_changes():
    settings = "[agent]\nplain_http_address = 127.0.0.1\nplain_http_port = 8054\n"
    with PrivateHost(settings=settings) as host:
        host.start_agent()
        for method, shown in (("Host.ping2", '"result":true'), ("StoragePool.create", "needs role admin")):
            body = json.dumps({"jsonrpc": "2.0", "method": method, "id": 1})
            code = "import sys,urllib.request as r; print(r.urlopen(sys.argv[1],sys.argv[2].encode()).read().decode())"
            done = host.run([PYTHON, "-c", code, "http://127.0.0.1:8054/jsonrpc", body], user="vdsm")
            assert shown in done.stdout.decode()


async def test_hostile_messages_leave_the_agent_up_and_its_loop_quick(agent_host, client):
    hostile = (
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b"[" + b"[]," * 5_000_000 + b"1]",
        b'"' + b"\\u0041" * 2_000_000 + b'"',
        b"\xff" * 1_000_000,
        b"x" * (17 << 20),
    )
    for body in hostile:
        head = b"POST /jsonrpc HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        reader, writer = await asyncio.open_unix_connection(str(agent_host.path(AGENT_SOCKET)))
        writer.write(head + body)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert b'"error":{"code":-32' in answer
        assert await client.call("Host.ping2", timeout_s=2) is True
    lag = [line for line in (await client.metrics()).splitlines() if line.startswith("vdsm_loop_lag_seconds")]
    within = next(line for line in lag if 'le="0.25"' in line).split()[-1]
    everything = next(line for line in lag if 'le="+Inf"' in line).split()[-1]
    assert within == everything


async def test_calls_and_events_go_on_after_kill_9(agent_host):
    async with agent_host.client() as client:
        events = client.events()
        reconnected = asyncio.ensure_future(anext(events))
        assert await client.call("Host.ping2") is True
        await asyncio.to_thread(agent_host.restart_agent)
        assert (await asyncio.wait_for(reconnected, 20)).operation == "reconnected"
        await engine.until("ready", lambda: answers(client), timeout_s=20)
        await events.aclose()


async def test_term_ends_the_agent_in_order(agent_host):
    async with Client.unix_ws(str(agent_host.path(AGENT_SOCKET))) as client:
        assert await client.call("Host.ping2") is True
        assert await asyncio.to_thread(agent_host.kill_agent, signal.SIGTERM) == 0
    assert not agent_host.path(AGENT_SOCKET).exists()
