# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks on a real host: what the kernel, the wire and the disk show."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from contrib.lab.host import PrivateHost
from vdsm.client import Client, RpcError

pytestmark = pytest.mark.cost(4)

FOLDER = "/var/lib/vdsm-root/network"
UNCHECKED = {"connectivityCheck": "false", "commitOnSuccess": True}


def wanted(host: PrivateHost, **more: Any) -> dict[str, Any]:
    address, prefix = host.spec.address.split("/")
    gateway = host.spec.gateway.split("/")[0]
    return {"nic": "eth0", "ipaddr": address, "prefix": prefix, "gateway": gateway, "defaultRoute": True, **more}


def dump(host: PrivateHost) -> list[Any]:
    """All that the kernel shows of links, addresses, routes and rules, without counters."""
    commands = (
        ["ip", "-j", "link"],
        ["ip", "-j", "addr"],
        ["ip", "-j", "route", "show", "table", "all"],
        ["ip", "-j", "rule"],
        ["ip", "-j", "-6", "route", "show", "table", "all"],
    )
    while b"tentative" in host.run(["ip", "-6", "addr"]).stdout:
        time.sleep(0.1)  # the kernel still probes a link-local address of its own; that ends in seconds
    seen = [json.loads(host.run(command).stdout) for command in commands]
    return [sorted(json.dumps(entry, sort_keys=True) for entry in part) for part in seen]


def difference(before: list[Any], after: list[Any]) -> list[str]:
    return [f"{sign} {line}" for a, b in zip(before, after, strict=True) for sign, line in _lines(a, b)]


def _lines(a: list[str], b: list[str]) -> list[tuple[str, str]]:
    return [("-", line) for line in a if line not in b] + [("+", line) for line in b if line not in a]


def on_disk(host: PrivateHost) -> dict[str, bytes]:
    folder = host.path(FOLDER)
    names = ("journal", "running", "persistent")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


@pytest.fixture
async def net_host(fresh_host: PrivateHost) -> PrivateHost:
    fresh_host.start_agent()
    return fresh_host


async def setup(
    client: Client, networks: dict[str, Any], options: dict[str, Any] | None = None, bondings: Any = None
) -> None:
    params = {"networks": networks, "bondings": bondings or {}, "options": UNCHECKED if options is None else options}
    await client.call("Host.setupNetworks", params, timeout_s=60)


async def test_a_bridged_network_takes_address_and_route_and_is_persisted(net_host: PrivateHost) -> None:
    async with net_host.client() as client:
        await setup(client, {"blue": wanted(net_host)})
        caps = await client.call("Host.getCapabilities")
    assert caps["networks"]["blue"]["ports"] == ["eth0"]
    assert caps["bridges"]["blue"]["ports"] == ["eth0"]
    assert caps["networks"]["blue"]["ipv4defaultroute"] is True
    net_host.run_outside(["busybox", "ping", "-c", "1", "-W", "3", net_host.spec.address.split("/")[0]])
    assert set(on_disk(net_host)) == {"running", "persistent"}
    assert "blue" in json.loads(on_disk(net_host)["persistent"])


async def test_removing_a_network_removes_its_bridge(net_host: PrivateHost) -> None:
    async with net_host.client() as client:
        await setup(client, {"blue": wanted(net_host)})
        await setup(client, {"blue": {"remove": "true"}})
        assert "blue" not in (await client.call("Host.getCapabilities"))["networks"]
    links = {link["ifname"]: link for link in json.loads(net_host.run(["ip", "-j", "link"]).stdout)}
    assert "blue" not in links
    assert "master" not in links["eth0"]
    assert json.loads(on_disk(net_host)["persistent"]) == {}


async def test_an_unconfirmed_network_is_undone_to_the_byte(net_host: PrivateHost) -> None:
    net_host.run(["ip", "link", "add", "foreign", "type", "bridge"])
    net_host.run(["ip", "addr", "add", "192.0.2.1/24", "dev", "foreign"])
    net_host.run(["ip", "link", "set", "foreign", "up"])
    before = dump(net_host), on_disk(net_host)
    async with net_host.client() as client:
        with pytest.raises(RpcError) as failed:
            await setup(client, {"blue": wanted(net_host, mtu=1400)}, {"connectivityTimeout": 1})
    assert failed.value.code == 10
    assert difference(before[0], dump(net_host)) == []
    assert on_disk(net_host) == before[1]


