# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP, WebSocket and the unix socket, seen from outside."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys

import aiohttp
import pytest

from vdsm.rpc import access, protocol, websocket
from vdsm.rpc.listener import AlreadyListening, UnixListener

PING = b'{"jsonrpc":"2.0","method":"Host.ping2","id":7}'
DONE = {"jsonrpc": "2.0", "result": True, "id": 7}


@pytest.fixture
async def http(server):
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(server.path), base_url="http://agent") as session:
        yield session


async def test_post_is_answered(http):
    async with http.post("/jsonrpc", data=PING) as reply:
        assert reply.status == 200
        assert reply.content_type == "application/json"
        assert await reply.json() == DONE


async def test_notification_gets_204_without_body(http, server):
    async with http.post("/jsonrpc", data=b'{"jsonrpc":"2.0","method":"update","params":[1]}') as reply:
        assert (reply.status, await reply.read()) == (204, b"")
    assert len(server.done) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/jsonrpc", 405), ("PUT", "/jsonrpc", 405), ("GET", "/", 404), ("POST", "/metrics", 404)],
)
async def test_other_requests_are_refused(http, method, path, status):
    async with http.request(method, path) as reply:
        assert reply.status == status


async def test_body_over_the_limit_gets_413_with_a_json_rpc_error(http):
    async with http.post("/jsonrpc", data=b" " * (protocol.MAX_MESSAGE + 1)) as reply:
        assert reply.status == 413
        assert (await reply.json())["error"]["code"] == -32600


async def test_body_of_unknown_length_over_the_limit_gets_413(http):
    async def endless():
        for _ in range(protocol.MAX_MESSAGE // 65536 + 2):
            yield b" " * 65536

    with contextlib.suppress(aiohttp.ClientConnectionError):  # the server may close while we still send
        async with http.post("/jsonrpc", data=endless()) as reply:
            assert reply.status == 413
    async with http.post("/jsonrpc", data=PING) as reply:
        assert await reply.json() == DONE


async def test_a_body_may_come_in_pieces(server):
    reader, writer = await asyncio.open_unix_connection(server.path)
    head = f"POST /jsonrpc HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(PING)}\r\n\r\n"
    for piece in (head.encode(), PING[:10], PING[10:20], PING[20:]):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)  # so that each is read by itself
    answer = await asyncio.wait_for(reader.read(), 10)
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == DONE
    writer.close()


async def test_other_methods_are_told_which_are_taken(http):
    async with http.get("/jsonrpc") as reply:
        assert (reply.status, reply.headers["Allow"]) == (405, "POST, GET")


async def test_request_of_a_foreign_page_is_refused(http):
    async with http.post("/jsonrpc", data=PING, headers={"Origin": "http://evil.example"}) as reply:
        assert reply.status == 403


async def test_metrics_count_calls(http):
    async def count():
        async with http.get("/metrics") as reply:
            assert reply.status == 200
            lines = (await reply.text()).splitlines()
        found = [line for line in lines if line.startswith('vdsm_rpc_calls_total{result="done",verb="Host.ping2"}')]
        return float(found[0].split()[-1]) if found else 0.0

    before = await count()
    for _ in range(3):
        async with http.post("/jsonrpc", data=PING):
            pass
    assert await count() == before + 3


async def test_flow_id_of_the_header_reaches_the_verb(http):
    for header in ("X-Flow-Id", "ovirtCorrelationId"):
        data = b'{"jsonrpc":"2.0","method":"Host.flow","id":1}'
        async with http.post("/jsonrpc", data=data, headers={header: "f-1"}) as reply:
            assert (await reply.json())["result"] == "f-1"


async def test_tcp_is_never_above_reader(server):
    async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{server.tcp.port}") as session:
        async with session.post("/jsonrpc", data=PING) as reply:
            assert await reply.json() == DONE
        async with session.post("/jsonrpc", data=b'{"jsonrpc":"2.0","method":"Volume.touch","id":1}') as reply:
            assert (await reply.json())["error"]["code"] == -32001


