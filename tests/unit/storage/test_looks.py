# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at places that may hang: shared, in bounded number, and none of them waits for a dead place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage import looks as looks_module
from storage.errors import IoFailed, StorageNotResponding
from storage.looks import Looks

SILENT_S = 0.05


class Places:
    """What lies where. A look at a place in ``slow`` stands still; one in ``dead`` ends by its deadline, then."""

    def __init__(self, **holding: list[str]) -> None:
        self.holding: dict[str, list[str]] = holding
        self.slow: dict[str, asyncio.Event] = {}
        self.dead: set[str] = set()
        self.begun: list[str] = []
        self.ended = asyncio.Event()

    async def look(self, place: str) -> list[str]:
        self.begun.append(place)
        found = list(self.holding[place])
        if place in self.slow:
            await self.slow[place].wait()
        if place in self.dead:
            raise StorageNotResponding(place, "list_folder", 10.0)
        self.ended.set()
        return found


@pytest.fixture
async def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setattr(looks_module, "SILENT_S", SILENT_S)
    return Places(a=["one"], b=["two"])


@pytest.fixture
async def looks(places: Places) -> AsyncIterator[Looks]:
    made = Looks(places.look)
    yield made
    await made.close()


async def test_what_lies_somewhere_is_found_there(looks: Looks) -> None:
    assert await looks.search(["a", "b"], "two") == ("b", [])
    assert await looks.search(["a", "b"], "three") == (None, [])


async def test_it_is_found_without_waiting_for_a_slow_place(looks: Looks, places: Places) -> None:
    places.slow["a"] = asyncio.Event()
    async with asyncio.timeout(5):
        assert await looks.search(["a", "b"], "two") == ("b", [])


async def test_a_search_takes_what_a_running_look_finds(looks: Looks, places: Places) -> None:
    go = places.slow["a"] = asyncio.Event()
    searches = [asyncio.ensure_future(looks.search(["a"], "one")) for _ in range(20)]
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*searches) == [("a", [])] * 20
    assert places.begun == ["a"]


async def test_what_was_made_after_a_look_began_is_found_by_one_more_for_all(looks: Looks, places: Places) -> None:
    go = places.slow["a"] = asyncio.Event()
    first = asyncio.ensure_future(looks.search(["a"], "one"))
    for _ in range(3):
        await asyncio.sleep(0)
    places.holding["a"] = ["one", "new"]  # by another host
    later = [asyncio.ensure_future(looks.search(["a"], "new")) for _ in range(20)]
    for _ in range(3):
        await asyncio.sleep(0)
    go.set()
    assert await first == ("a", [])
    assert await asyncio.gather(*later) == [("a", [])] * 20
    assert places.begun == ["a", "a"]


async def test_a_miss_after_all_was_looked_at_begins_one_look_for_all_that_come_with_it(
    looks: Looks, places: Places
) -> None:
    await looks.search(["a", "b"], "one")
    places.begun.clear()
    places.holding["b"].append("new")
    answers = await asyncio.gather(*(looks.search(["a", "b"], name) for name in ("new", "none", "new", "else")))
    assert answers == [("b", []), (None, []), ("b", []), (None, [])]
    assert sorted(places.begun) == ["a", "a", "b", "b"]  # one of a place, and one after it for those who came later


async def test_a_place_that_does_not_answer_is_named(looks: Looks, places: Places) -> None:
    places.dead.add("a")
    assert await looks.search(["a", "b"], "three") == (None, ["a"])


async def test_a_place_that_was_silent_is_waited_for_a_moment_only(looks: Looks, places: Places) -> None:
    places.dead.add("a")
    await looks.search(["a"], "three")
    places.slow["a"] = asyncio.Event()  # its look does not end for long
    async with asyncio.timeout(20 * SILENT_S):
        answers = await asyncio.gather(*(looks.search(["a", "b"], "three") for _ in range(10)))
    assert answers == [(None, ["a"])] * 10
    assert places.begun.count("a") == 2


async def test_a_place_that_came_back_is_found_by_the_look_beside(looks: Looks, places: Places) -> None:
    places.dead.add("a")
    await looks.search(["a"], "one")
    places.dead.clear()
    go = places.slow["a"] = asyncio.Event()
    assert await looks.search(["a"], "one") == (None, ["a"])
    go.set()
    await places.ended.wait()
    assert await looks.search(["a"], "one") == ("a", [])
    go.clear()  # it answers, and takes its time
    search = asyncio.ensure_future(looks.search(["a"], "one"))
    await asyncio.wait([search], timeout=3 * SILENT_S)
    assert not search.done()
    go.set()
    assert await search == ("a", [])


async def test_a_place_that_is_connected_anew_was_never_silent(looks: Looks, places: Places) -> None:
    places.dead.add("a")
    await looks.search(["a"], "one")
    places.dead.clear()
    looks.forget("a")
    go = places.slow["a"] = asyncio.Event()
    search = asyncio.ensure_future(looks.search(["a"], "one"))
    await asyncio.wait([search], timeout=3 * SILENT_S)
    assert not search.done()
    go.set()
    assert await search == ("a", [])


async def test_a_searcher_that_goes_away_cancels_no_look(looks: Looks, places: Places) -> None:
    go = places.slow["a"] = asyncio.Event()
    first, second = (asyncio.ensure_future(looks.search(["a"], "one")) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await second == ("a", [])
    assert places.begun == ["a"]


async def test_a_fresh_look_shows_what_was_there_before_it_was_asked_for(looks: Looks, places: Places) -> None:
    go = places.slow["a"] = asyncio.Event()
    first = asyncio.ensure_future(looks.fresh("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    places.holding["a"] = ["one", "new"]
    second, third = (asyncio.ensure_future(looks.fresh("a")) for _ in range(2))
    await asyncio.sleep(0)
    go.set()
    assert [await first, await second, await third] == [["one"], ["one", "new"], ["one", "new"]]
    assert places.begun == ["a", "a"]


async def test_a_fresh_look_that_fails_says_why_and_the_next_begins_anew(looks: Looks, places: Places) -> None:
    places.dead.add("a")
    with pytest.raises(StorageNotResponding):
        await looks.fresh("a")
    places.dead.clear()
    assert await looks.fresh("a") == ["one"]


async def test_what_refuses_one_place_keeps_none_from_being_searched(places: Places) -> None:
    async def look(place: str) -> list[str]:
        if place == "a":
            raise IoFailed("list_folder", place, "EACCES", "Permission denied")
        return await places.look(place)

    looks = Looks(look)
    assert await looks.search(["a", "b"], "two") == ("b", [])
    assert await looks.search(["a", "b"], "three") == (None, ["a"])
    await looks.close()
