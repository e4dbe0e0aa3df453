# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's side of a change: which hooks run, whatever happens."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any, cast

import msgspec
import pytest
from test_plan import START

from network.errors import BadNic, ConnectivityLost
from network.service import Network
from vdsm.common.events import Events
from vdsm.common.paths import Paths

ABSENT = {"blue": {"nic": "eth9"}}


class Root:
    """A root helper of a host without devices, or one that answers nonsense."""

    def __init__(self, state: dict[str, Any] | None) -> None:
        self._state = state

    async def call(self, verb: str, params: object, *, timeout_s: float) -> Any:
        return {"state": self._state, "running": {}, "waiting": [], "drift": []}


@pytest.mark.parametrize(
    ("state", "error"),
    [({"links": [], "addresses": [], "routes": []}, BadNic), (None, Exception)],
    ids=["a bad request", "a fault"],
)
async def test_a_change_that_fails_for_any_reason_ends_with_the_hook_for_failures(
    state: dict[str, Any] | None, error: type[Exception]
) -> None:
    points = []

    async def run_hook(point: str, data: object) -> object:
        points.append(point)
        return data

    network = Network(paths=Paths(), root=Root(state), events=cast(Events, None), run_hook=run_hook)
    with pytest.raises(error):
        await network.setup_networks(ABSENT, {}, {})
    assert points == ["after_network_setup_fail"]


class Helper:
    """A root helper with NICs; what it was asked to do, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.applied = asyncio.Event()

    async def call(self, verb: str, params: object, *, timeout_s: float) -> Any:
        self.asked.append(verb)
        if verb == "Network.setup":
            self.applied.set()
            return "j1"
        return {"state": msgspec.to_builtins(asdict(START)), "running": {}, "waiting": [], "drift": []}


@pytest.fixture
def helper() -> Helper:
    return Helper()


@pytest.fixture
def agent(helper: Helper) -> Network:
    async def run_hook(point: str, data: object) -> object:
        return data

    return Network(paths=Paths(), root=helper, events=Events(), run_hook=run_hook)


BLUE = {"blue": {"nic": "eth0"}}


async def test_a_change_that_nobody_confirms_in_time_is_undone(agent: Network, helper: Helper) -> None:
    agent.confirm_connectivity()  # before it was applied: it says nothing of the new networks
    with pytest.raises(ConnectivityLost):
        await asyncio.wait_for(agent.setup_networks(BLUE, {}, {"connectivityTimeout": 0}), 5)
    assert helper.asked == ["Network.state", "Network.setup", "Network.undo"]


async def test_a_change_that_is_confirmed_in_time_is_kept(agent: Network, helper: Helper) -> None:
    changing = asyncio.ensure_future(agent.setup_networks(BLUE, {}, {"connectivityTimeout": 60}))
    await helper.applied.wait()
    async with asyncio.timeout(5):
        while not changing.done():
            agent.confirm_connectivity()
            await asyncio.sleep(0)
    await changing
    assert helper.asked == ["Network.state", "Network.setup", "Network.keep"]


async def test_what_a_killed_agent_left_unconfirmed_is_ended_at_the_next_start(agent: Network, helper: Helper) -> None:
    await agent.start()
    assert helper.asked == ["Network.finish"]
