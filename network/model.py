# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client asks for: typed, canonical, checked. Pure.

A request is checked twice: `parse` looks at each network alone, `check` at the whole that would result,
beside what the kernel has. Whatever is not built (VLAN, bond, Open vSwitch, DHCP, QoS) is refused by name.
Order and error classes follow the field's agent.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from network.errors import BadAddress, BadBonding, BadBridge, BadNic, BadParams, BadVlan, UsedBridge, UsedNic
from network.state import State
from vdsm.common.errors import InvalidParameter

DEFAULT_MTU = 1500
LEAST_MTU_OF_IPV6 = 1280
_NAME = re.compile(r"[^-:.\s/%][^:.\s/%]{0,14}\Z")
_KNOWN = frozenset(
    {
        "nic",
        "bonding",
        "vlan",
        "bridged",
        "mtu",
        "STP",
        "stp",
        "bootproto",
        "ipaddr",
        "netmask",
        "prefix",
        "gateway",
        "ipv6addr",
        "ipv6gateway",
        "dhcpv6",
        "ipv6autoconf",
        "defaultRoute",
        "nameservers",
        "hostQos",
        "switch",
        "custom",
        "remove",
        "blockingdhcp",
    }
)
_RESERVED = frozenset({"all", "default", "lo", "bonding_masters"})  # these mean something under /proc/sys or /sys
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Network:
    """One network as it shall be; this is also what is persisted."""

    name: str
    nic: str = ""
    bridged: bool = True
    mtu: int = DEFAULT_MTU
    stp: bool = False
    ipv4: str = ""  # address/prefix
    gateway: str = ""
    ipv6: str = ""
    ipv6_gateway: str = ""
    default_route: bool = False
    custom: Mapping[str, str] = field(default_factory=dict)

    @property
    def holder(self) -> str:
        """The device that has the address."""
        return self.name if self.bridged else self.nic


Networks = Mapping[str, Network]


@dataclass(frozen=True)
class Request:
    networks: Networks
    removed: tuple[str, ...]


@dataclass(frozen=True)
class Options:
    check: bool = True
    timeout_s: float = 4.0
    commit: bool = False


def parse(networks: Mapping[str, Any], bondings: Mapping[str, Any]) -> Request:
    """The request of the wire, each network by itself. Raises a subclass of InvalidParameter."""
    for bond in bondings:
        raise BadBonding(f"bondings.{bond}", "a bond", "bonds are not built in this version")
    wanted, removed = {}, []
    for name, raw in networks.items():
        place = f"networks.{name}"
        if not isinstance(raw, Mapping):
            raise BadParams(place, _shown(raw), "expected an object")
        for key in raw:
            if key not in _KNOWN:
                raise BadParams(f"{place}.{key}", _shown(raw[key]), "unknown attribute")
        if _flag(raw, "remove", place, default=False):
            extra = sorted(set(raw) - {"remove", "custom"})
            if extra:
                raise BadParams(f"{place}.{extra[0]}", _shown(raw[extra[0]]), "not allowed beside remove")
            removed.append(name)
        else:
            wanted[name] = _network(name, raw, place)
    return Request(wanted, tuple(removed))


def parse_options(raw: Mapping[str, Any]) -> Options:
    """Other options than these are no error: clients of the field add their own (``_caller``)."""
    return Options(
        check=_flag(raw, "connectivityCheck", "options", default=True),
        timeout_s=_seconds(raw.get("connectivityTimeout")),
        commit=_flag(raw, "commitOnSuccess", "options", default=False),
    )


def _seconds(value: object) -> float:
    """Fractions are cut off, as the field does; less than a second is one look."""
    try:
        seconds = 4.0 if value in (None, "") else float(str(value))
    except ValueError:
        seconds = -1.0
    if isinstance(value, bool) or not 0 <= seconds <= 600:
        raise BadParams("options.connectivityTimeout", _shown(value), "from 0 to 600 seconds")
    return float(max(1, int(seconds)))


