# SPDX-License-Identifier: GPL-2.0-or-later
"""All ways in of an agent together: what listens where, and what is answered before the agent is ready."""

import asyncio
import dataclasses
import json
from types import SimpleNamespace

import aiohttp
import pytest

from tests.peers import JavaPeer
from vdsm.common.events import Events
from vdsm.common.paths import Paths
from vdsm.config import Settings
from vdsm.rpc.listener import AlreadyListening
from vdsm.rpc.service import Rpc

SETTINGS = Settings(management_address="127.0.0.1", management_port=0, plain_http_address="127.0.0.1", ssl=False)


def agent_of(folder, **settings):
    paths = Paths(run=str(folder), etc=str(folder), pki=str(folder / "pki"))
    return SimpleNamespace(settings=dataclasses.replace(SETTINGS, **settings), paths=paths, events=Events())


async def call(connector, method, base="http://agent", **params):
    async with aiohttp.ClientSession(connector=connector, base_url=base) as session:
        message = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
        async with session.post("/jsonrpc", data=json.dumps(message)) as reply:
            return await reply.json()


def unix(agent):
    return aiohttp.UnixConnector(agent.paths.socket)


@pytest.fixture
async def started():
    running = []

    async def start(agent, **more):
        rpc = Rpc(agent, **more)
        await rpc.start()
        running.append(rpc)
        return rpc

    yield start
    for rpc in running:
        await rpc.stop()


def listening(rpc, kind):
    return next(transport for transport in rpc._transports if type(transport).__name__ == kind)


async def test_every_verb_is_there_on_the_agents_socket(started, tmp_path):
    agent = agent_of(tmp_path)
    await started(agent)
    described = (await call(unix(agent), "rpc.discover"))["result"]
    assert {"VM.create", "Host.ping2"} <= {method["name"] for method in described["methods"]}
    assert (await call(unix(agent), "Host.ping2"))["result"] is True


async def test_without_its_setting_nothing_listens_for_plain_http(started, tmp_path):
    rpc = await started(agent_of(tmp_path, plain_http_address=""))
    assert [type(transport).__name__ for transport in rpc._transports] == ["UnixListener", "EnginePort"]


async def test_plain_http_is_answered_where_it_is_set(started, tmp_path):
    rpc = await started(agent_of(tmp_path))
    port = listening(rpc, "TcpListener").port
    answer = await call(None, "Host.ping2", f"http://127.0.0.1:{port}")
    assert answer["result"] is True


async def test_an_engine_s_port_without_tls_is_for_reading(started, tmp_path):
    rpc = await started(agent_of(tmp_path))
    engine = listening(rpc, "EnginePort")
    async with asyncio.timeout(10):
        while not engine.port:
            await asyncio.sleep(0.005)
    peer = JavaPeer(engine.port, None)
    await peer.connect("0,0")
    try:
        assert (await peer.call("Host.ping2"))["result"] is True
    finally:
        await peer.close()


async def test_an_engine_s_port_waits_for_its_certificates(started, tmp_path, caplog):
    rpc = await started(agent_of(tmp_path, ssl=True))
    engine = listening(rpc, "EnginePort")
    async with asyncio.timeout(10):
        while f"{tmp_path}/pki" not in caplog.text:
            await asyncio.sleep(0.005)
    assert not engine.port


async def test_an_engine_is_told_to_wait_until_vms_are_found(started, tmp_path):
    agent = agent_of(tmp_path)
    found = []
    rpc = await started(agent, ready=lambda: bool(found))
    engine = listening(rpc, "EnginePort")
    async with asyncio.timeout(10):
        while not engine.port:
            await asyncio.sleep(0.005)
    peer = JavaPeer(engine.port, None)
    await peer.connect("0,0")
    try:
        assert (await peer.call("Host.ping2"))["error"]["code"] == 99
        assert (await call(unix(agent), "Host.ping2"))["result"] is True
        found.append(True)
        assert (await peer.call("Host.ping2"))["result"] is True
    finally:
        await peer.close()


async def test_changes_wait_until_the_parts_run(started, tmp_path):
    agent = agent_of(tmp_path)
    await started(agent, started=lambda: False)
    answer = await call(unix(agent), "VM.reset", vmID="6a3b1f0e-0000-4000-8000-000000000001")
    assert answer["error"]["code"] == 99


async def test_a_start_that_fails_leaves_nothing_that_listens(started, tmp_path):
    agent = agent_of(tmp_path)
    await started(agent)
    second = Rpc(agent_of(tmp_path))
    with pytest.raises(AlreadyListening):
        await second.start()
    await second.stop()
    assert (await call(unix(agent), "Host.ping2"))["result"] is True


async def test_after_the_stop_nothing_answers(tmp_path):
    agent = agent_of(tmp_path)
    rpc = Rpc(agent)
    await rpc.start()
    await rpc.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await call(unix(agent), "Host.ping2")
