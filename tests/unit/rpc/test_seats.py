# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import asyncio

import pytest

from vdsm.rpc.seats import NoSeat, Seats


def seated(seats: Seats, client: str, count: int) -> list[asyncio.BaseTransport]:
    connections = [asyncio.BaseTransport() for _ in range(count)]
    for connection in connections:
        assert seats.take(client, connection) is None
    return connections


def test_a_client_with_its_share_gets_no_more() -> None:
    seats = Seats(most=10, most_of_client=2)
    seated(seats, "own", 2)
    with pytest.raises(NoSeat, match="its client has 2 connections"):
        seats.take("own", asyncio.BaseTransport())
    assert len(seats) == 2


def test_another_client_is_not_kept_out_by_one_with_its_share() -> None:
    seats = Seats(most=10, most_of_client=2)
    seated(seats, "many", 2)
    assert seats.take("other", asyncio.BaseTransport()) is None


def test_when_all_seats_are_taken_the_oldest_of_the_client_with_most_makes_room() -> None:
    seats = Seats(most=5, most_of_client=3)
    few, many = seated(seats, "few", 2), seated(seats, "many", 3)
    assert seats.take("newcomer", asyncio.BaseTransport()) is many[0]
    assert seats.take("newcomer", asyncio.BaseTransport()) is few[0]
    assert len(seats) == 5


def test_a_client_with_as_many_as_any_makes_nobody_go() -> None:
    seats = Seats(most=4, most_of_client=3)
    seated(seats, "one", 2)
    seated(seats, "two", 2)
    with pytest.raises(NoSeat, match="the port has 4 connections"):
        seats.take("one", asyncio.BaseTransport())
    assert len(seats) == 4


def test_who_leaves_makes_room_and_leaving_twice_is_nothing() -> None:
    seats = Seats(most=4, most_of_client=2)
    first, _ = seated(seats, "own", 2)
    seats.leave("own", first)
    seats.leave("own", first)
    assert len(seats) == 1
    seated(seats, "own", 1)
