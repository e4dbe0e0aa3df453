# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans, tried on a small model of the kernel: they lead there, and from any point back."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from network.errors import BadAddress, BadBridge, BadNic, BadParams, UsedBridge, UsedNic
from network.model import Network, Request, check, parse, parse_options
from network.plan import Change, Step, plan, problems
from network.state import Address, Link, Route, State


class Model:
    """Links, addresses and routes as the kernel would hold them after steps."""

    def __init__(self, state: State) -> None:
        self.links = {link.name: link for link in state.links}
        self.addresses = set(state.addresses)
        self.routes = set(state.routes)

    def do(self, step: Step) -> None:
        args: dict[str, Any] = dict(step.args)
        if step.op == "bridge_add":
            new = Link(args["name"], 90, "bridge", args["mac"], args["mtu"], False, False, "", args["stp"])
            self.links.setdefault(args["name"], new)
        elif step.op == "link_del":
            self.links.pop(args["name"], None)
            self.links = {n: replace(v, master="") if v.master == args["name"] else v for n, v in self.links.items()}
        elif step.op == "link_set":
            name = args.pop("name")
            if name in self.links:
                self.links[name] = replace(self.links[name], **args)
        elif step.op == "ipv6_set":
            if args["name"] in self.links:
                self.links[args["name"]] = replace(self.links[args["name"]], ipv6_off=args["off"])
        elif step.op == "addr_add":
            self.addresses.add(Address(**args))
        elif step.op == "addr_del":
            self.addresses.discard(Address(**args))
        elif step.op == "route_add":
            self.routes.add(Route(**args))
        elif step.op == "route_del":
            self.routes.discard(Route(**args))

    def state(self) -> State:
        return State(tuple(self.links.values()), tuple(self.addresses), tuple(self.routes))

    def link(self, name: str) -> Link | None:
        return self.links.get(name)

    def seen(self) -> tuple[Any, ...]:
        return dict(self.links), set(self.addresses), set(self.routes)


def nic(name: str, index: int, master: str = "") -> Link:
    mac = f"02:00:00:00:00:0{index}"
    return Link(name, index, "", mac, 1500, True, True, master, least_mtu=100, most_mtu=9000)


START = State(
    (nic("eth0", 2), nic("eth1", 3), Link("foreign", 4, "bridge", "02:00:00:00:00:09", 1500, True, True, "")),
    (Address("eth0", 2, "10.0.0.2", 24, label="eth0"),),
    (Route("eth0", 2, "", 0, "10.0.0.1", "", 254, 0, 0, 3),),
)
BLUE = Network("blue", "eth0", mtu=1400, ipv4="10.0.0.2/24", gateway="10.0.0.1", default_route=True)
ADDRESS = {"nic": "eth0", "ipaddr": "10.0.0.2", "prefix": "24"}
CHANGES = {
    "add": ({}, {"blue": BLUE}),
    "remove": ({"blue": BLUE}, {}),
    "other address": ({"blue": BLUE}, {"blue": replace(BLUE, ipv4="10.0.0.9/24")}),
    "other nic": ({"blue": BLUE}, {"blue": replace(BLUE, nic="eth1")}),
    "other name": ({"blue": BLUE}, {"red": replace(BLUE, name="red")}),
    "without bridge": ({"blue": BLUE}, {"blue": replace(BLUE, bridged=False)}),
    "ipv6": ({"blue": BLUE}, {"blue": replace(BLUE, ipv6="2001:db8::2/64")}),
    "no ipv6": ({"blue": replace(BLUE, ipv6="2001:db8::2/64")}, {"blue": BLUE}),
    "no default route": ({"blue": BLUE}, {"blue": replace(BLUE, default_route=False)}),
    "stp": ({"blue": BLUE}, {"blue": replace(BLUE, stp=True)}),
}


def _begin(running: dict[str, Network]) -> Model:
    model = Model(START)
    for change in plan({}, running, START):
        model.do(change.step)
    return model


def _undo(model: Model, changes: list[Change]) -> None:
    for change in reversed(changes):
        for step in change.inverses:
            model.do(step)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_plan_leads_to_what_was_asked(kind: str) -> None:
    running, wanted = CHANGES[kind]
    model = _begin(running)
    foreign = model.links["foreign"]
    for change in plan(running, wanted, model.state()):
        model.do(change.step)
    assert problems(wanted, model.state()) == []
    assert plan(wanted, wanted, model.state()) == []
    assert model.links["foreign"] == foreign
    assert {name for name, link in model.links.items() if link.kind == "bridge"} <= {"foreign", *wanted}


