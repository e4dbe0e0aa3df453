# SPDX-License-Identifier: GPL-2.0-or-later
"""What the metrics say of connections and of the loop, the pace at the door, and defects below HTTP."""

import asyncio
import json
import socket
import time

import aiohttp
import pytest
from ports import opened

from tests.peers import JavaPeer
from vdsm.common import metrics
from vdsm.rpc import door, lag
from vdsm.rpc.door import Door
from vdsm.rpc.lag import LoopLag
from vdsm.rpc.policy import PolicyFile
from vdsm.rpc.port import Address, EnginePort


def figure(name, **labels):
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def plain(server):
    port = EnginePort(
        server.dispatcher, server.events, Address("127.0.0.1", 0), certificates=None, policy=PolicyFile("")
    )
    yield await opened(port)
    await port.stop()


async def test_connections_of_the_port_are_counted_while_they_are_open(port, pki):
    peers = [JavaPeer(port.port, pki.engine()) for _ in range(3)]
    for peer in peers:
        await peer.connect("0,0")
    await until(lambda: figure("vdsm_port_connections") == 3)
    await until(lambda: figure("vdsm_port_waiting") == 0)
    for peer in peers:
        await peer.close()
    await until(lambda: figure("vdsm_port_connections") == 0)


async def test_who_has_not_said_who_it_is_is_counted_as_waiting(plain):
    _, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    await until(lambda: figure("vdsm_port_waiting") == 1)
    writer.close()
    await until(lambda: figure("vdsm_port_waiting") == 0)


async def test_frames_are_counted_by_command_and_drops_by_reason(plain):
    before = {name: figure("vdsm_stomp_frames_total", command=name) for name in ("CONNECT", "SUBSCRIBE", "NACK")}
    dropped = figure("vdsm_stomp_dropped_total", reason="command")
    peer = JavaPeer(plain.port, None)
    await peer.connect("0,0")
    for n in range(2):
        peer.write(b"SUBSCRIBE\nid:x%d\ndestination:a\n\n\0" % n)
    peer.write(b"NACK\nid:1\n\n\0")
    await until(lambda: figure("vdsm_stomp_dropped_total", reason="command") == dropped + 1)
    after = {name: figure("vdsm_stomp_frames_total", command=name) for name in before}
    assert after["CONNECT"] == before["CONNECT"] + 1
    assert after["SUBSCRIBE"] >= before["SUBSCRIBE"] + 2
    assert after["NACK"] == before["NACK"] + 1
    await peer.close()


def refused():
    samples = [sample for metric in metrics.REGISTRY.collect() for sample in metric.samples]
    return {s.labels["reason"]: s.value for s in samples if s.name == "vdsm_port_refused_total"}


async def test_refusals_are_counted_by_reason(plain):
    before = refused()
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    writer.write(b"HELO\n")
    assert await reader.read() == b""
    writer.close()
    more = {reason: count - before.get(reason, 0) for reason, count in refused().items()}
    assert {reason for reason, count in more.items() if count} == {"its first bytes are neither STOMP nor HTTP"}
    assert sum(more.values()) == 1


async def test_open_websockets_are_counted(server):
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(server.path), base_url="http://agent") as session,
        session.ws_connect("/jsonrpc"),
    ):
        await until(lambda: figure("vdsm_rpc_websockets") == 1)
    await until(lambda: figure("vdsm_rpc_websockets") == 0)


# -- the loop


async def test_a_loop_that_was_blocked_is_told_and_measured(monkeypatch, caplog):
    monkeypatch.setattr(lag, "INTERVAL_S", 0.01)
    measured, count = LoopLag(), figure("vdsm_loop_lag_seconds_count")
    measured.start()
    try:
        await until(lambda: figure("vdsm_loop_lag_seconds_count") >= count + 2)
        total = figure("vdsm_loop_lag_seconds_sum")
        time.sleep(0.4)  # in its way
        await until(lambda: measured.worst_s > 0.3)
    finally:
        measured.stop()
    assert measured.worst_s < 10
    assert figure("vdsm_loop_lag_seconds_sum") > total + 0.3
    (told,) = [message for message in caplog.messages if "the loop was busy" in message]
    assert 300 < float(told.split()[5]) < 10_000
    seen = figure("vdsm_loop_lag_seconds_count")
    await asyncio.sleep(0.05)
    assert figure("vdsm_loop_lag_seconds_count") == seen  # it has stopped


async def test_what_never_started_can_be_stopped():
    LoopLag().stop()


# -- the door


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0), backlog=200) as made:
        made.setblocking(False)
        yield made


async def test_of_a_flood_no_more_come_in_than_so_many_a_second(listening):
    admitted, clients = [], [socket.create_connection(listening.getsockname()) for _ in range(60)]
    opening = Door(listening, admitted.append)
    began = time.monotonic()
    opening.open()
    try:
        await until(lambda: len(admitted) == 60)
        # 20 at once, then 200 a second; the last few are not waited for
        assert time.monotonic() - began > (60 - 20 - 2 * door.AT_ONCE) / 200
        assert opening.port == listening.getsockname()[1]
        assert not admitted[0].getblocking()
    finally:
        opening.close()
        for one in (*admitted, *clients):
            one.close()


class Full:
    """A listening socket in a process without descriptors."""

    def __init__(self, listening):
        self._listening = listening
        self.errors = 1

    def accept(self):
        if self.errors:
            self.errors -= 1
            raise OSError(24, "Too many open files")
        return self._listening.accept()

    def fileno(self):
        return self._listening.fileno()

    def close(self):
        pass


async def test_without_descriptors_the_door_waits_a_while_and_goes_on(listening, monkeypatch, caplog):
    monkeypatch.setattr(door, "AFTER_FAILURE_S", 0.2)
    admitted, client = [], socket.create_connection(listening.getsockname())
    opening, began = Door(Full(listening), admitted.append), time.monotonic()
    opening.open()
    try:
        await until(lambda: admitted)
        assert time.monotonic() - began >= 0.2
        assert "no connection can be accepted: [Errno 24] Too many open files" in caplog.messages
    finally:
        opening.close()
        for one in (*admitted, client):
            one.close()


# -- defects below HTTP


async def test_a_defect_below_http_is_answered_in_json_with_a_number_and_no_text_of_it(server, monkeypatch, caplog):
    async def broken(data, caller):
        raise ValueError("the key is swordfish")

    monkeypatch.setattr(server.dispatcher, "answer", broken)
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(server.path), base_url="http://agent") as session,
        session.post("/jsonrpc", data=b"{}") as reply,
    ):
        assert reply.status == 500
        body = json.loads(await reply.text())
    assert (body["jsonrpc"], body["id"], body["error"]["code"]) == ("2.0", None, -32603)
    assert "swordfish" not in json.dumps(body)
    assert body["error"]["data"]["incident"] in caplog.text
    assert "HTTP" in caplog.text
