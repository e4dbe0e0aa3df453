# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 at every crash point of a network change: the old network is back in time, or the new one kept.

The root helper dies at its points, and the agent with it; the agent alone at its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import Any

import pytest

import network.service
import network.transaction  # noqa: F401 - declares its points
from contrib.lab.host import PrivateHost
from tests.hosts.test_network import FOLDER, UNCHECKED, dump, on_disk, wanted
from tests.soak import some
from vdsm.client import Client, RpcError
from vdsm.common.crashpoints import REGISTRY
from vdsm.common.errors import AgentError

POINTS = sorted(name for name in REGISTRY if name.startswith("network."))
# one of each flow; a unit test dies at all of them, `make soak` here too
OFTEN = ("network.setup.journaled", "network.setup.step.link_set", "network.commit.written", "network.agent.applied")
OFTEN += ("network.rollback.undone", "network.remove.step.link_del")
KEPT = ("network.commit.",)
REMOVING = ("network.remove.", "network.setup.step.route_del", "network.setup.step.addr_del")
DEADLINE_S = 45.0  # the switch's 21 s, and what a busy machine takes


def until(condition: Any, seconds: float) -> float:
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            pytest.fail(f"not within {seconds} s")
        time.sleep(0.05)
    return time.monotonic() - started


async def ask(host: PrivateHost, networks: dict[str, Any], options: dict[str, Any]) -> None:
    with contextlib.suppress(RpcError, AgentError, OSError):
        async with host.client() as client:
            params = {"networks": networks, "bondings": {}, "options": options}
            await client.call("Host.setupNetworks", params, timeout_s=60)


@pytest.mark.cost(6)
@pytest.mark.parametrize("point", some(POINTS, OFTEN))
async def test_death_at_a_point_leads_to_the_old_network_or_the_new(fresh_host: PrivateHost, point: str) -> None:
    host = fresh_host
    removing = point.startswith("network.remove.")
    if removing:
        host.start_agent()
        await ask(host, {"blue": wanted(host)}, UNCHECKED)
        host.kill_agent()
        host.kill_root_helper()
    before = dump(host), dict(on_disk(host).items())
    host.start_agent({"VDSM_CRASH_AT": point})
    change = {"remove": "true"} if removing else wanted(host)
    options = {"connectivityTimeout": 1} if point.startswith("network.rollback.") else UNCHECKED
    root_dies = not point.startswith("network.agent.")
    await ask(host, {"blue": change}, options)
    if root_dies:
        assert host.control.wait(host.root_pid, timeout_s=10) == -9, "the point was not reached"
        host.kill_agent()
    else:
        assert host.wait_agent(timeout_s=10) == -9, "the point was not reached"
    journal = host.path(f"{FOLDER}/journal")
    kept = point.startswith(KEPT)
    if root_dies and point != "network.setup.journaled":
        until(lambda: not journal.exists(), DEADLINE_S)  # by the process that outlives both
        assert kept == ("blue" in host.run(["ip", "-br", "link"]).stdout.decode()) or removing
    host.start_agent()
    assert not journal.exists()
    async with host.client() as client:
        caps = await client.call("Host.getCapabilities")
        assert ("blue" in caps["networks"]) == (kept or removing)
        if not kept and not removing:
            assert dump(host) == before[0]
        if removing:
            assert caps["networks"]["blue"]["addr"] == host.spec.address.split("/")[0]
            assert caps["networks"]["blue"]["ports"] == ["eth0"]
        await _usable(client, host)


async def _usable(client: Client, host: PrivateHost) -> None:
    params = {"networks": {"blue": wanted(host)}, "bondings": {}, "options": UNCHECKED}
    await client.call("Host.setupNetworks", params, timeout_s=60)
    assert "blue" in (await client.call("Host.getCapabilities"))["networks"]


@pytest.mark.cost(30)
async def test_dead_agent_and_hanging_helper_do_not_keep_an_unconfirmed_network(fresh_host: PrivateHost) -> None:
    host = fresh_host
    before = dump(host)
    host.start_agent()
    options = {"connectivityTimeout": 1}
    asking = asyncio.create_task(ask(host, {"blue": wanted(host)}, options))
    while "blue" not in host.run(["ip", "-br", "link"]).stdout.decode():
        await asyncio.sleep(0.02)
    host.control.signal(host.root_pid, signal.SIGSTOP)
    host.kill_agent()
    await asking
    journal = host.path(f"{FOLDER}/journal")
    until(lambda: not journal.exists(), DEADLINE_S)  # 20 s for the steps, 1 s for the confirmation
    assert dump(host) == before
    host.control.signal(host.root_pid, signal.SIGCONT)
    host.start_agent()
    async with host.client() as client:
        assert (await client.call("Host.getCapabilities"))["networks"] == {}
        await _usable(client, host)