@pytest.mark.parametrize("kind", CHANGES)
def test_all_inverses_lead_back_from_any_step(kind: str) -> None:
    running, wanted = CHANGES[kind]
    start = _begin(running)
    changes = plan(running, wanted, start.state())
    for done in range(len(changes) + 1):
        model = Model(start.state())
        for change in changes[:done]:
            model.do(change.step)
        _undo(model, changes)
        _undo(model, changes)
        links = {name: asdict(link) | {"index": 0} for name, link in model.links.items()}
        assert links == {name: asdict(link) | {"index": 0} for name, link in start.links.items()}, done
        assert (model.addresses, model.routes) == (start.addresses, start.routes), done


@pytest.mark.parametrize(
    ("error", "networks"),
    [
        (BadNic, {"blue": {"nic": "eth9"}}),
        (BadNic, {"blue": {"nic": "foreign"}}),
        (BadBridge, {"foreign": {"nic": "eth0"}}),
        (BadBridge, {"a-name-too-long-for-it": {"nic": "eth0"}}),
        (BadBridge, {"gone": {"remove": "true"}}),
        (BadParams, {"blue": {"remove": "true", "nic": "eth0"}}),
        (BadParams, {"blue": {"bridged": "false"}}),
        (BadAddress, {"blue": {"nic": "eth0", "ipv6addr": "nonsense"}}),
        (BadAddress, {"blue": {"nic": "eth0", "ipaddr": "10.0.0.2", "prefix": "24", "gateway": "10.9.0.1"}}),
        (UsedNic, {"blue": {"nic": "taken"}}),
        (BadAddress, {"blue": {"nic": "eth0", "ipaddr": "10.0.0.2"}}),
        (BadAddress, {"blue": {"nic": "eth0", "ipaddr": "10.0.0.0", "prefix": "24"}}),
        (BadAddress, {"blue": {"nic": "eth0", "ipaddr": "10.0.0.255", "netmask": "255.255.255.0"}}),
        (BadAddress, {"blue": {**ADDRESS, "gateway": "10.0.0.2", "defaultRoute": True}}),
        (BadParams, {"blue": {"nic": "eth0", "ipv6addr": "2001:db8::1/64", "mtu": "1279"}}),
        (BadParams, {"blue": {"nic": "eth0", "mtu": "9001"}}),
        (BadParams, {"blue": {"nic": "eth0", "mtu": "99"}}),
    ],
)
def test_a_wrong_request_is_refused(error: type[Exception], networks: dict[str, Any]) -> None:
    state = replace(START, links=(*START.links, nic("taken", 5, "foreign")))
    with pytest.raises(error):
        check(parse(networks, {}), {}, state)


def test_a_bridge_with_a_stranger_on_it_is_not_removed() -> None:
    model = _begin({"blue": BLUE})
    model.links["vnet0"] = Link("vnet0", 7, "tun", "", 1500, True, True, "blue")
    with pytest.raises(UsedBridge, match="vnet0"):
        check(parse({"blue": {"remove": "true"}}, {}), {"blue": BLUE}, model.state())


def test_remove_false_is_no_removal() -> None:
    request = parse({"blue": {"nic": "eth0", "remove": "false"}}, {})
    assert (list(request.networks), request.removed) == (["blue"], ())


@pytest.mark.parametrize("name", ["all", "default", "lo", "a\0b", "a\x7fb", "\u00fc" * 8])
def test_a_name_that_is_no_safe_device_name_is_refused(name: str) -> None:
    with pytest.raises(BadBridge):
        parse({name: {}}, {})


@pytest.mark.parametrize("address", ["fe80::1/64", "fe80::1%eth0/64", "::1/128", "ff02::1/64", "2001:db8::1%eth0/64"])
def test_an_ipv6_address_that_no_host_can_be_given_is_refused(address: str) -> None:
    with pytest.raises(BadAddress):
        parse({"blue": {"ipv6addr": address}}, {})


