# SPDX-License-Identifier: GPL-2.0-or-later
"""What anybody may send to a socket that anybody may open: an answer of ours each, and no full log."""

import asyncio
import gzip
import json

import pytest

from vdsm.api.roles import Identity, Role
from vdsm.common import repeats
from vdsm.rpc import http_server, listener
from vdsm.rpc.dispatcher import Caller

PING = b'{"jsonrpc":"2.0","method":"Host.ping2","id":7}'


async def exchange(path, data):
    """All that is answered until the agent closes."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


def posted(body, *headers):
    head = b"POST /jsonrpc HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n" % len(body)
    return head + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


STRANGE = {
    "broken gzip": posted(b"\x1f\x8bnot gzip at all", b"Content-Encoding: gzip"),
    "whole gzip": posted(gzip.compress(PING), b"Content-Encoding: gzip"),
    "br": posted(PING, b"Content-Encoding: br"),
    "zstd": posted(PING, b"Content-Encoding: zstd"),
    "deflate": posted(PING, b"Content-Encoding: deflate"),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "unknown method": b"BREW / HTTP/1.1\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
    "two lengths": b"POST /jsonrpc HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "broken chunks": b"POST /jsonrpc HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "upgrade to nothing": b"GET /jsonrpc HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\n\r\n",
    "old WebSocket": b"GET /jsonrpc HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 1\r\nSec-WebSocket-Key: x\r\n\r\n",
}


@pytest.mark.parametrize("kind", STRANGE)
async def test_what_is_strange_is_answered_by_the_agent_itself(server, kind):
    answer = await exchange(server.path, STRANGE[kind])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] in (b"400", b"415")
    assert json.loads(body)["error"]["code"] == -32600


@pytest.mark.parametrize("kind", STRANGE)
async def test_what_is_strange_is_no_traceback_and_one_line_however_often_it_comes(server, kind, caplog):
    for _ in range(20):
        await exchange(server.path, STRANGE[kind])
    assert "Traceback" not in caplog.text
    assert len(caplog.records) <= 1


@pytest.mark.parametrize(
    "request_head",
    [b"GET / ", b"POST /jsonrpc ", b"GET /metrics ", b"PUT /jsonrpc ", b"GET nonsense "],
)
async def test_no_answer_names_programs_and_versions(server, request_head):
    answer = await exchange(server.path, request_head + b"HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"http/1.")
    assert b"python" not in head
    assert b"aiohttp" not in answer.lower()


async def test_nor_does_a_websocket_s_greeting(server):
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(
        b"GET /jsonrpc HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head
    assert b"ython" not in head
    writer.close()


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE"])
async def test_other_methods_are_405_where_calls_are_posted_and_404_elsewhere(server, method):
    for path, status in ((b"/jsonrpc", b"405"), (b"/", b"404")):
        asked = method + b" " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert (await exchange(server.path, asked)).split()[1] == status


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE"])
async def test_on_the_engine_s_port_other_methods_are_404_and_the_end(port, pki, method):
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=pki.client())
    writer.write(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(5):
        head = await reader.read()
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"ython" not in head
    writer.close()


async def test_refused_peers_are_one_line_and_then_a_count(server, caplog, monkeypatch):
    monkeypatch.setattr(repeats, "QUIET_S", 0.2)
    for _ in range(50):
        await exchange(server.path, posted(PING, b"Origin: http://evil.example"))
    async with asyncio.timeout(5):
        while "49 more" not in caplog.text and len(caplog.records) < 3:
            await asyncio.sleep(0.01)
    assert len(caplog.records) <= 4
    assert "refused a request over unix" in caplog.text


async def test_a_defect_that_somebody_calls_again_and_again_is_told_once_with_one_number(server, caplog):
    asked = b'{"jsonrpc":"2.0","method":"Host.defect","id":7}'
    answers = [json.loads(await server.ask(asked))["error"] for _ in range(20)]
    assert len({answer["data"]["incident"] for answer in answers}) == 1
    assert caplog.text.count("Traceback") <= 1
    assert caplog.text.count("failed by a defect") <= 1


async def test_a_stranger_s_forbidden_calls_are_one_audit_line_and_then_a_count(server, caplog):
    caplog.set_level("INFO", "vdsm.audit")
    for _ in range(20):
        await server.ask(b'{"jsonrpc":"2.0","method":"Volume.delete","id":7}', Role.READER)
    assert caplog.text.count("Volume.delete by tester over test") == 1
    assert "needs role admin" in caplog.text


async def test_forbidden_changes_of_two_callers_are_told_both(server, caplog):
    caplog.set_level("INFO", "vdsm.audit")
    for name in ("one", "two"):
        caller = Caller(Identity(name, Role.READER, name), "test")
        await server.dispatcher.answer(b'{"jsonrpc":"2.0","method":"Volume.delete","id":7}', caller)
    assert "by one over" in caplog.text
    assert "by two over" in caplog.text


@pytest.mark.parametrize("begun", [b"", b"GET /metrics HTTP/1.1\r\nHost: a\r\n"], ids=["nothing", "half a head"])
async def test_a_request_that_does_not_come_ends_its_connection(server, monkeypatch, begun):
    monkeypatch.setattr(http_server, "HEAD_S", 0.1)
    assert await exchange(server.path, begun) == b""


async def test_a_connection_that_asked_once_may_wait(server, monkeypatch):
    monkeypatch.setattr(http_server, "HEAD_S", 0.1)
    ask = posted(PING).replace(b"Connection: close\r\n", b"")
    reader, writer = await asyncio.open_unix_connection(server.path)
    for _ in range(2):
        writer.write(ask)
        async with asyncio.timeout(5):
            assert b'"id":7' in await reader.readuntil(b"}")
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.2))])
    writer.close()


async def full(server, monkeypatch, kind, most, most_of_client):
    """The listener with that many seats."""
    monkeypatch.setattr(listener, "MOST", most)
    monkeypatch.setattr(listener, "MOST_OF_CLIENT", most_of_client)
    way = server.unix if kind == "unix" else server.tcp
    await way.stop()
    await way.start()

    async def connect():
        if kind == "unix":
            return await asyncio.open_unix_connection(server.path)
        return await asyncio.open_connection("127.0.0.1", server.tcp.port)

    return connect


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_client_has_its_share_of_connections_and_is_told_so(server, monkeypatch, kind):
    connect = await full(server, monkeypatch, kind, 10, 2)
    ask = posted(PING)
    taken = [await connect() for _ in range(2)]
    for _, writer in taken:
        writer.write(posted(PING)[:20])
    reader, writer = await connect()
    writer.write(ask)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"its client has 2 connections already" in answer
    taken[0][1].close()
    async with asyncio.timeout(5):
        while True:
            reader, writer = await connect()
            writer.write(ask)
            answer = await reader.read()
            writer.close()
            if answer.startswith(b"HTTP/1.1 200 "):
                break
    taken[1][1].close()


async def test_all_clients_together_have_the_listeners_seats(server, monkeypatch):
    connect = await full(server, monkeypatch, "unix", 1, 5)
    _, first = await connect()
    reader, second = await connect()
    async with asyncio.timeout(5):
        assert b"the port has 1 connections already" in await reader.read()
    for writer in (first, second):
        writer.close()
