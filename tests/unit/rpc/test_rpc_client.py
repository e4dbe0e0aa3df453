# SPDX-License-Identifier: GPL-2.0-or-later
"""The client against a real server."""

import asyncio

import pytest

from vdsm.client import Client, ConnectionLost, NoAnswer, RpcError
from vdsm.client import client as client_module
from vdsm.client import stomp as stomp_module
from vdsm.client import tls as client_tls
from vdsm.common import logs


@pytest.fixture(params=["unix", "unix_ws", "http", "ws", "stomp", "https", "wss"])
async def client(server, request, port, pki):
    kind = request.param
    if kind in ("stomp", "https", "wss"):
        context = client_tls.context(pair(pki))
        made = (
            Client.stomp("localhost", port.port, context)
            if kind == "stomp"
            else getattr(Client, kind.removesuffix("s"))(f"https://localhost:{port.port}", context)
        )
    else:
        where = server.path if kind.startswith("unix") else f"http://127.0.0.1:{server.tcp.port}"
        made = getattr(Client, kind)(where)
    async with made:
        yield made


def pair(pki, name="engine"):
    return client_tls.Pair(
        str(pki.folder / "certs/cacert.pem"),
        str(pki.folder / f"other/{name}.pem"),
        str(pki.folder / f"other/{name}.key"),
    )


async def test_call(client):
    assert await client.call("subtract", {"minuend": 42, "subtrahend": 23}) == 19
    assert await client.call("subtract", [42, 23]) == 19
    assert await client.call("Host.ping2") is True


async def test_many_calls_at_once(client):
    answers = await asyncio.gather(*(client.call("subtract", [n, 1]) for n in range(300)))
    assert answers == [n - 1 for n in range(300)]


async def test_error_is_typed(client):
    with pytest.raises(RpcError) as caught:
        await client.call("subtract", {"minuend": "x", "subtrahend": 1})
    assert caught.value.code == -32602
    assert "'minuend'" in str(caught.value)


async def test_no_answer_in_time(client, server):
    await client.call("Host.ping2")  # connected: what is short is the wait for the answer
    with pytest.raises(NoAnswer):
        await client.call("Host.wait", timeout_s=0.05)
    server.gate.set()
    assert await client.call("Host.ping2") is True


async def test_flow_id_travels(client):
    with logs.flow("f-42"):
        assert await client.call("Host.flow") == "f-42"


async def test_events(client, server):
    task = asyncio.ensure_future(anext(client.events()))
    while not server.events.subscriptions:
        await asyncio.sleep(0.001)
    while not task.done():
        server.events.publish("virt", "VM_status", "vm-1", {"a": 1})
        await asyncio.sleep(0.01)
    notice = await task
    assert (notice.component, notice.operation, notice.unique_id, notice.params["a"]) == (
        "virt",
        "VM_status",
        "vm-1",
        1,
    )


async def test_remedy_of_the_agent_is_at_hand(server):
    async with Client.unix(server.path) as client:
        with pytest.raises(RpcError) as caught:
            await client.call("Volume.touch")
    assert caught.value.advice == "Plug disk sda in again"


async def test_nobody_there(tmp_path):
    async with Client.unix(str(tmp_path / "none.sock")) as client:
        with pytest.raises(ConnectionLost):
            await client.call("Host.ping2")
        with pytest.raises(ConnectionLost):
            await anext(client.events())


@pytest.mark.parametrize("kind", ["unix", "unix_ws"])
async def test_calls_go_on_after_the_agent_restarted(server, kind):
    async with getattr(Client, kind)(server.path) as client:
        assert await client.call("Host.ping2") is True
        await server.unix.stop()
        with pytest.raises(ConnectionLost):
            await client.call("Host.ping2")
        await server.unix.start()
        assert await client.call("Host.ping2") is True


async def test_call_under_way_when_the_connection_goes_is_lost_not_stuck(server):
    async with Client.unix_ws(server.path) as client:
        call = asyncio.create_task(client.call("Host.wait"))
        while not server.done:
            await asyncio.sleep(0.001)
        await server.unix.stop()
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(call, 5)


async def test_events_come_again_after_the_agent_restarted(server, monkeypatch):
    monkeypatch.setattr(client_module, "RECONNECT_S", 0.02)
    async with Client.unix(server.path) as client:
        events = client.events()
        waiting = asyncio.ensure_future(anext(events))
        while not server.events.subscriptions:
            await asyncio.sleep(0.001)
        await server.unix.stop()
        await server.unix.start()
        assert (await asyncio.wait_for(waiting, 5)).operation == "reconnected"
        waiting = asyncio.ensure_future(anext(events))
        server.events.publish("net", "host_conn", "", {})
        assert (await asyncio.wait_for(waiting, 5)).method == "|net|host_conn|no_id"
        await events.aclose()


async def test_a_port_that_refuses_us_is_told_as_such(port, pki):
    async with Client.stomp("localhost", port.port, client_tls.context(pair(pki, "stranger"))) as client:
        with pytest.raises(ConnectionLost, match=r"localhost:\d+: (TLS failed: .*unknown ca|the agent closed)"):
            await client.call("Host.ping2")


async def test_an_agent_of_another_authority_is_not_believed(port, pki):
    context = client_tls.context(
        client_tls.Pair(str(pki.folder / "other/foreign.pem"), pair(pki).certificate, pair(pki).key)
    )
    async with Client.stomp("localhost", port.port, context) as client:
        with pytest.raises(ConnectionLost, match="its certificate is not accepted"):
            await client.call("Host.ping2")


def test_a_missing_certificate_is_named(pki):
    with pytest.raises(client_tls.NoIdentity, match=r"other/nobody\.pem: No such file"):
        client_tls.context(pair(pki, "nobody"))


async def test_a_silent_agent_is_given_up(monkeypatch):
    monkeypatch.setattr(stomp_module, "HEART_BEAT_MS", 50)

    async def says_hello(reader, writer):
        await reader.read(10)
        writer.write(b"CONNECTED\nversion:1.2\n\n\0")

    listening = await asyncio.start_server(says_hello, "127.0.0.1", 0)
    async with listening, Client.stomp("127.0.0.1", listening.sockets[0].getsockname()[1]) as client:
        with pytest.raises(ConnectionLost, match=r"it was silent for 0\.1 s"):
            await client.call("Host.ping2")
