# SPDX-License-Identifier: GPL-2.0-or-later
import asyncio
import logging

import pytest

from vdsm.common import repeats
from vdsm.common.repeats import Repeats

log = logging.getLogger("test")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(repeats, "QUIET_S", 0.05)


async def test_the_first_is_told_and_the_others_counted(caplog):
    told = Repeats(log)
    for number in range(1000):
        told.tell("kind", f"number {number}")
    assert caplog.messages == ["number 0"]
    async with asyncio.timeout(5):
        while len(caplog.messages) < 2:
            await asyncio.sleep(0.01)
    assert caplog.messages[1] == "999 more like: number 0"


async def test_kinds_do_not_hide_each_other(caplog):
    told = Repeats(log)
    for kind in "abc":
        told.tell(kind, kind)
    assert caplog.messages == ["a", "b", "c"]


async def test_a_kind_that_has_ended_is_told_anew(caplog):
    told = Repeats(log)
    told.tell("kind", "first")
    async with asyncio.timeout(5):
        while told._more:
            await asyncio.sleep(0.01)
    told.tell("kind", "again")
    assert caplog.messages == ["first", "again"]


async def test_a_thousand_kinds_are_not_a_thousand_lines(caplog):
    told = Repeats(log)
    for number in range(1000):
        told.tell(number, f"kind {number}")
    assert len(caplog.messages) == repeats.MOST_KINDS + 1
