# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that wait for a peer to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from vdsm.rpc import outbox as outbox_module
from vdsm.rpc.outbox import Outbox, Outboxes


class Stuck(asyncio.Transport):
    """Takes one frame and is full."""

    def __init__(self) -> None:
        super().__init__()
        self.box: Outbox | None = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        assert self.box is not None
        self.box.pause()


def stuck(boxes: Outboxes, reasons: list[str]) -> Outbox:
    transport = Stuck()
    transport.box = Outbox(transport, reasons.append, boxes)
    return transport.box


async def test_of_boxes_that_are_too_full_together_the_fullest_is_given_up() -> None:
    boxes = Outboxes(most=100)
    few: list[str] = []
    many: list[str] = []
    small, large = stuck(boxes, few), stuck(boxes, many)
    for box, count in ((large, 6), (small, 4)):
        for _ in range(count):
            box.send(b"x" * 10)
    assert (few, many) == ([], [])
    small.send(b"x")
    assert (few, many) == ([], ["101 bytes wait on all connections, most of them, 60, for it"])
    assert len(boxes) == 41


async def test_what_was_sent_or_lost_is_not_held() -> None:
    boxes = Outboxes(most=100)
    one, other = stuck(boxes, []), stuck(boxes, [])
    for box in (one, other):
        box.send(b"x" * 10)
        box.send(b"x" * 20)
    assert len(boxes) == 60
    one.resume()
    assert len(boxes) == 50
    one.resume()
    other.close()
    assert len(boxes) == 0


@pytest.fixture
async def sockets() -> AsyncIterator[asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """A server that hands its connections out."""
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda *both: accepted.put_nowait(both), "127.0.0.1", 0)
    accepted.port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    yield accepted
    server.close()


class Sender(asyncio.Protocol):
    def __init__(self) -> None:
        self.reasons: asyncio.Queue[str] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.box = Outbox(transport, self.reasons.put_nowait, Outboxes())

    def pause_writing(self) -> None:
        self.box.pause()

    def resume_writing(self) -> None:
        self.box.resume()

    def connection_lost(self, error: Exception | None) -> None:
        self.box.close()


async def test_a_peer_that_takes_nothing_is_given_up(sockets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "UNREAD_S", 0.2)
    _, sender = await asyncio.get_running_loop().create_connection(Sender, "127.0.0.1", sockets.port)
    _, writer = await sockets.get()
    writer.transport.pause_reading()
    sender.box.send(b"x" * (16 << 20))
    assert await asyncio.wait_for(sender.reasons.get(), 5) == "it has taken nothing for 0.2 s"
    sender.transport.abort()
    writer.close()


async def test_a_slow_peer_that_reads_is_not_given_up(sockets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame takes it many times as long as a peer may take nothing."""
    monkeypatch.setattr(outbox_module, "UNREAD_S", 0.2)
    _, sender = await asyncio.get_running_loop().create_connection(Sender, "127.0.0.1", sockets.port)
    reader, writer = await sockets.get()
    frame = b"x" * (16 << 20)
    sender.box.send(frame)
    taken = 0
    while taken < len(frame):
        taken += len(await asyncio.wait_for(reader.read(1 << 18), 5))
        await asyncio.sleep(0.02)  # slow is what it is
    assert sender.reasons.empty()
    sender.transport.abort()
    writer.close()


async def test_a_peer_that_has_nothing_to_take_is_not_given_up(sockets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "UNREAD_S", 0.05)
    _, sender = await asyncio.get_running_loop().create_connection(Sender, "127.0.0.1", sockets.port)
    reader, writer = await sockets.get()
    frame = b"x" * (16 << 20)
    sender.box.send(frame)
    await asyncio.wait_for(reader.readexactly(len(frame)), 10)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sender.reasons.get(), 0.3)
    sender.transport.abort()
    writer.close()
