# SPDX-License-Identifier: GPL-2.0-or-later
"""From what is to what shall be: ordered steps, each with its exact inverse. Pure.

Every inverse may run although its step did not, and may run twice: rolling back means running all inverses
from the last to the first, wherever the change died. A step names only devices of the request or of networks
that we run; nothing else is touched.

Order: bridges are made, routes then addresses leave the NICs, bridges without network go, NICs become ports, links
go up, addresses then routes arrive. So the last route is gone for a few milliseconds only. A NIC that no network
uses any more gets the usual MTU back, unless somebody else has changed it meanwhile.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from network.model import DEFAULT_MTU, Network, Networks
from network.state import MAIN_TABLE, OUR_PROTOCOL, V4, V6, Address, Link, Route, State

Args = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    op: str
    args: Args

    def __str__(self) -> str:
        shown = {k: v for k, v in self.args.items() if v not in ("", 0, None)}
        return f"{self.op} {' '.join(f'{k}={v}' for k, v in shown.items())}"


@dataclass(frozen=True)
class Change:
    step: Step
    inverses: tuple[Step, ...]


def plan(running: Networks, wanted: Networks, state: State) -> list[Change]:
    """What turns the kernel's state into ``wanted``; empty when it is so already."""
    planner = _Planner(running, wanted, state)
    return planner.changes()


def addresses_of(net: Network) -> list[Address]:
    found = []
    for text, family in ((net.ipv4, V4), (net.ipv6, V6)):
        if text:
            own = ipaddress.ip_interface(text)
            broadcast = str(own.network.broadcast_address) if family == V4 and own.network.prefixlen < 31 else ""
            label = net.holder if family == V4 else ""
            found.append(
                Address(net.holder, family, str(own.ip), own.network.prefixlen, broadcast=broadcast, label=label)
            )
    return found


def routes_of(net: Network) -> list[Route]:
    return [
        Route(
            *(net.holder, family, "", 0, gateway, "", MAIN_TABLE, 1024 if family == V6 else 0, 0, OUR_PROTOCOL),
            onlink=_is_off_link(gateway, own),
        )
        for gateway, family, own in ((net.gateway, V4, net.ipv4), (net.ipv6_gateway, V6, net.ipv6))
        if gateway and net.default_route
    ]


def _is_off_link(gateway: str, own: str) -> bool:
    """In no network of the host's, as hosts with a single address (/32) have it. Link-local ones need no network."""
    address = ipaddress.ip_address(gateway)
    return not address.is_link_local and address not in ipaddress.ip_interface(own).network


