# SPDX-License-Identifier: GPL-2.0-or-later
"""Who waits for a turn on a place is told when nothing more is going to begin there."""

import asyncio
from collections.abc import Iterator

import pytest

from vdsm.common import hanging

PLACE = "/mnt/dead"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hanging, "SETTLE_S", 0.02)
    yield
    assert not hanging.pids(PLACE)
    assert not hanging._listeners


def given_up(count: int) -> list[asyncio.Future[None]]:
    ends = [asyncio.get_running_loop().create_future() for _ in range(count)]
    for pid, end in enumerate(ends, 1):
        hanging.give_up(PLACE, pid, end)
    return ends


async def all_end(ends: list[asyncio.Future[None]]) -> None:
    for end in ends:
        end.set_result(None)
    await hanging.settle(PLACE, 1)
    await asyncio.sleep(0)


async def test_it_is_told_once_the_bound_is_reached_and_at_each_one_more() -> None:
    told: list[str] = []
    with hanging.told(PLACE, lambda: told.append("one")), hanging.told(PLACE, lambda: told.append("other")):
        ends = given_up(hanging.MOST - 1)
        await asyncio.sleep(0.05)
        assert told == []
        ends += given_up(1)
        assert told == []  # what was killed just now may end in a moment
        await asyncio.sleep(0.05)
        assert told == ["one", "other"]
        ends += given_up(1)
        await asyncio.sleep(0.05)
        assert told == ["one", "other"] * 2
    ends += given_up(1)
    await asyncio.sleep(0.05)
    assert len(told) == 4  # nobody waits any more
    await all_end(ends)


async def test_processes_that_end_in_a_moment_are_not_told() -> None:
    told: list[str] = []
    with hanging.told(PLACE, lambda: told.append("one")):
        await all_end(given_up(hanging.MOST))
        await asyncio.sleep(0.05)
    assert told == []


async def test_another_place_is_not_told() -> None:
    told: list[str] = []
    with hanging.told("/mnt/well", lambda: told.append("one")):
        ends = given_up(hanging.MOST)
        await asyncio.sleep(0.05)
    assert told == []
    await all_end(ends)
