# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel has: links, addresses, routes. Plain data; ``network.kernel`` reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    name: str
    index: int
    kind: str  # "" for hardware; "bridge", "veth", ...
    mac: str
    mtu: int
    up: bool
    running: bool
    master: str
    stp: bool = False
    loopback: bool = False
    least_mtu: int = 0  # of what the device takes; 0: it does not say
    most_mtu: int = 0
    ipv6_off: bool = False


@dataclass(frozen=True)
class Address:
    device: str
    family: int
    address: str
    prefix: int
    scope: int = 0
    broadcast: str = ""
    peer: str = ""
    label: str = ""
    valid_s: int = 0  # 0: for ever
    preferred_s: int = 0


@dataclass(frozen=True)
class Route:
    device: str
    family: int
    target: str  # "" is the default route
    prefix: int
    gateway: str
    source: str
    table: int
    metric: int
    scope: int
    protocol: int
    onlink: bool = False  # the gateway is asked for on the device, whatever its addresses say


@dataclass(frozen=True)
class State:
    links: tuple[Link, ...]
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links if link.name == name), None)

    def ports(self, bridge: str) -> list[str]:
        return sorted(link.name for link in self.links if link.master == bridge)

    def addresses_of(self, device: str) -> list[Address]:
        """Addresses that were given to the device; the kernel's own link-local ones are not listed."""
        return [a for a in self.addresses if a.device == device and a.scope != LINK_SCOPE]

    def routes_of(self, device: str) -> list[Route]:
        """Routes that somebody made; those that the kernel derives from addresses are not listed."""
        return [r for r in self.routes if r.device == device and r.protocol != KERNEL_PROTOCOL]


LINK_SCOPE = 253
KERNEL_PROTOCOL = 2
OUR_PROTOCOL = 4  # static
V4, V6 = 2, 10
MAIN_TABLE = 254