async def test_a_confirmation_during_the_wait_keeps_it(net_host: PrivateHost) -> None:
    async def confirm(client: Client) -> None:
        while True:
            await client.call("Host.confirmConnectivity")
            await asyncio.sleep(0.1)

    async with net_host.client() as client:
        confirming = asyncio.create_task(confirm(client))
        await setup(client, {"blue": wanted(net_host)}, {"connectivityTimeout": "20"})
        confirming.cancel()
        caps = await client.call("Host.getCapabilities")
        stats = await client.call("Host.getStats")
    assert "blue" in caps["networks"]
    assert caps["netConfigDirty"] == stats["netConfigDirty"] == "True"
    assert "persistent" not in on_disk(net_host)


async def test_a_second_setup_is_told_to_come_back(net_host: PrivateHost) -> None:
    async with net_host.client() as client, net_host.client() as other:
        first = asyncio.create_task(setup(client, {"blue": wanted(net_host)}, {"connectivityTimeout": 2}))
        while "blue" not in (await other.call("Host.getCapabilities"))["bridges"]:
            await asyncio.sleep(0.05)
        with pytest.raises(RpcError) as refused:
            await setup(other, {"red": {"bridged": "true"}})
        with pytest.raises(RpcError):
            await first
    assert refused.value.code == 40