def _network(name: str, raw: Mapping[str, Any], place: str) -> Network:
    if raw.get("bonding"):
        raise BadBonding(f"{place}.bonding", _shown(raw["bonding"]), "bonds are not built in this version")
    if raw.get("vlan") not in (None, ""):
        raise BadVlan(f"{place}.vlan", _shown(raw["vlan"]), "VLANs are not built in this version")
    _refuse_unbuilt(raw, place)
    bridged = _flag(raw, "bridged", place, default=True)
    if not _NAME.match(name) or not name.isprintable() or len(name.encode()) > 15 or name in _RESERVED:
        raise BadBridge(place, repr(name), "1 to 15 bytes, no leading '-', no ': . / %' or blanks, not reserved")
    mtu = _number(raw, "mtu", place, DEFAULT_MTU, BadParams)
    if not 68 <= mtu <= 65520:
        raise BadParams(f"{place}.mtu", str(mtu), "from 68 to 65520")
    if "STP" in raw and "stp" in raw:
        raise BadParams(f"{place}.stp", _shown(raw["stp"]), "given twice")
    stp = _flag(raw, "STP" if "STP" in raw else "stp", place, default=False)
    if stp and not bridged:
        raise BadParams(f"{place}.STP", "yes", "only a bridged network has STP")
    custom = raw.get("custom") or {}
    if not isinstance(custom, Mapping) or not all(isinstance(v, str) for v in custom.values()):
        raise BadParams(f"{place}.custom", _shown(custom), "expected an object of texts")
    if "bridge_opts" in custom:
        raise BadParams(f"{place}.custom.bridge_opts", _shown(custom["bridge_opts"]), "not built in this version")
    ipv4, gateway = _ipv4(raw, place)
    ipv6, ipv6_gateway = _ipv6(raw, place)
    if ipv6 and mtu < LEAST_MTU_OF_IPV6:
        raise BadParams(f"{place}.mtu", str(mtu), f"IPv6 needs at least {LEAST_MTU_OF_IPV6}")
    default = _flag(raw, "defaultRoute", place, default=False)
    for key, value in (("gateway", gateway), ("ipv6gateway", ipv6_gateway)):
        if value and not default:
            raise BadAddress(
                f"{place}.{key}",
                value,
                "a gateway without defaultRoute needs source routing: not built in this version",
            )
    nic = _text(raw, "nic", place)
    if not nic and not bridged:
        raise BadParams(f"{place}.nic", "nothing", "a network without bridge needs a NIC")
    return Network(name, nic, bridged, mtu, stp, ipv4, gateway, ipv6, ipv6_gateway, default, dict(custom))


def _refuse_unbuilt(raw: Mapping[str, Any], place: str) -> None:
    if _text(raw, "switch", place) not in ("", "legacy"):
        raise BadParams(f"{place}.switch", _shown(raw["switch"]), "only 'legacy' is built in this version")
    if _text(raw, "bootproto", place) not in ("", "none", "static"):
        raise BadParams(f"{place}.bootproto", _shown(raw["bootproto"]), "DHCP is not built in this version")
    for key in ("dhcpv6", "ipv6autoconf"):
        if _flag(raw, key, place, default=False):
            raise BadParams(f"{place}.{key}", _shown(raw[key]), "not built in this version")
    for key in ("nameservers", "hostQos"):
        if raw.get(key):
            raise BadParams(f"{place}.{key}", _shown(raw[key]), "not built in this version")


def _ipv4(raw: Mapping[str, Any], place: str) -> tuple[str, str]:
    address, mask = _text(raw, "ipaddr", place), _text(raw, "netmask", place)
    gateway, prefix = _text(raw, "gateway", place), raw.get("prefix")
    gateway = "" if gateway == "0.0.0.0" else gateway  # noqa: S104 - the engine's word for "none"
    if mask and prefix not in (None, ""):
        raise BadParams(f"{place}.prefix", _shown(prefix), "netmask and prefix exclude each other")
    if not address:
        for key, value in (("netmask", mask), ("prefix", prefix), ("gateway", gateway)):
            if value not in (None, ""):
                raise BadAddress(f"{place}.{key}", _shown(value), "needs ipaddr")
        return "", ""
    if not mask and prefix in (None, ""):
        raise BadAddress(f"{place}.ipaddr", address, "needs netmask or prefix")
    length = mask or str(_number(raw, "prefix", place, 0, BadAddress))
    try:
        interface = ipaddress.IPv4Interface(f"{ipaddress.IPv4Address(address)}/{length}")
    except ValueError as e:
        raise BadAddress(f"{place}.ipaddr", f"{address}/{length}", str(e)) from None
    _of_a_host(interface, f"{place}.ipaddr")
    if gateway:
        _gateway(gateway, interface, f"{place}.gateway")
    return interface.with_prefixlen, gateway


def _ipv6(raw: Mapping[str, Any], place: str) -> tuple[str, str]:
    address, gateway = _text(raw, "ipv6addr", place), _text(raw, "ipv6gateway", place)
    gateway = "" if gateway == "::" else gateway
    if not address:
        if gateway:
            raise BadAddress(f"{place}.ipv6gateway", gateway, "needs ipv6addr")
        return "", ""
    try:
        interface = ipaddress.IPv6Interface(address)
    except ValueError as e:
        raise BadAddress(f"{place}.ipv6addr", address, str(e)) from None
    if interface.ip.is_link_local or "%" in address:
        raise BadAddress(f"{place}.ipv6addr", address, "a link-local address is the kernel's to give")
    _of_a_host(interface, f"{place}.ipv6addr")
    if gateway:
        _gateway(gateway, interface, f"{place}.ipv6gateway")
    return interface.with_prefixlen, gateway


