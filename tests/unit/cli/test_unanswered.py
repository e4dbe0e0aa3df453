# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm status` when parts of the agent do not answer: what is shown in their place, and how the command ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from rich.console import Console

from vdsm.cli.exits import Exit
from vdsm.cli.overview import Overview, gather, screen
from vdsm.client import Client, NoAnswer, RpcError

LIBVIRT = RpcError("Host.getAllVmStats", 35, "libvirt does not answer")
LATE = NoAnswer("Host.getStats", 10.0)


class Agent:
    def __init__(self, **failures: Exception) -> None:
        self._failures = failures

    async def call(self, verb: str, params: Mapping[str, Any] | None = None, *, timeout_s: float) -> Any:
        name = verb.partition(".")[2]
        if name in self._failures:
            raise self._failures[name]
        return [] if name in ("getAllVmStats", "getConnectedStoragePools") else {"uuid": "host-1"}


def look(**failures: Exception) -> Overview:
    return asyncio.run(gather(cast(Client, Agent(**failures))))


def lines(seen: Overview) -> list[str]:
    out = Console(width=200, highlight=False)
    with out.capture() as taken:
        out.print(screen(seen))
    return [line.strip() for line in taken.get().splitlines()]


@pytest.mark.parametrize(
    ("verb", "title"),
    [
        ("getAllVmStats", "Virtual machines"),
        ("getCapabilities", "Networks"),
        ("getConnectedStoragePools", "Pool"),
        ("getStats", "Domains"),
    ],
)
def test_a_part_without_answer_says_why_in_its_place(verb: str, title: str) -> None:
    shown = lines(look(**{verb: LIBVIRT}))
    assert shown[shown.index(title) + 1] == "no answer: libvirt does not answer (code 35)"
    assert "Not answered" not in shown


def test_what_is_empty_is_none() -> None:
    shown = lines(look())
    assert shown[shown.index("Virtual machines") + 1] == "none"


@pytest.mark.parametrize(
    ("failures", "exit_code"),
    [
        ({}, Exit.DONE),
        ({"getAllVmStats": LIBVIRT}, Exit.REFUSED),
        ({"getStats": LATE}, Exit.NO_ANSWER),
        ({"getStats": LATE, "getAllVmStats": LIBVIRT}, Exit.NO_ANSWER),
    ],
)
def test_the_exit_code_is_that_of_the_worst_part(failures: dict[str, Exception], exit_code: Exit) -> None:
    assert look(**failures).exit is exit_code