class _Planner:
    def __init__(self, running: Networks, wanted: Networks, state: State) -> None:
        self._running = running
        self._wanted = wanted
        self._state = state
        self._made: list[Change] = []

    def changes(self) -> list[Change]:
        gone = [net for name, net in self._running.items() if not self._stays(net) and self._state.link(net.holder)]
        touched = [net for net in self._wanted.values() if self._running.get(net.name) != net or self._drifted(net)]
        for net in touched:
            if net.bridged and self._state.link(net.name) is None:
                self._add_bridge(net)
        ports = {net.nic for net in touched if net.nic and net.bridged}
        kept = {net.holder for net in self._wanted.values()}
        for device in sorted(ports | {net.holder for net in gone if net.holder not in kept}):
            self._strip(device, [], [])
        for net in touched:
            self._strip(net.holder, addresses_of(net), routes_of(net))
        for net in gone:
            if net.bridged:
                self._delete_bridge(net.name)
        for net in touched:
            self._links(net)
        for net in self._running.values():
            self._give_back(net)
        for net in touched:
            self._fill(net)
        return self._made

    def _stays(self, net: Network) -> bool:
        now = self._wanted.get(net.name)
        return now is not None and now.holder == net.holder

    def _drifted(self, net: Network) -> bool:
        return bool(problems({net.name: net}, self._state))

    def _change(self, step: Step, *inverses: Step) -> None:
        self._made.append(Change(step, inverses))

    def _set(self, name: str, key: str, value: Any, old: Any) -> None:
        if value != old:
            self._change(Step("link_set", {"name": name, key: value}), Step("link_set", {"name": name, key: old}))

    def _add_bridge(self, net: Network) -> None:
        nic = self._state.link(net.nic) if net.nic else None
        args = {"name": net.name, "mac": nic.mac if nic else "", "mtu": net.mtu, "stp": net.stp}
        self._change(Step("bridge_add", args), Step("link_del", {"name": net.name}))
        self._change(Step("ipv6_set", {"name": net.name, "off": not net.ipv6}))

    def _delete_bridge(self, name: str) -> None:
        link = self._state.link(name)
        assert link is not None
        back = [Step("bridge_add", {"name": name, "mac": link.mac, "mtu": link.mtu, "stp": link.stp})]
        back.append(Step("ipv6_set", {"name": name, "off": link.ipv6_off}))
        for port in self._state.ports(name):
            back.append(Step("link_set", {"name": port, "master": name}))
        back.append(Step("link_set", {"name": name, "up": link.up}))
        for port in self._state.ports(name):
            self._set(port, "master", "", name)
        self._change(Step("link_del", {"name": name}), *back)

    def _strip(self, device: str, addresses: list[Address], routes: list[Route]) -> None:
        """Take away what the device has beyond ``addresses`` and ``routes``."""
        keep_routes = {_route_key(r) for r in routes}
        for route in self._state.routes_of(device):
            if _route_key(route) not in keep_routes:
                self._change(Step("route_del", asdict(route)), Step("route_add", asdict(route)))
        keep = {(a.address, a.prefix) for a in addresses}
        for address in _newest_first(self._state.addresses_of(device)):
            if (address.address, address.prefix) not in keep:
                self._change(Step("addr_del", asdict(address)), Step("addr_add", asdict(address)))

    def _links(self, net: Network) -> None:
        nic = self._state.link(net.nic) if net.nic else None
        bridge = self._state.link(net.name) if net.bridged else None
        if nic is not None:
            self._set(nic.name, "mtu", net.mtu, nic.mtu)
            master = net.name if net.bridged else ""
            gone = nic.master in self._running and not (nic.master in self._wanted and self._wanted[nic.master].bridged)
            self._set(nic.name, "master", master, "" if gone else nic.master)
        if bridge is not None:
            self._release_old_nic(net, bridge)
            self._set(net.name, "mtu", net.mtu, bridge.mtu)
            self._set(net.name, "stp", net.stp, bridge.stp)
            if bridge.ipv6_off == bool(net.ipv6):
                on, off = (Step("ipv6_set", {"name": net.name, "off": is_off}) for is_off in (False, True))
                self._change(*((on, off) if net.ipv6 else (off, on)))
        if nic is not None:
            self._set(nic.name, "up", True, nic.up)
        if net.bridged:
            self._set(net.name, "up", True, bridge.up if bridge else False)

    def _release_old_nic(self, net: Network, bridge: Link) -> None:
        old = self._running.get(net.name)
        if old is not None and old.nic and old.nic != net.nic and self._state.link(old.nic):
            taken = any(other.nic == old.nic for other in self._wanted.values())
            if not taken and old.nic in self._state.ports(bridge.name):
                self._set(old.nic, "master", "", bridge.name)

    def _give_back(self, net: Network) -> None:
        nic = self._state.link(net.nic) if net.nic else None
        if nic is None or nic.mtu != net.mtu or any(other.nic == net.nic for other in self._wanted.values()):
            return
        self._set(nic.name, "mtu", min(DEFAULT_MTU, nic.most_mtu or DEFAULT_MTU), nic.mtu)

    def _fill(self, net: Network) -> None:
        has = {(a.address, a.prefix) for a in self._state.addresses_of(net.holder)}
        for address in addresses_of(net):
            if (address.address, address.prefix) not in has:
                self._change(Step("addr_add", asdict(address)), Step("addr_del", asdict(address)))
        routes = {_route_key(r) for r in self._state.routes_of(net.holder)}
        for route in routes_of(net):
            if _route_key(route) not in routes:
                self._change(Step("route_add", asdict(route)), Step("route_del", asdict(route)))


def _newest_first(addresses: list[Address]) -> list[Address]:
    """So the inverses add them in their old order: the kernel lists IPv4 oldest first, IPv6 newest first."""
    return [a for a in reversed(addresses) if a.family == V4] + [a for a in addresses if a.family == V6]


def _route_key(route: Route) -> Route:
    return replace(route, protocol=0, source="", scope=0, onlink=False)


def problems(wanted: Networks, state: State) -> list[str]:
    """In what the kernel differs from what it shall be; read again after a change, and for the drift report."""
    found = []
    for name, net in wanted.items():
        for device in dict.fromkeys(filter(None, (net.holder, net.nic))):
            link = state.link(device)
            if link is None:
                found.append(f"{name}: device {device} is missing")
                continue
            if link.mtu != net.mtu:
                found.append(f"{name}: {device} has mtu {link.mtu}, not {net.mtu}")
            if not link.up:
                found.append(f"{name}: {device} is down")
            if device == net.nic and link.master != (name if net.bridged else ""):
                found.append(f"{name}: {device} is a port of {link.master or 'nothing'}")
            if device == name and net.bridged and (link.kind != "bridge" or link.stp != net.stp):
                found.append(f"{name}: {device} is not the bridge that was asked for")
            if device == name and net.bridged and not net.ipv6 and not link.ipv6_off:
                found.append(f"{name}: {device} has IPv6, which was not asked for")
        has = {(a.address, a.prefix) for a in state.addresses_of(net.holder)}
        want = {(a.address, a.prefix) for a in addresses_of(net)}
        if has != want:
            found.append(f"{name}: {net.holder} has addresses {sorted(has)}, not {sorted(want)}")
        missing = {_route_key(r) for r in routes_of(net)} - {_route_key(r) for r in state.routes_of(net.holder)}
        found.extend(f"{name}: no default route by {r.gateway}" for r in missing)
    return found
