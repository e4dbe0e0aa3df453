# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's side of a change: which hooks run, whatever happens."""

from __future__ import annotations

from typing import Any, cast

import pytest

from network.errors import BadNic
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
