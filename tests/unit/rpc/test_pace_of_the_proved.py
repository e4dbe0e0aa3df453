# SPDX-License-Identifier: GPL-2.0-or-later
"""The pace holds back who has not proved who it is, and no engine."""

import asyncio
import time

import pytest
from ports import opened

from tests.peers import JavaPeer
from vdsm.rpc import pace
from vdsm.rpc.policy import PolicyFile
from vdsm.rpc.port import Address, EnginePort

FRAMES = b"UNSUBSCRIBE\nid:nothing\n\n\0" * 1000


@pytest.fixture
async def plain(server):
    port = EnginePort(
        server.dispatcher, server.events, Address("127.0.0.1", 0), certificates=None, policy=PolicyFile("")
    )
    yield await opened(port)
    await port.stop()


async def seconds_for(peer, frames):
    began = time.monotonic()
    peer.write(frames)
    assert (await peer.call("Host.ping2"))["result"] is True
    return time.monotonic() - began


async def test_who_proves_nothing_is_slowed(plain, monkeypatch):
    peer = JavaPeer(plain.port, None)
    await peer.connect()
    # 2000 at once are free
    assert await seconds_for(peer, FRAMES * 4) >= (4000 - pace.FRAMES_PER_S) / pace.FRAMES_PER_S * 0.8
    await peer.close()


async def test_an_engine_is_not(port, pki):
    peer = JavaPeer(port.port, pki.engine())
    await peer.connect()
    assert await seconds_for(peer, FRAMES * 12) < (12_000 - pace.FRAMES_PER_S) / pace.FRAMES_PER_S * 0.8
    await peer.close()


async def test_an_engine_that_calls_without_pause_lets_others_in_between(port, pki):
    busy, other = JavaPeer(port.port, pki.engine()), JavaPeer(port.port, pki.engine())
    await busy.connect()
    await other.connect()
    busy.write(FRAMES * 20)
    began = time.monotonic()
    async with asyncio.timeout(5):
        assert (await other.call("Host.ping2"))["result"] is True
    assert time.monotonic() - began < 1.0
    await busy.close()
    await other.close()
