# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks, bridges and NICs in the words of capabilities. Pure.

The engine casts hard: ``mtu`` is text, ``speed`` a number, ``ports`` a list; a key of the wrong kind costs it
the whole report.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from network.model import Networks
from network.state import MAIN_TABLE, V4, V6, Address, Link, Route, State

_NIC_KINDS = ("", "veth", "dummy")
_STP = {True: "on", False: "off"}


def capabilities(running: Networks, state: State, speeds: dict[str, int]) -> dict[str, Any]:
    return {
        "networks": {n: _network(n, running, state) for n in sorted(running) if state.link(running[n].holder)},
        "bridges": {link.name: _bridge(link, state) for link in state.links if link.kind == "bridge"},
        "nics": {
            link.name: {
                **_common(link, state),
                "hwaddr": link.mac,
                "speed": speeds.get(link.name, 0),
                "qos": [],
            }
            for link in state.links
            if link.kind in _NIC_KINDS and not link.loopback
        },
        "vlans": {},
        "bondings": {},
        "nameservers": [],
        "supportsIPv6": True,
        "ovnConfigured": False,
    }


def _network(name: str, running: Networks, state: State) -> dict[str, Any]:
    net = running[name]
    link = state.link(net.holder)
    assert link is not None
    bridge: dict[str, Any] = {"ports": state.ports(name), "stp": _STP[link.stp]}
    return {
        **_common(link, state),
        **(bridge if net.bridged else {"interface": net.holder}),
        "iface": net.holder,
        "bridged": net.bridged,
        "switch": "legacy",
        "southbound": net.nic or None,
    }


def _bridge(link: Link, state: State) -> dict[str, Any]:
    return {**_common(link, state), "ports": state.ports(link.name), "stp": _STP[link.stp], "opts": {}}


def _common(link: Link, state: State) -> dict[str, Any]:
    addresses = state.addresses_of(link.name)
    v4 = [a for a in addresses if a.family == V4]
    gateway, in_main = _gateway(link.name, V4, state)
    gateway6, _ = _gateway(link.name, V6, state)
    first = _primary(v4, gateway)
    netmask = str(ipaddress.IPv4Network(f"0.0.0.0/{first.prefix}").netmask) if first else ""
    return {
        "addr": first.address if first else "",
        "netmask": netmask,
        "ipv4addrs": [_cidr(a) for a in v4],
        "ipv6addrs": [_cidr(a) for a in addresses if a.family == V6],
        "gateway": gateway,
        "ipv6gateway": gateway6 or "::",
        "ipv4defaultroute": in_main,
        "mtu": str(link.mtu),
        "dhcpv4": False,
        "dhcpv6": False,
        "ipv6autoconf": False,
    }


def _gateway(device: str, family: int, state: State) -> tuple[str, bool]:
    found: list[Route] = [
        r for r in state.routes if r.device == device and r.family == family and not r.target and r.gateway
    ]
    gateways = {r.gateway for r in found}
    if len(gateways) != 1:
        return "", False
    return gateways.pop(), any(r.table == MAIN_TABLE for r in found)


def _primary(addresses: list[Address], gateway: str) -> Address | None:
    for address in addresses:
        if gateway and ipaddress.ip_address(gateway) in ipaddress.ip_interface(_cidr(address)).network:
            return address
    return addresses[0] if addresses else None


def _cidr(address: Address) -> str:
    return f"{address.address}/{address.prefix}"
