# SPDX-License-Identifier: GPL-2.0-or-later
"""The order in which the agent's parts start and stop."""

from types import SimpleNamespace

from vdsm import agent
from vdsm.common.clocks import Clock


class Part:
    recovered = True

    def __init__(self, name, told):
        self._name, self._told = name, told

    async def start(self):
        self._told.append(f"start {self._name}")

    async def stop(self):
        self._told.append(f"stop {self._name}")

    async def run_empty(self, point):
        self._told.append(point)


async def test_the_listener_starts_first_and_stops_first(monkeypatch):
    told = []
    monkeypatch.setattr(agent, "Rpc", lambda *_, **__: Part("rpc", told))
    monkeypatch.setattr(agent, "Expiry", lambda *_: Part("certificates", told))
    parts = {name: Part(name, told) for name in ("hooks", "network", "storage", "vms", "host")}
    stops = []
    await agent._start(SimpleNamespace(**parts, paths=SimpleNamespace(pki=""), events=None), stops, Clock("start"))
    assert told == [
        *("before_vdsm_start", "start rpc", "start network", "start storage"),
        *("start vms", "start host", "start certificates"),
    ]
    told.clear()
    await agent._stop(stops)
    assert told == [
        *("stop rpc", "stop certificates", "stop host", "stop vms"),
        *("stop storage", "stop network", "after_vdsm_stop"),
    ]