def test_inverses_add_several_addresses_in_their_old_order() -> None:
    old = [Address("eth0", 2, f"10.0.0.{n}", 24) for n in (1, 2)]
    new = [Address("eth0", 10, f"2001:db8::{n}", 64) for n in (2, 1)]  # the kernel lists the newest first
    state = State((nic("eth0", 2),), (*old, *new), ())
    changes = plan({}, {"blue": Network("blue", "eth0")}, state)
    added = [s.args["address"] for c in reversed(changes) for s in c.inverses if s.op == "addr_add"]
    assert [a for a in added if "." in a] == ["10.0.0.1", "10.0.0.2"]
    assert [a for a in added if ":" in a] == ["2001:db8::1", "2001:db8::2"]


@pytest.mark.parametrize("address", ["10.0.0.0/31", "10.0.0.1/31", "10.0.0.1/32"])
def test_small_networks_have_no_address_of_their_own(address: str) -> None:
    host, prefix = address.split("/")
    assert parse({"blue": {"nic": "eth0", "ipaddr": host, "prefix": prefix}}, {}).networks["blue"].ipv4 == address


def test_the_least_mtu_of_ipv6_is_taken() -> None:
    parse({"blue": {"nic": "eth0", "ipv6addr": "2001:db8::1/64", "mtu": "1280"}}, {})


RED = Network("red", "eth1", ipv4="10.0.1.2/24", gateway="10.0.1.1", default_route=True)


def test_naming_only_the_new_network_moves_the_default_route() -> None:
    model = _begin({"blue": BLUE})
    wanted = check(Request({"red": RED}, ()), {"blue": BLUE}, model.state())
    for change in plan({"blue": BLUE}, wanted, model.state()):
        model.do(change.step)
    assert [(r.device, r.gateway) for r in model.routes if not r.target] == [("red", "10.0.1.1")]
    assert wanted["blue"] == replace(BLUE, default_route=False)
    assert [a.address for a in model.addresses if a.device == "blue"] == ["10.0.0.2"]


def test_removing_the_new_default_route_gives_it_to_nobody() -> None:
    blue = replace(BLUE, default_route=False)
    model = _begin({"blue": blue, "red": RED})
    wanted = check(parse({"red": {"remove": "true"}}, {}), {"blue": blue, "red": RED}, model.state())
    for change in plan({"blue": blue, "red": RED}, wanted, model.state()):
        model.do(change.step)
    assert [r for r in model.routes if not r.target] == []


def test_two_default_routes_in_one_request_are_refused() -> None:
    with pytest.raises(BadParams):
        check(Request({"red": RED, "blue": BLUE}, ()), {}, START)


@pytest.mark.parametrize("bridged", [True, False])
@pytest.mark.parametrize("wanted", [{}, {"blue": replace(BLUE, nic="eth1")}], ids=["removed", "other nic"])
def test_a_nic_that_no_network_uses_any_more_has_the_usual_mtu(wanted: dict[str, Network], bridged: bool) -> None:
    running = {"blue": replace(BLUE, mtu=9000, bridged=bridged)}
    model = _begin(running)
    assert model.links["eth0"].mtu == 9000
    for change in plan(running, wanted, model.state()):
        model.do(change.step)
    assert model.links["eth0"].mtu == 1500


def test_an_mtu_that_somebody_else_has_set_meanwhile_stays() -> None:
    model = _begin({"blue": BLUE})
    model.links["eth0"] = replace(model.links["eth0"], mtu=4000)
    for change in plan({"blue": BLUE}, {}, model.state()):
        model.do(change.step)
    assert model.links["eth0"].mtu == 4000


def test_a_bridge_without_ipv6_address_has_no_ipv6() -> None:
    assert _begin({"blue": BLUE}).links["blue"].ipv6_off
    assert not _begin({"blue": replace(BLUE, ipv6="2001:db8::2/64")}).links["blue"].ipv6_off


@pytest.mark.parametrize(("sent", "seconds"), [("0.1", 1), (0, 1), ("20", 20), (2.9, 2), (None, 4), (120, 120)])
def test_the_time_for_a_confirmation_is_cut_to_whole_seconds(sent: object, seconds: float) -> None:
    assert parse_options({"connectivityTimeout": sent}).timeout_s == seconds


@pytest.mark.parametrize("sent", ["soon", -1, "nan", 601, True])
def test_a_time_that_is_none_is_refused(sent: object) -> None:
    with pytest.raises(BadParams):
        parse_options({"connectivityTimeout": sent})


def test_options_of_other_clients_are_no_error() -> None:
    assert parse_options({"_caller": "test"}) == parse_options({})