def _of_a_host(own: ipaddress.IPv4Interface | ipaddress.IPv6Interface, place: str) -> None:
    if own.ip.is_unspecified or own.ip.is_loopback or own.ip.is_multicast:
        raise BadAddress(place, str(own), "no address that a host can have on a network")
    if own.version == 4 and own.network.prefixlen < 31 and own.ip in (own.network[0], own.network[-1]):
        word = "network itself" if own.ip == own.network[0] else "broadcast"
        raise BadAddress(place, str(own), f"it is the address of the {word}, not of a host")


def _gateway(text: str, own: ipaddress.IPv4Interface | ipaddress.IPv6Interface, place: str) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as e:
        raise BadAddress(place, text, str(e)) from None
    if "%" in text:
        raise BadAddress(place, text, "without a zone: the network says the device")
    if address.version != own.version:
        raise BadAddress(place, text, f"it is of another version than {own}")
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        raise BadAddress(place, text, "no address that a gateway can have")
    if address == own.ip:
        raise BadAddress(place, text, "it is the host's own address")


def check(request: Request, running: Networks, state: State, waiting: Collection[str] = ()) -> Networks:
    """The networks that would be there afterwards. Raises the error that the kernel's state calls for.

    Networks that wait to be restored may be removed, too.
    """
    request = _with_role_moved(request, running)
    for name in request.removed:
        if name not in running and name not in waiting:
            raise BadBridge(f"networks.{name}", "remove", "there is no such network")
    result = {n: net for n, net in running.items() if n not in request.removed} | dict(request.networks)
    defaults = sorted(name for name, net in result.items() if net.default_route)
    if len(defaults) > 1:
        raise BadParams(f"networks.{defaults[1]}.defaultRoute", "true", f"{defaults[0]} has the default route already")
    users: dict[str, str] = {}
    for name, net in result.items():
        if net.nic and users.setdefault(net.nic, name) != name:
            raise BadParams(f"networks.{name}.nic", net.nic, f"network {users[net.nic]} uses it already")
    for name, net in request.networks.items():
        _check_devices(name, net, running, state)
    for name in (*request.removed, *(n for n, net in request.networks.items() if not net.bridged)):
        old = running.get(name)
        strangers = set(state.ports(name)) - {old.nic if old else ""} if old and old.bridged else set()
        if strangers:
            raise UsedBridge(f"networks.{name}", "remove", f"still connected: {', '.join(sorted(strangers))}")
    return result


def _with_role_moved(request: Request, running: Networks) -> Request:
    """Naming only the new default route takes the role from the old network, which becomes part of the request.

    That one keeps its gateway on record: it is what was asked for, and not used without the role.
    """
    if not any(net.default_route for net in request.networks.values()):
        return request
    losers = {
        name: replace(net, default_route=False)
        for name, net in running.items()
        if net.default_route and name not in request.networks and name not in request.removed
    }
    return replace(request, networks={**request.networks, **losers})


def _check_devices(name: str, net: Network, running: Networks, state: State) -> None:
    owned = running.get(name)
    if net.bridged and state.link(name) is not None and not (owned and owned.bridged):
        raise BadBridge(f"networks.{name}", name, "a device of this name exists that is not ours")
    if not net.nic:
        return
    link = state.link(net.nic)
    if link is None or link.loopback or link.kind not in ("", "veth", "dummy", "tun"):
        raise BadNic(f"networks.{name}.nic", net.nic, "there is no such NIC")
    if link.master and link.master not in running:
        raise UsedNic(f"networks.{name}.nic", net.nic, f"it is a port of {link.master}, which is not ours")
    if net.mtu < link.least_mtu or (link.most_mtu and net.mtu > link.most_mtu):
        limits = f"{net.nic} takes from {link.least_mtu} to {link.most_mtu or 'any'}"
        raise BadParams(f"networks.{name}.mtu", str(net.mtu), limits)


def _text(raw: Mapping[str, Any], key: str, place: str) -> str:
    value = raw.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 255:
        raise BadParams(f"{place}.{key}", _shown(value), "expected a short text")
    return value


def _number(
    raw: Mapping[str, Any], key: str, place: str, default: int, error: Callable[[str, str, str], InvalidParameter]
) -> int:
    value = raw.get(key)
    if value in (None, ""):
        return default
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,6}", str(value)):
        raise error(f"{place}.{key}", _shown(value), "expected a whole number")
    return int(str(value))


def _flag(raw: Mapping[str, Any], key: str, place: str, *, default: bool) -> bool:
    value = raw.get(key)
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    word = _WORDS.get(str(value).lower()) if isinstance(value, str | int) else None
    if word is None:
        raise BadParams(f"{place}.{key}", _shown(value), "expected true or false")
    return word


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
