# SPDX-License-Identifier: GPL-2.0-or-later
"""Heart-beats between clocks that are not the same: real stomp.py, and a client that is as late as it may be."""

import asyncio
import contextlib
import queue
import time

import pytest
import stomp
from ports import opened

from tests.peers import JavaPeer
from vdsm.rpc import stomp_session
from vdsm.rpc.policy import PolicyFile
from vdsm.rpc.port import Address, EnginePort


@pytest.fixture
async def plain(server):
    port = EnginePort(
        server.dispatcher, server.events, Address("127.0.0.1", 0), certificates=None, policy=PolicyFile("")
    )
    yield await opened(port)
    await port.stop()


class _Told(stomp.ConnectionListener):
    def __init__(self):
        self.answers = queue.Queue()
        self.lost = False

    def on_message(self, frame):
        self.answers.put(frame.body)

    def on_disconnected(self):
        self.lost = True


CALL = '{"jsonrpc":"2.0","method":"Host.ping2","id":1}'


async def test_an_idle_stomp_py_is_not_dropped(plain):
    def idle_for(seconds, promised_ms):
        told = _Told()
        connection = stomp.StompConnection12([("127.0.0.1", plain.port)], heartbeats=(promised_ms, 0))
        connection.set_listener("", told)
        connection.connect(wait=True)
        connection.subscribe("replies", id="1", ack="auto")
        time.sleep(seconds)
        connection.send("jms.topic.vdsm_requests", CALL, headers={"reply-to": "replies"})
        answer = told.answers.get(timeout=5)
        lost = told.lost
        connection.disconnect()
        return lost, '"result":true' in answer

    ends = await asyncio.gather(*(asyncio.to_thread(idle_for, 3.5, promised) for promised in (500, 1000, 1300)))
    assert ends == [(False, True)] * 3


@pytest.fixture
def quick(monkeypatch):
    """A promise of 0.1 s is taken at its word, and the margin of short promises is 0.4 s."""
    monkeypatch.setattr(stomp_session, "MIN_BEAT_S", 0.1)
    monkeypatch.setattr(stomp_session, "LEAST_MARGIN_S", 0.4)


async def test_a_beat_that_is_as_late_as_a_busy_client_sends_it_is_in_time(plain, quick):
    peer = JavaPeer(plain.port, None)
    await peer.connect("100,0")
    for _ in range(3):
        await asyncio.sleep(0.3)
        peer.write(b"\n")
    assert (await peer.call("Host.ping2"))["result"] is True
    await peer.close()


@pytest.mark.parametrize(("promised_s", "least_s", "most_s"), [(1, 2, 4), (15, 20, 45), (60, 75, 180)])
def test_silence_is_granted_in_proportion_to_the_promise(promised_s, least_s, most_s):
    assert least_s <= stomp_session.silence_s(promised_s) <= most_s


def test_who_promises_nothing_may_be_silent_for_ever():
    assert stomp_session.silence_s(0) == 0


async def test_a_client_that_promised_beats_and_is_silent_is_dropped(plain, quick, caplog):
    peer = JavaPeer(plain.port, None)
    await peer.connect("100,0")
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        async with asyncio.timeout(5):
            await peer.record()
            raise AssertionError("the agent said something")
    assert "nothing came for" in caplog.text
    await peer.close()
