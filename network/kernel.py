# SPDX-License-Identifier: GPL-2.0-or-later
"""The netlink edge: reads the kernel's state, does one step. Only root-side processes load it.

pyroute2 drops keywords that it does not know without a word: so every step takes named arguments, and `do`
reads back what it wrote; of its device alone, since the whole state takes longer the more networks there are. A step
that finds its work done already is no error: inverses run more than once.
Calls block; the helper makes them in a worker thread.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from network.plan import Step
from network.state import Address, Link, Route, State
from vdsm.common.errors import AgentError

_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40
_UNICAST = 1
_RTNH_F_ONLINK = 0x4
_LOCAL_TABLE = 255


class StepFailed(AgentError):
    step: str
    reason: str
    msg = "{self.step}: {self.reason}"


class Kernel:
    def __init__(self, netlink: Any) -> None:
        self._netlink = netlink
        self._ops: Mapping[str, Callable[..., None]] = {
            "bridge_add": self._bridge_add,
            "link_del": self._link_del,
            "link_set": self._link_set,
            "ipv6_set": _ipv6_set,
            "addr_add": lambda **a: self._address("add", Address(**a), errno.EEXIST),
            "addr_del": lambda **a: self._address("del", Address(**a), errno.EADDRNOTAVAIL),
            "route_add": lambda **a: self._route("add", Route(**a), errno.EEXIST),
            "route_del": lambda **a: self._route("del", Route(**a), errno.ESRCH),
        }

    def state(self) -> State:
        """Raises `StepFailed`."""
        try:
            return self._state()
        except (NetlinkError, OSError) as e:
            raise StepFailed("reading what the kernel has", str(e)) from e

    def link(self, name: str) -> Link | None:
        """One device; None when there is none. Raises `StepFailed`."""
        try:
            return self._link(name)
        except (NetlinkError, OSError) as e:
            raise StepFailed(f"reading what the kernel has of {name}", str(e)) from e

    def _link(self, name: str) -> Link | None:
        for message in self._devices(ifname=name):
            master = message.get_attr("IFLA_MASTER") or 0
            above = self._devices(index=master) if master else []
            return _link(message, {found["index"]: found.get_attr("IFLA_IFNAME") for found in above})
        return None

    def _devices(self, **which: Any) -> Iterable[Any]:
        try:
            found: Iterable[Any] = self._netlink.link("get", **which)
        except NetlinkError as e:
            if e.code != errno.ENODEV:
                raise
            return ()
        return found

    def _state(self) -> State:
        raw = list(self._netlink.get_links())
        names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in raw}
        return State(
            tuple(_link(message, names) for message in raw),
            tuple(_address(message, names) for message in self._netlink.get_addr()),
            tuple(
                _route(message, names)
                for message in self._netlink.get_routes()
                if message["type"] == _UNICAST
                and message.get_attr("RTA_OIF") in names
                and _table(message) != _LOCAL_TABLE
                and message["family"] in (socket.AF_INET, socket.AF_INET6)
            ),
        )

    def do(self, step: Step) -> None:
        """Raises `StepFailed` with the kernel's reason."""
        try:
            self._ops[step.op](**step.args)
        except NetlinkError as e:
            raise StepFailed(str(step), e.args[1] if len(e.args) > 1 else str(e)) from e
        except OSError as e:
            raise StepFailed(str(step), e.strerror or str(e)) from e

    def _index(self, name: str) -> int:
        found = self._netlink.link_lookup(ifname=name)
        if not found:
            raise OSError(errno.ENODEV, f"there is no device {name}")
        return int(found[0])

    def _bridge_add(self, *, name: str, mac: str, mtu: int, stp: bool) -> None:
        more = {"address": mac} if mac else {}
        with _already(errno.EEXIST):
            self._netlink.link("add", ifname=name, kind="bridge", br_stp_state=int(stp), mtu=mtu, **more)
        link = self._link(name)
        if link is None or link.kind != "bridge" or link.mtu != mtu or link.stp != stp or (mac and link.mac != mac):
            raise OSError(errno.EIO, f"the kernel made {link}")

    def _link_del(self, *, name: str) -> None:
        if self._netlink.link_lookup(ifname=name):
            self._netlink.link("del", index=self._index(name))

    def _link_set(
        self,
        *,
        name: str,
        mtu: int | None = None,
        up: bool | None = None,
        master: str | None = None,
        stp: bool | None = None,
    ) -> None:
        index = self._index(name)
        if mtu is not None:
            self._netlink.link("set", index=index, mtu=mtu)
        if up is not None:
            self._netlink.link("set", index=index, state="up" if up else "down")
        if master is not None:
            self._netlink.link("set", index=index, master=self._index(master) if master else 0)
        if stp is not None:
            self._netlink.link("set", index=index, kind="bridge", br_stp_state=int(stp))
        link = self._link(name)
        wanted = {"mtu": mtu, "up": up, "master": master, "stp": stp}
        for key, value in wanted.items():
            if value is not None and getattr(link, key) != value:
                raise OSError(errno.EIO, f"{key} is {getattr(link, key)!r} afterwards")

    def _address(self, verb: str, address: Address, harmless: int) -> None:
        index = self._index(address.device)
        more: dict[str, Any] = {}
        if verb == "add":
            if address.broadcast:
                more["broadcast"] = address.broadcast
            if address.label:
                more["label"] = address.label
            if address.valid_s:
                more |= {"valid_lft": address.valid_s, "preferred_lft": address.preferred_s}
        with _already(harmless):
            self._netlink.addr(
                verb,
                index=index,
                family=address.family,
                address=address.peer or address.address,
                local=address.address,
                prefixlen=address.prefix,
                scope=address.scope,
                **more,
            )
        found = (_address(message, {index: address.device}) for message in self._netlink.get_addr(index=index))
        there = {(a.device, a.address, a.prefix) for a in found}
        if ((address.device, address.address, address.prefix) in there) != (verb == "add"):
            raise OSError(errno.EIO, "the kernel did not do it")

    def _route(self, verb: str, route: Route, harmless: int) -> None:
        more: dict[str, Any] = {}
        if route.gateway:
            more["gateway"] = route.gateway
        if route.source:
            more["prefsrc"] = route.source
        if route.metric:
            more["priority"] = route.metric
        if route.onlink and verb == "add":
            more["flags"] = _RTNH_F_ONLINK
        with _already(harmless):
            self._netlink.route(
                verb,
                family=route.family,
                dst=f"{route.target}/{route.prefix}" if route.target else "default",
                oif=self._index(route.device),
                table=route.table,
                scope=route.scope,
                proto=route.protocol,
                **more,
            )