# --- WebSocket


async def test_websocket_answers_and_tells_events(http, server):
    async with http.ws_connect("/jsonrpc") as ws:
        await ws.send_bytes(PING)
        assert json.loads(await ws.receive_str()) == DONE
        server.events.publish("virt", "VM_status", "vm-1", {"vm-1": {"status": "Up"}})
        event = json.loads(await ws.receive_str())
        assert event["method"] == "|virt|VM_status|vm-1"
        assert "id" not in event
        assert event["params"]["vm-1"] == {"status": "Up"}
        assert isinstance(event["params"]["notify_time"], int)


async def test_a_reader_s_websocket_tells_events_without_secrets(server):
    url = f"http://127.0.0.1:{server.tcp.port}"
    async with aiohttp.ClientSession(base_url=url) as session, session.ws_connect("/jsonrpc") as ws:
        await ws.send_bytes(PING)
        assert json.loads(await ws.receive_str()) == DONE
        server.events.publish("virt", "VM_status", "vm-1", {"vm-1": {"exitMessage": "passwd='swordfish'"}})
        event = await ws.receive_str()
        assert "swordfish" not in event
        assert "exitMessage" in event


async def test_failed_calls_are_counted_as_failed(http, server):
    async def failed():
        async with http.get("/metrics") as reply:
            lines = (await reply.text()).splitlines()
        found = [line for line in lines if line.startswith('vdsm_rpc_calls_total{result="failed",verb="subtract"}')]
        return float(found[0].split()[-1]) if found else 0.0

    before = await failed()
    async with http.post("/jsonrpc", data=b'{"jsonrpc":"2.0","method":"subtract","id":7}'):
        pass
    assert await failed() == before + 1


async def test_quick_call_overtakes_a_slow_one(http, server):
    async with http.ws_connect("/jsonrpc") as ws:
        await ws.send_str('{"jsonrpc":"2.0","method":"Host.wait","id":1}')
        await ws.send_str('{"jsonrpc":"2.0","method":"get_data","id":2}')
        assert json.loads(await ws.receive_str())["id"] == 2
        server.gate.set()
        assert json.loads(await ws.receive_str())["id"] == 1


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_closed_connection_cancels_nothing(server, kind):
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(server.path)) as session:
        call = '{"jsonrpc":"2.0","method":"Host.wait","id":1}'
        if kind == "websocket":
            ws = await session.ws_connect("http://agent/jsonrpc")
            await ws.send_str(call)
        else:
            post = asyncio.create_task(session.post("http://agent/jsonrpc", data=call))
        while "started" not in server.done:
            await asyncio.sleep(0.001)
        if kind == "http":
            post.cancel()
    await asyncio.sleep(0.05)
    server.gate.set()
    await server.dispatcher.drain(5)
    assert server.done == ["started", "ended"]


async def silent_websocket(server):
    """A WebSocket whose peer sends and reads nothing after its greeting."""
    peer = socket.socket(socket.AF_UNIX)
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(peer, server.path)
    await loop.sock_sendall(
        peer,
        b"GET /jsonrpc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    )
    return peer


async def test_silent_peer_does_not_hold_the_stop_up(server):
    peer = await silent_websocket(server)
    while not server.events.subscriptions:
        await asyncio.sleep(0.001)
    async with asyncio.timeout(5):
        await server.unix.stop()
    peer.close()
    await server.unix.start()


async def test_peer_that_does_not_read_is_dropped_and_others_are_not(http, server, caplog, monkeypatch):
    monkeypatch.setattr(websocket, "MAX_EVENTS", 50)
    async with http.ws_connect("/jsonrpc") as good:
        slow = await silent_websocket(server)
        while len(server.events.subscriptions) < 2:
            await asyncio.sleep(0.001)
        for number in range(400):
            server.events.publish("virt", "VM_status", str(number), {"fill": "x" * 20_000})
            assert json.loads(await good.receive_str())["method"] == f"|virt|VM_status|{number}"
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):  # what was sent before comes, then the end of the connection
            with contextlib.suppress(ConnectionError):
                while await loop.sock_recv(slow, 1 << 20):
                    pass
        slow.close()
        await good.send_bytes(PING)
        assert json.loads(await good.receive_str()) == DONE
    assert "does not read its events" in caplog.text