WRONG: list[tuple[str, int, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("networks.blue.nic", 23, {"blue": {"nic": "eth9"}}, {}, {}),
    ("networks.blue.vlan", 26, {"blue": {"nic": "eth0", "vlan": "7"}}, {}, {}),
    ("bondings.bond0", 25, {}, {"bond0": {"nics": ["eth0"]}}, {}),
    ("networks.blue.ipaddr", 22, {"blue": {"nic": "eth0", "ipaddr": "1.2.3.400", "prefix": "24"}}, {}, {}),
    ("networks.blue.ipaddr", 22, {"blue": {"nic": "eth0", "ipaddr": "10.7.7.1"}}, {}, {}),
    ("networks.blue.gateway", 22, {"blue": {"nic": "eth0", "gateway": "10.0.0.1"}}, {}, {}),
    ("networks.blue.bootproto", 21, {"blue": {"nic": "eth0", "bootproto": "dhcp"}}, {}, {}),
    ("networks.blue.colour", 21, {"blue": {"nic": "eth0", "colour": "red"}}, {}, {}),
    ("networks.blue.mtu", 21, {"blue": {"nic": "eth0", "mtu": "big"}}, {}, {}),
    ("networks.blue.STP", 21, {"blue": {"nic": "eth0", "STP": "maybe"}}, {}, {}),
    ("networks.../x", 27, {"../x": {"nic": "eth0"}}, {}, {}),
    ("networks.blue", 27, {"blue": {"remove": "true"}}, {}, {}),
    ("networks.foreign", 27, {"foreign": {"nic": "eth0"}}, {}, {}),
    ("networks.b.nic", 21, {"a": {"nic": "eth0"}, "b": {"nic": "eth0"}}, {}, {}),
    ("options.connectivityTimeout", 21, {}, {}, {"connectivityTimeout": "soon"}),
]


async def test_wrong_input_names_the_parameter_and_changes_nothing(net_host: PrivateHost) -> None:
    net_host.run(["ip", "link", "add", "foreign", "type", "bridge"])
    before = dump(net_host), on_disk(net_host)
    async with net_host.client() as client:
        for name, code, networks, bondings, options in WRONG:
            with pytest.raises(RpcError) as refused:
                await setup(client, networks, {**UNCHECKED, **options}, bondings)
            assert (refused.value.code, name in str(refused.value)) == (code, True), (name, str(refused.value))
    assert (dump(net_host), on_disk(net_host)) == before


async def test_persistent_networks_come_back_after_a_reboot(net_host: PrivateHost) -> None:
    async with net_host.client() as client:
        await setup(client, {"blue": wanted(net_host)})
    net_host.kill_agent()
    net_host.kill_root_helper()
    # as after a boot: another boot id in the record, the kernel without bridge
    running = net_host.path(f"{FOLDER}/running")
    running.write_text(json.dumps({**json.loads(running.read_text()), "boot_id": "an older boot"}))
    net_host.run(["ip", "link", "del", "blue"])
    net_host.start_agent()
    async with net_host.client() as client:
        caps = await client.call("Host.getCapabilities")
    assert caps["networks"]["blue"]["ports"] == ["eth0"]
    assert caps["networks"]["blue"]["gateway"] == net_host.spec.gateway.split("/")[0]


async def test_a_network_whose_nic_comes_late_is_restored_when_it_comes(net_host: PrivateHost) -> None:
    net_host.run(["ip", "link", "add", "nic7", "type", "veth", "peer", "name", "far7"])
    async with net_host.client() as client:
        late = {"nic": "nic7", "ipaddr": "10.7.7.1", "netmask": "255.255.255.0", "mtu": "1400"}
        await setup(client, {"blue": wanted(net_host), "late": late})
    net_host.kill_agent()
    net_host.kill_root_helper()
    running = net_host.path(f"{FOLDER}/running")
    running.write_text(json.dumps({**json.loads(running.read_text()), "boot_id": "an older boot"}))
    for device in ("blue", "late", "nic7"):
        net_host.run(["ip", "link", "del", device])
    net_host.start_agent()
    async with net_host.client() as client:
        assert set((await client.call("Host.getCapabilities"))["networks"]) == {"blue"}
        net_host.run(["ip", "link", "add", "nic7", "type", "veth", "peer", "name", "far7"])
        async with asyncio.timeout(15):
            while "late" not in (caps := await client.call("Host.getCapabilities"))["networks"]:
                await asyncio.sleep(0.1)
    assert (caps["networks"]["late"]["addr"], caps["networks"]["late"]["mtu"]) == ("10.7.7.1", "1400")


async def test_a_bridge_is_given_ipv6_later_and_loses_it_again(net_host: PrivateHost) -> None:
    net_host.run(["ip", "link", "add", "nic7", "type", "veth", "peer", "name", "far7"])

    def switched_off() -> bytes:
        return net_host.run(["cat", "/proc/sys/net/ipv6/conf/blue/disable_ipv6"]).stdout

    async with net_host.client() as client:
        await setup(client, {"blue": {"nic": "nic7", "mtu": "9000"}})
        assert switched_off() == b"1\n"
        await setup(client, {"blue": {"nic": "nic7", "ipv6addr": "2001:db8::1/64"}})
        caps = await client.call("Host.getCapabilities")
        assert caps["networks"]["blue"]["ipv6addrs"] == ["2001:db8::1/64"]
        await setup(client, {"blue": {"nic": "nic7", "mtu": "9000"}})
        assert switched_off() == b"1\n"
        await setup(client, {"blue": {"remove": "true"}})
        assert (await client.call("Host.getCapabilities"))["nics"]["nic7"]["mtu"] == "1500"


async def test_a_hook_may_rewrite_the_request_but_not_past_the_checks(net_host: PrivateHost) -> None:
    folder = net_host.path("/usr/libexec/vdsm/hooks/before_network_setup")
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "10_rewrite"

    def install(value: str) -> None:
        script.write_text(
            "#!/usr/bin/python3\nimport json, os\npath = os.environ['_hook_json']\ndata = json.load(open(path))\n"
            f"data['request']['networks']['blue']['mtu'] = {value!r}\njson.dump(data, open(path, 'w'))\n"
        )
        script.chmod(0o755)

    async with net_host.client() as client:
        install("huge")
        before = dump(net_host)
        with pytest.raises(RpcError, match=r"networks\.blue\.mtu"):
            await setup(client, {"blue": wanted(net_host)})
        assert difference(before, dump(net_host)) == []
        install("1300")
        await setup(client, {"blue": wanted(net_host)})
        assert (await client.call("Host.getCapabilities"))["networks"]["blue"]["mtu"] == "1300"


async def test_a_nic_that_is_pulled_out_in_a_change_does_not_keep_others_from_changing(net_host: PrivateHost) -> None:
    net_host.run(["ip", "link", "add", "nic7", "type", "veth", "peer", "name", "far7"])
    async with net_host.client() as client:
        blue = {"nic": "nic7", "ipaddr": "10.7.7.1", "netmask": "255.255.255.0"}
        options = {"connectivityCheck": "true", "connectivityTimeout": 3}
        change = asyncio.ensure_future(setup(client, {"blue": blue}, options))
        async with asyncio.timeout(10):
            while b"blue" not in net_host.run(["ip", "link", "show", "nic7"], check=False).stdout:
                await asyncio.sleep(0.02)
        net_host.run(["ip", "link", "del", "nic7"])
        with pytest.raises(RpcError):
            await change
        assert "journal" not in on_disk(net_host)
        assert net_host.run(["ip", "link", "show", "blue"], check=False).returncode != 0
        await setup(client, {"green": wanted(net_host)})


async def test_a_journal_that_can_t_be_read_is_put_aside_and_changes_go_on(net_host: PrivateHost) -> None:
    folder = net_host.path(FOLDER)
    (folder / "journal").write_bytes(b'{"id": "\xff')
    net_host.kill_root_helper()
    net_host.start_root_helper()
    async with net_host.client() as client:
        await setup(client, {"blue": wanted(net_host)})
    assert (folder / "journal.unreadable").read_bytes() == b'{"id": "\xff'
    assert b"was put aside as journal.unreadable" in net_host.path("/var/log/vdsm-root.log").read_bytes()
