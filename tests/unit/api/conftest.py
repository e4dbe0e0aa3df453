# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole agent, made and not started, behind a real dispatcher."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import pytest

from vdsm.agent import build
from vdsm.api import registry
from vdsm.api.call import Agent
from vdsm.api.roles import Identity, Role
from vdsm.common.paths import Paths
from vdsm.config import Settings
from vdsm.rpc.dispatcher import OWN, Caller, Dispatcher, Policy

ADMIN = Identity("tester", Role.ADMIN, "test")


class Asked:
    """Calls verbs of the real API over JSON."""

    def __init__(self, agent: Agent) -> None:
        self.is_started = True
        self.is_ready = True
        self.agent = agent
        self.dispatcher = Dispatcher(
            self.agent, registry.load(), ready=lambda: self.is_ready, started=lambda: self.is_started
        )

    async def ask(self, verb: str, params: Any, policy: Policy = OWN, role: Role = Role.ADMIN) -> dict[str, Any]:
        """The reply as an object; ``params`` is any JSON."""
        message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": verb, "params": params})
        reply = json.loads(await self.raw(message.encode(), policy, role) or b"{}")
        assert isinstance(reply, dict)
        return reply

    async def raw(self, message: bytes, policy: Policy = OWN, role: Role = Role.ADMIN) -> bytes | None:
        return await self.dispatcher.answer(message, Caller(dataclasses.replace(ADMIN, role=role), "test", policy))


def _agent(folder: str) -> Agent:
    names = [field.name for field in dataclasses.fields(Paths)]
    for name in names:
        os.makedirs(f"{folder}/{name}", exist_ok=True)
    paths = Paths(**{name: f"{folder}/{name}" for name in names})
    for path in paths.state_folders:  # the root helper makes them
        os.makedirs(path, exist_ok=True)
    return build(paths, Settings())


@pytest.fixture(scope="module")
def shared_agent(tmp_path_factory: Any) -> Agent:
    """One for tests that change nothing in it."""
    return _agent(str(tmp_path_factory.mktemp("agent")))


@pytest.fixture
async def shared_api(shared_agent: Agent) -> Any:
    asked = Asked(shared_agent)
    yield asked
    await asked.dispatcher.drain(1)


@pytest.fixture
async def api(tmp_path: Any) -> Any:
    asked = Asked(_agent(str(tmp_path)))
    yield asked
    await asked.dispatcher.drain(1)