async def test_message_over_the_limit_closes_only_its_connection(http):
    async with http.ws_connect("/jsonrpc") as ws:
        with contextlib.suppress(ConnectionError):
            await ws.send_bytes(b" " * (protocol.MAX_MESSAGE + 1))
        message = await ws.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    async with http.post("/jsonrpc", data=PING) as reply:
        assert await reply.json() == DONE


# --- who is at the other end


CALL_AS = """
import os, socket, sys
path, uid, gid, groups = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), [int(g) for g in sys.argv[4].split(",") if g]
os.setgroups(groups); os.setgid(gid); os.setuid(uid)
body = b'{"jsonrpc":"2.0","method":"%s","id":1}' % sys.argv[5].encode()
s = socket.socket(socket.AF_UNIX); s.connect(path)
head = b"POST /jsonrpc HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n"
s.sendall(head % len(body) + body)
data = b""
while part := s.recv(65536): data += part
print(data.decode())
"""
OPERATORS = 4711


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become other users")
@pytest.mark.parametrize(
    ("uid", "gid", "groups", "verb", "expected"),
    [
        (0, 0, "", "Volume.touch", '"code":200'),
        (36, 36, "", "Volume.touch", '"code":200'),
        (1234, 1234, str(OPERATORS), "Volume.touch", '"code":200'),
        (1234, OPERATORS, "", "Volume.touch", '"code":200'),
        (1234, OPERATORS, "", "Volume.delete", '"code":-32001'),
        (1234, 1234, "", "Host.ping2", "403"),
        (36000, 36, "", "Host.ping2", "403"),
    ],
)
async def test_peer_credentials_decide(server, monkeypatch, tmp_path, uid, gid, groups, verb, expected):
    monkeypatch.setattr(access, "_operators", lambda: OPERATORS)
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/") and os.stat(folder).st_uid == 0:
            os.chmod(folder, 0o755)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALL_AS, server.path, str(uid), str(gid), groups, verb, stdout=subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate(), 20)
    assert expected in out.decode()


async def test_second_agent_does_not_take_a_live_socket_over(server):
    second = UnixListener(server.dispatcher, server.events, server.path)
    with pytest.raises(AlreadyListening):
        await second.start()


async def test_socket_that_a_killed_agent_left_is_replaced(server, tmp_path):
    path = str(tmp_path / "old.sock")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(path)
    listener = UnixListener(server.dispatcher, server.events, path)
    await listener.start()
    assert os.stat(path).st_mode & 0o777 == 0o666
    await listener.stop()
    assert not os.path.exists(path)


def calls_with_long_replies(count):
    """In frames of a client, with a mask that changes nothing."""
    call = b'{"jsonrpc":"2.0","method":"get_much","id":1,"filler":"%s"}' % (b"x" * 10_000)
    return (b"\x81\xfe" + len(call).to_bytes(2, "big") + bytes(4) + call) * count


async def test_calls_of_a_peer_that_does_not_read_are_not_taken(server, monkeypatch):
    monkeypatch.setattr(websocket, "MAX_CALLS", 4)
    slow = await silent_websocket(server)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(slow, calls_with_long_replies(400)), 1)
    slow.close()


async def test_what_waits_for_all_peers_is_bounded(http, server, caplog, monkeypatch):
    monkeypatch.setattr(websocket, "MAX_UNSENT", 1 << 20)
    async with http.ws_connect("/jsonrpc") as good:
        slow = await silent_websocket(server)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(slow, calls_with_long_replies(200)), 5)
        async with asyncio.timeout(5):
            while "reads least of all" not in caplog.text:
                await good.send_bytes(PING)
                assert json.loads(await good.receive_str()) == DONE
        slow.close()
