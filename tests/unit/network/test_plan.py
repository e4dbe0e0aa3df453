# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans, tried on a small model of the kernel: they lead there, and from any point back."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from network.errors import BadAddress, BadBridge, BadNic, BadParams, UsedBridge, UsedNic
from network.model import Network, check, parse
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

    def seen(self) -> tuple[Any, ...]:
        return dict(self.links), set(self.addresses), set(self.routes)


def nic(name: str, index: int, master: str = "") -> Link:
    return Link(name, index, "", f"02:00:00:00:00:0{index}", 1500, True, True, master)


START = State(
    (nic("eth0", 2), nic("eth1", 3), Link("foreign", 4, "bridge", "02:00:00:00:00:09", 1500, True, True, "")),
    (Address("eth0", 2, "10.0.0.2", 24, label="eth0"),),
    (Route("eth0", 2, "", 0, "10.0.0.1", "", 254, 0, 0, 3),),
)
BLUE = Network("blue", "eth0", mtu=1400, ipv4="10.0.0.2/24", gateway="10.0.0.1", default_route=True)
CHANGES = {
    "add": ({}, {"blue": BLUE}),
    "remove": ({"blue": BLUE}, {}),
    "other address": ({"blue": BLUE}, {"blue": replace(BLUE, ipv4="10.0.0.9/24")}),
    "other nic": ({"blue": BLUE}, {"blue": replace(BLUE, nic="eth1")}),
    "other name": ({"blue": BLUE}, {"red": replace(BLUE, name="red")}),
    "without bridge": ({"blue": BLUE}, {"blue": replace(BLUE, bridged=False)}),
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
