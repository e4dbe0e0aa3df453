# SPDX-License-Identifier: GPL-2.0-or-later
"""A change that takes long: what its caller hears, and what is told of it later."""

from __future__ import annotations

import asyncio

import pytest

from storage import under_way
from storage.spm.errors import ChangeUnderWay
from storage.under_way import Step, UnderWay


class Change:
    def __init__(self, *, fails: bool = False) -> None:
        self.go = asyncio.Event()
        self.ended = False
        self._fails = fails

    async def run(self) -> int:
        await self.go.wait()
        self.ended = True
        if self._fails:
            raise ValueError("the lease is another's")
        return 7


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def changes(told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> UnderWay:
    monkeypatch.setattr(under_way, "ANSWER_S", 0.02)
    return UnderWay(lambda about, sentence: told.append((about, sentence)))


async def test_what_ends_in_time_is_answered_and_told_to_nobody_else(
    changes: UnderWay, told: list[tuple[str, str]]
) -> None:
    change, failing = Change(), Change(fails=True)
    change.go.set()
    failing.go.set()
    assert await changes.wait("Attaching d", "d", Step("x"), change.run()) == 7
    with pytest.raises(ValueError, match="another's"):
        await changes.wait("Attaching d", "d", Step("x"), failing.run())
    assert told == []


@pytest.mark.parametrize(
    ("fails", "end"), [(False, "Attaching d has ended well"), (True, "Attaching d has failed: the lease is another's")]
)
async def test_what_takes_longer_says_what_it_is_at_goes_on_and_tells_its_end(
    changes: UnderWay, told: list[tuple[str, str]], fails: bool, end: str
) -> None:
    change, step = Change(fails=fails), Step("it reads d")
    step.take("it takes the lease of d at /mnt/x")
    with pytest.raises(
        ChangeUnderWay, match=r"Attaching d has not ended within 0.02 s.*takes the lease of d at /mnt/x"
    ):
        await changes.wait("Attaching d", "d", step, change.run())
    assert not change.ended
    change.go.set()
    async with asyncio.timeout(5):
        while not told:
            await asyncio.sleep(0)
    assert told == [("d", end)]


async def test_a_caller_that_goes_away_cuts_nothing_off(changes: UnderWay, told: list[tuple[str, str]]) -> None:
    change = Change()
    waiting = asyncio.ensure_future(changes.wait("Attaching d", "d", Step("x"), change.run()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    change.go.set()
    async with asyncio.timeout(5):
        while not told:
            await asyncio.sleep(0)
    assert change.ended


async def test_the_end_of_the_agent_ends_what_is_under_way(changes: UnderWay, told: list[tuple[str, str]]) -> None:
    change = Change()
    with pytest.raises(ChangeUnderWay):
        await changes.wait("Attaching d", "d", Step("x"), change.run())
    await changes.stop()
    assert (change.ended, told) == (False, [])
