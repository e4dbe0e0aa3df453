# SPDX-License-Identifier: GPL-2.0-or-later
"""Of a closed connection nothing waits for the garbage collector: an agent freezes and tunes it, and runs for years."""

import asyncio
import contextlib
import gc
from asyncio import sslproto

import pytest

from tests.peers import JavaPeer
from vdsm.common import memory
from vdsm.rpc import port as port_module
from vdsm.rpc import tls
from vdsm.rpc.http_server import HttpServer
from vdsm.rpc.intake import Intake
from vdsm.rpc.outbox import Outbox
from vdsm.rpc.port import _FirstBytes, _Watched
from vdsm.rpc.stomp_session import StompSession

OURS = (StompSession, Intake, Outbox, HttpServer, _Watched, _FirstBytes)


async def engine_s(port, pki, server):
    peer = JavaPeer(port.port, pki.engine())
    await peer.connect("5000,5000")
    await peer.call("Host.ping2")
    await peer.close()


async def one_that_is_gone_in_mid_call(port, pki, server):
    peer = JavaPeer(port.port, pki.engine())
    await peer.connect()
    peer.write(b'SEND\ndestination:jms.topic.vdsm_requests\n\n{"jsonrpc":"2.0","method":"Host.wait","id":1}\0')
    while "started" not in server.done:
        await asyncio.sleep(0.005)
    await peer.close()


async def one_that_is_dropped(port, pki, server):
    peer = JavaPeer(port.port, pki.engine())
    await peer.connect()
    peer.write(b"no STOMP\n")
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await peer.record()
    await peer.close()


async def http_s(port, pki, server):
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=pki.client())
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.read()
    writer.close()


async def a_stranger_s(port, pki, server):
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=pki.client("stranger"))
        await reader.read()
        writer.close()


KINDS = (engine_s, one_that_is_gone_in_mid_call, one_that_is_dropped, http_s, a_stranger_s)


def left():
    """The port's own objects of connections."""
    served = [one for one in gc.get_objects() if isinstance(one, sslproto.SSLProtocol) and one._server_side]
    return sorted(type(one).__name__ for one in [*served, *(one for one in gc.get_objects() if isinstance(one, OURS))])


@pytest.mark.parametrize("connection", KINDS)
async def test_a_closed_connection_leaves_no_cycles(port, pki, server, connection):
    await connection(port, pki, server)  # what is made once is made
    await settled(port)
    gc.collect()
    before = left()
    gc.disable()
    try:
        for _ in range(5):
            await connection(port, pki, server)
        await settled(port)
        # mid-call: the call itself goes on; it keeps nothing of its connection
        after = left()
    finally:
        gc.enable()
    assert after == before


async def settled(port):
    async with asyncio.timeout(5):
        while port._open or port._tasks:
            await asyncio.sleep(0.005)
    for _ in range(5):
        await asyncio.sleep(0.005)


async def test_a_tls_connection_reads_and_keeps_little(port, pki):
    gc.collect()
    peer = JavaPeer(port.port, pki.engine())
    await peer.connect()
    (served,) = [one for one in gc.get_objects() if isinstance(one, sslproto.SSLProtocol) and one._server_side]
    assert len(served._ssl_buffer) <= 64 << 10
    assert served.max_size == tls.BUFFER_BYTES
    await peer.close()


async def test_memory_of_many_closed_connections_goes_back_to_the_kernel(port, pki, server, monkeypatch):
    given = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(memory, "give_back", lambda: loop.call_soon_threadsafe(given.set))
    monkeypatch.setattr(port_module, "MANY_GONE", 3)
    monkeypatch.setattr(port_module, "GIVE_BACK_AFTER_S", 0.01)
    for _ in range(3):
        assert not given.is_set()
        await http_s(port, pki, server)
    async with asyncio.timeout(5):
        await given.wait()
