# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that wait for their turn of the loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from vdsm.common.stomp import Frame, Limits, NotStomp
from vdsm.rpc import intake as intake_module
from vdsm.rpc.intake import FRAMES_OF_A_TURN, Intake, Taker
from vdsm.rpc.pace import Pace


class Connection(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.reads = True
        self.closes = False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.closes


class Session:
    """Notes what it takes; it has room for ``room`` frames."""

    def __init__(self, room: float = float("inf")) -> None:
        self.connection = Connection()
        self.room = room
        self.taken: list[int] = []
        self.refused: list[NotStomp] = []
        self.done = asyncio.Event()
        taker = Taker(self.take, self.refused.append, lambda: len(self.taken) < self.room)
        self.intake = Intake(self.connection, taker, Limits(), Pace())

    def take(self, frame: Frame) -> None:
        self.taken.append(int(frame.headers["id"]))
        if not int(frame.headers.get("more", "1")):
            self.done.set()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module.Pace, "delay_s", lambda *_: 0.0)


def frames(count: int, first: int = 0) -> bytes:
    """Of which the last one says that none follow."""
    return b"".join(b"SEND\nid:%d\nmore:%d\n\n\0" % (first + n, n < count - 1) for n in range(count))


async def turn() -> None:
    """The loop has run all that was due."""
    loop = asyncio.get_running_loop()
    due = asyncio.Event()
    loop.call_later(0, due.set)
    await due.wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await turn()


async def test_a_turn_takes_so_many_frames_and_the_loop_runs_before_the_next(fast: None) -> None:
    session = Session()
    session.intake.add(frames(3 * FRAMES_OF_A_TURN))
    seen = [len(session.taken)]
    while len(seen) < 10 and not session.done.is_set():
        await turn()
        seen.append(len(session.taken))
    assert seen[0] == FRAMES_OF_A_TURN
    assert all(after - before <= FRAMES_OF_A_TURN for before, after in itertools.pairwise(seen))


async def test_all_frames_are_taken_in_order(fast: None) -> None:
    session = Session()
    wire = frames(1000)
    session.intake.add(wire[:-5])
    await until(lambda: session.connection.reads)
    session.intake.add(wire[-5:])
    async with asyncio.timeout(5):
        await session.done.wait()
    assert session.taken == list(range(1000))


async def test_nothing_is_read_while_frames_wait(fast: None) -> None:
    session = Session()
    session.intake.add(frames(FRAMES_OF_A_TURN + 1))
    assert not session.connection.reads
    async with asyncio.timeout(5):
        await session.done.wait()
    await until(lambda: session.connection.reads)


async def test_without_room_frames_wait_until_there_is(fast: None) -> None:
    session = Session(room=2)
    session.intake.add(frames(3))
    await turn()
    assert (session.taken, session.connection.reads) == ([0, 1], False)
    session.room = 4
    session.intake.go_on()
    await until(lambda: session.connection.reads)
    assert session.taken == [0, 1, 2]


async def test_room_does_not_end_the_wait_for_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module.Pace, "delay_s", lambda *_: 60.0)
    session = Session()
    session.intake.add(frames(FRAMES_OF_A_TURN + 1))
    session.intake.go_on()
    await turn()
    assert (len(session.taken), session.connection.reads) == (FRAMES_OF_A_TURN, False)
    session.intake.close()


async def test_of_a_connection_that_closes_no_more_frames_are_taken(fast: None) -> None:
    session = Session()
    session.intake.add(frames(FRAMES_OF_A_TURN + 1))
    session.connection.closes = True
    await turn()
    await turn()
    assert len(session.taken) == FRAMES_OF_A_TURN


async def test_frames_before_one_that_is_none_are_taken(fast: None) -> None:
    session = Session()
    session.intake.add(frames(2) + b"HELLO\n\n\0")
    assert session.taken == [0, 1]
    assert ["it begins with 'HELLO'" in str(error) for error in session.refused] == [True]


async def test_a_peer_is_not_silent_while_nobody_reads(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(room=1)
    session.intake.add(frames(2))
    now = asyncio.get_running_loop().time() + 60
    monkeypatch.setattr(session.intake._loop, "time", lambda: now)
    assert session.intake.quiet_s == 0
    monkeypatch.undo()
    session.intake.close()
