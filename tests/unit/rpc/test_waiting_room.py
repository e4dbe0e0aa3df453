# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import asyncio

from vdsm.rpc.waiting_room import WaitingRoom


class Connection(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


def entered(room: WaitingRoom, address: str, count: int) -> list[Connection]:
    connections = [Connection() for _ in range(count)]
    for connection in connections:
        room.enter(address, connection)
    return connections


def test_an_address_with_too_many_loses_its_oldest() -> None:
    room = WaitingRoom(most=10, most_of_address=2)
    others, own = entered(room, "other", 2), entered(room, "own", 3)
    assert [connection.is_aborted for connection in own] == [True, False, False]
    assert not any(connection.is_aborted for connection in others)
    assert len(room) == 4


def test_of_a_full_room_the_address_with_most_loses_its_oldest() -> None:
    room = WaitingRoom(most=4, most_of_address=3)
    many, few = entered(room, "many", 3), entered(room, "few", 1)
    assert room.enter("newcomer", Connection())
    assert [connection.is_aborted for connection in many] == [True, False, False]
    assert not few[0].is_aborted
    assert len(room) == 4


def test_who_leaves_makes_room_and_leaving_twice_is_nothing() -> None:
    room = WaitingRoom(most=4, most_of_address=2)
    first, second = entered(room, "own", 2)
    room.leave("own", first)
    room.leave("own", first)
    assert len(room) == 1
    assert not room.enter("own", Connection())
    assert not second.is_aborted
