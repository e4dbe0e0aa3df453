# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks by the helper's verbs, on the kernel, in a network of the test's own."""

import asyncio
import json
import os
import subprocess

import pytest

from network.errors import BadParams, NotPending
from network.kernel import Kernel
from vdsm.root.server import network, verbs
from vdsm.root.server.registry import Helper, dispatch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network of its own")

RED = {"red": {"nic": "eth0", "ipaddr": "192.0.2.1", "prefix": "24"}}


@pytest.fixture(autouse=True)
def nic(own_network):
    plug()
    yield
    for changes in network._transactions.values():
        if changes._switch is not None:
            changes._switch.disarm()
    network._transactions.clear()


def plug():
    subprocess.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire"], check=True)


def links():
    out = subprocess.run(["ip", "-j", "link"], check=True, capture_output=True).stdout
    return {link["ifname"]: link for link in json.loads(out)}


async def setup(helper, networks=RED, wait_s=0.0, persist=False):
    params = {"networks": networks, "bondings": {}, "wait_s": wait_s, "persist": persist}
    return await dispatch(helper, "Network.setup", params)


async def state(helper):
    return await dispatch(helper, "Network.state", {})


async def test_the_state_of_a_host_without_networks(helper):
    answer = await state(helper)
    assert {link["name"] for link in answer["state"]["links"]} == {"lo", "eth0", "wire"}
    assert {name: answer[name] for name in ("running", "persistent", "waiting", "drift")} == {
        "running": {},
        "persistent": {},
        "waiting": [],
        "drift": [],
    }


async def test_a_network_that_is_kept_runs_and_is_persistent_when_asked(helper):
    change = await setup(helper)
    assert links()["eth0"]["master"] == "red"
    await dispatch(helper, "Network.keep", {"id": change})
    answer = await state(helper)
    assert (list(answer["running"]), answer["running"]["red"]["nic"], answer["drift"]) == (["red"], "eth0", [])
    assert answer["persistent"] == {}
    await dispatch(helper, "Network.persist", {})
    assert (await state(helper))["persistent"] == answer["running"]
    again = Helper(helper.paths, 36, 36)
    assert (await state(again))["running"] == answer["running"]
    with open(f"{helper.paths.root_state}/network/persistent") as f:
        assert "red" in f.read()


async def test_a_network_can_be_persistent_at_once(helper):
    await dispatch(helper, "Network.keep", {"id": await setup(helper, persist=True)})
    assert list((await state(helper))["persistent"]) == ["red"]


async def test_a_change_that_is_undone_leaves_nothing(helper):
    change = await setup(helper)
    await dispatch(helper, "Network.undo", {"id": change})
    assert set(links()) == {"lo", "eth0", "wire"}
    assert (await state(helper))["running"] == {}
    with pytest.raises(NotPending):
        await dispatch(helper, "Network.keep", {"id": change})


async def test_a_change_of_an_agent_that_is_gone_is_finished_by_the_next(helper):
    await setup(helper, wait_s=60.0)
    assert await dispatch(helper, "Network.finish", {}) == "rolled back"
    assert set(links()) == {"lo", "eth0", "wire"}
    assert await dispatch(helper, "Network.finish", {}) == ""


@pytest.mark.parametrize("wait_s", [-0.5, 600.5])
async def test_a_wait_has_limits(helper, wait_s):
    with pytest.raises(BadParams, match=f"'wait_s' is invalid: from 0 to 600 \\(got {wait_s}"):
        await setup(helper, wait_s=wait_s)
    assert set(links()) == {"lo", "eth0", "wire"}


async def test_a_helper_that_starts_undoes_what_a_killed_one_left(helper):
    await setup(helper, wait_s=60.0)
    killed = dict(network._transactions)
    network._transactions.clear()  # another process
    await verbs.recover(Helper(helper.paths, 36, 36))
    assert set(links()) == {"lo", "eth0", "wire"}
    network._transactions.update(killed)


async def test_drift_is_told(helper, caplog):
    await dispatch(helper, "Network.keep", {"id": await setup(helper)})
    subprocess.run(["ip", "link", "set", "eth0", "nomaster"], check=True)
    (line,) = (await state(helper))["drift"]
    assert "eth0" in line
    await verbs.recover(helper)
    assert line in caplog.text


async def test_persistent_networks_run_again_after_boot_and_those_without_a_nic_wait_for_it(helper, monkeypatch):
    await dispatch(helper, "Network.keep", {"id": await setup(helper, persist=True)})
    os.unlink(f"{helper.paths.root_state}/network/running")  # it is of one boot
    for name in ("red", "eth0"):
        subprocess.run(["ip", "link", "del", name], check=True)
    await verbs.recover(helper)
    assert (await state(helper))["waiting"] == ["red"]
    assert "red" not in links()
    plug()
    await asyncio.wait(network._late, timeout=60)
    assert links()["eth0"]["master"] == "red"
    assert network._late == set()
    answer = await state(helper)
    assert (list(answer["running"]), answer["waiting"]) == (["red"], [])


async def test_a_helper_serves_although_networks_cannot_be_recovered(helper, caplog):
    os.makedirs(f"{helper.paths.root_state}/network/journal")
    await verbs.recover(helper)
    assert "networks were not recovered" in caplog.text
    assert await dispatch(helper, "Mount.list", {}) == {}


def routes():
    out = subprocess.run(["ip", "-j", "route"], check=True, capture_output=True).stdout
    return json.loads(out)


async def test_a_gateway_outside_the_network_is_reached_on_its_device(helper):
    subprocess.run(["ip", "link", "set", "wire", "up"], check=True)
    off_link = {"nic": "eth0", "ipaddr": "192.0.2.1", "prefix": "32", "gateway": "198.51.100.1", "defaultRoute": True}
    await dispatch(helper, "Network.keep", {"id": await setup(helper, {"red": off_link})})
    [default] = [route for route in routes() if route["dst"] == "default"]
    assert (default["gateway"], default["dev"], default["flags"]) == ("198.51.100.1", "red", ["onlink"])
    assert (await state(helper))["drift"] == []


async def test_a_host_whose_gateway_is_outside_its_network_gets_it_back(helper):
    for command in (
        "ip link set wire up",
        "ip link set eth0 up",
        "ip addr add 192.0.2.1/32 dev eth0",
        "ip route add default via 198.51.100.1 dev eth0 onlink",
    ):
        subprocess.run(command.split(), check=True)
    before = routes()
    change = await setup(helper, wait_s=30)
    assert routes() != before
    await dispatch(helper, "Network.undo", {"id": change})
    assert routes() == before


async def test_no_step_reads_all_networks(helper, monkeypatch):
    """It would take longer the more of them there are."""
    wanted = {"red": {**RED["red"], "ipv6addr": "2001:db8::1/64", "gateway": "192.0.2.254", "defaultRoute": True}}
    read = Kernel.state
    reads = []
    monkeypatch.setattr(Kernel, "state", lambda kernel: reads.append(1) or read(kernel))
    change = await setup(helper, wanted)
    assert links()["eth0"]["master"] == "red"
    await dispatch(helper, "Network.undo", {"id": change})
    assert "red" not in links()
    assert len(reads) == 2, "before the first step and after the last"
