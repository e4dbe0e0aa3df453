# SPDX-License-Identifier: GPL-2.0-or-later
"""What one process of the agent's user may cost the root helper."""

import asyncio
import contextlib
import json
import os

import pytest

from vdsm.common import framing, link
from vdsm.common.link import LinkClosed
from vdsm.root.client import RootClient
from vdsm.root.server import callers


class Served:
    def __init__(self, path):
        self.path = path
        self.running = 0
        self.most = 0
        self.go_on = asyncio.Event()
        self.clients = []

    async def serve(self, verb, params):
        self.running += 1
        self.most = max(self.most, self.running)
        if verb == "wait":
            await self.go_on.wait()
        self.running -= 1
        return verb

    def client(self):
        self.clients.append(RootClient(self.path))
        return self.clients[-1]

    async def raw(self, data):
        """What is answered to these bytes until the helper closes."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(data)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        return json.loads(answer[framing.HEADER.size :])["closing"]


@pytest.fixture
async def start(tmp_path):
    async with contextlib.AsyncExitStack() as ending:

        async def start():
            served = Served(str(tmp_path / "root.sock"))
            taken = callers.Callers(served.serve, frozenset({os.getuid()}))
            server = await asyncio.start_unix_server(taken.connected, served.path)
            ending.callback(server.close)
            ending.push_async_callback(lambda: asyncio.gather(*(client.close() for client in served.clients)))
            ending.callback(served.go_on.set)
            return served

        yield start


async def ping(client):
    return await client.call("ping", {}, timeout_s=5)


async def test_a_process_has_its_share_of_connections_and_is_told_so(start, monkeypatch):
    monkeypatch.setattr(callers, "MOST_OF_PROCESS", 2)
    served = await start()
    first, second, third = (served.client() for _ in range(3))
    assert [await ping(first), await ping(second)] == ["ping", "ping"]
    with pytest.raises(LinkClosed, match="it has 2 connections already"):
        await ping(third)
    await first.close()
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(LinkClosed):
                assert await ping(third) == "ping"
                break


async def test_all_processes_together_have_the_helpers_seats(start, monkeypatch):
    monkeypatch.setattr(callers, "MOST", 1)
    served = await start()
    await ping(served.client())
    with pytest.raises(LinkClosed, match="the root helper has 1 connections already"):
        await ping(served.client())


@pytest.mark.parametrize("begun", [b"\0", b"\0\0\0\x10{"], ids=["head", "body"])
async def test_a_message_that_does_not_end_ends_its_connection(start, monkeypatch, begun):
    monkeypatch.setattr(callers, "FRAME_S", 0.1)
    served = await start()
    assert await served.raw(begun) == "it got a message that does not end"


async def test_a_connection_without_a_message_stays(start, monkeypatch):
    monkeypatch.setattr(callers, "FRAME_S", 0.05)
    served = await start()
    client = served.client()
    await ping(client)
    await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.2))])
    assert await ping(client) == "ping"


WRONG = {
    "too long": (framing.HEADER.pack(framing.MAX_FRAME + 1), "over the limit"),
    "too many values": (framing.encode_frame({"x": [0] * link.MAX_ITEMS}), "more than 100000 values"),
    "too deep": (framing.HEADER.pack(90_000) + b"[" * 90_000, "recursion"),
    "no object": (framing.encode_frame([]), "no object"),
    "parameters": (framing.encode_frame({"id": 1, "call": "ping", "params": [1]}), "parameters are none"),
    "no number": (framing.encode_frame({"call": "ping"}), "without a number"),
    "a list for a number": (framing.encode_frame({"id": [], "call": "ping"}), "without a number"),
    "an answer to a list": (framing.encode_frame({"id": []}), "neither a call nor an answer"),
    "nothing": (framing.encode_frame({}), "neither a call nor an answer"),
}


@pytest.mark.parametrize(("data", "told"), WRONG.values(), ids=WRONG)
async def test_what_is_no_message_is_told_and_is_no_traceback(start, caplog, data, told):
    served = await start()
    assert told in await served.raw(data)
    assert "Traceback" not in caplog.text
    assert await ping(served.client()) == "ping"


async def test_calls_beyond_a_connections_share_wait_with_the_caller(start, monkeypatch):
    monkeypatch.setattr(callers, "CALLS", 2)
    served = await start()
    client = served.client()
    calls = [asyncio.ensure_future(client.call("wait", {}, timeout_s=5)) for _ in range(5)]
    assert await ping(served.client()) == "ping"  # what was sent before has arrived
    async with asyncio.timeout(5):
        while served.running < 2:
            await asyncio.sleep(0)
    served.go_on.set()
    assert await asyncio.gather(*calls) == ["wait"] * 5
    assert served.most <= 3  # those two, and the ping


async def test_large_messages_of_all_connections_have_few_turns(start, monkeypatch):
    monkeypatch.setattr(callers, "LARGE_AT_ONCE", 1)
    served = await start()
    large = {"text": "x" * (link.LARGE + 1)}
    calls = [asyncio.ensure_future(served.client().call("wait", large, timeout_s=5)) for _ in range(3)]
    async with asyncio.timeout(5):
        while not served.running:
            await asyncio.sleep(0)
    assert await ping(served.client()) == "ping"
    served.go_on.set()
    assert await asyncio.gather(*calls) == ["wait"] * 3
    assert served.most <= 2  # one large, and the ping