@contextmanager
def opened() -> Iterator[Kernel]:
    with IPRoute(ext_ack=True, strict_check=True) as netlink:
        yield Kernel(netlink)


@contextmanager
def _already(harmless: int) -> Iterator[None]:
    try:
        yield
    except NetlinkError as e:
        if e.code != harmless:
            raise


def _ipv6_set(*, name: str, off: bool) -> None:
    """Guests of a bridge must not reach the host by an address that nobody asked for: link-local or by their RAs."""
    wanted = {"disable_ipv6": "1"} if off else {"accept_ra": "0", "autoconf": "0", "disable_ipv6": "0"}
    for key, value in wanted.items():
        try:
            with open(f"/proc/sys/net/ipv6/conf/{name}/{key}", "w") as f:
                f.write(value)
        except FileNotFoundError:  # a kernel without IPv6, or a device that is gone: nothing to turn off
            if not off and os.path.exists(f"/sys/class/net/{name}"):
                raise


def _link(message: Any, names: Mapping[int, str]) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info else "") or ""
    data = info.get_attr("IFLA_INFO_DATA") if info and kind == "bridge" else None
    flags = message["flags"]
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        kind=kind,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(flags & _IFF_UP),
        running=bool(flags & _IFF_RUNNING),
        master=names.get(message.get_attr("IFLA_MASTER") or 0, ""),
        stp=bool(data.get_attr("IFLA_BR_STP_STATE")) if data else False,
        loopback=bool(flags & _IFF_LOOPBACK),
        least_mtu=message.get_attr("IFLA_MIN_MTU") or 0,
        most_mtu=message.get_attr("IFLA_MAX_MTU") or 0,
        ipv6_off=_has_no_ipv6(message),
    )


def _has_no_ipv6(message: Any) -> bool:
    per_family = message.get_attr("IFLA_AF_SPEC")
    ipv6 = per_family.get_attr("AF_INET6") if per_family else None
    conf = ipv6.get_attr("IFLA_INET6_CONF") if ipv6 else None
    return not conf or bool(conf["disable_ipv6"])


def _address(message: Any, names: Mapping[int, str]) -> Address:
    far = message.get_attr("IFA_ADDRESS")
    own = message.get_attr("IFA_LOCAL") or far
    life = message.get_attr("IFA_CACHEINFO") or {}
    valid = life.get("ifa_valid", 0xFFFFFFFF)
    for_ever = valid == 0xFFFFFFFF
    return Address(
        device=names.get(message["index"], ""),
        family=message["family"],
        address=own,
        prefix=message["prefixlen"],
        scope=message["scope"],
        broadcast=message.get_attr("IFA_BROADCAST") or "",
        peer=far if far != own else "",
        label=message.get_attr("IFA_LABEL") or "",
        valid_s=0 if for_ever else valid,
        preferred_s=0 if for_ever else life.get("ifa_preferred", life.get("ifa_prefered", valid)),
    )


def _table(message: Any) -> int:
    return int(message.get_attr("RTA_TABLE") or message["table"])


def _route(message: Any, names: Mapping[int, str]) -> Route:
    return Route(
        device=names[message.get_attr("RTA_OIF")],
        family=message["family"],
        target=message.get_attr("RTA_DST") or "",
        prefix=message["dst_len"],
        gateway=message.get_attr("RTA_GATEWAY") or "",
        source=message.get_attr("RTA_PREFSRC") or "",
        table=_table(message),
        metric=message.get_attr("RTA_PRIORITY") or 0,
        scope=message["scope"],
        protocol=message["proto"],
        onlink=bool(message["flags"] & _RTNH_F_ONLINK),
    )
