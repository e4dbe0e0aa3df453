# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults by name, for people: what each does, what it takes, and for which kind of host there is one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from contrib.lab import faults
from contrib.lab.control import HostFailed
from contrib.lab.fault_arguments import CHECKS
from contrib.lab.labs import AnyHost, Lab, Member
from contrib.lab.microvm import faults as micro
from contrib.lab.microvm import storage_faults
from contrib.lab.microvm.host import MicroHost

Held = AbstractContextManager[None]


@dataclass(frozen=True)
class Fault:
    meaning: str
    # names of its arguments, in order
    arguments: tuple[str, ...]
    start: Callable[[Member, AnyHost, list[str]], Held]


def hold(name: str, member: Member, arguments: list[str]) -> Held:
    """The fault as a context manager. Raises HostFailed for a wrong name, wrong arguments or the wrong kind of host."""
    fault = FAULTS.get(name)
    if fault is None:
        raise HostFailed(f"no fault {name}: there are {', '.join(sorted(FAULTS))}")
    if len(arguments) != len(fault.arguments):
        takes = " ".join(argument.upper() for argument in fault.arguments) or "nothing more"
        raise HostFailed(f"{name} takes HOST and {takes}")
    host = member.host()
    for argument, value in zip(fault.arguments, arguments, strict=True):
        CHECKS[argument](host, value)
    return fault.start(member, host, arguments)


def _link_cut(member: Member, host: AnyHost, arguments: list[str]) -> Held:
    if isinstance(host, MicroHost):
        return micro.link_cut(host, arguments[0])
    return faults.link_cut(_lab(member), host, arguments[0])


def _delay(member: Member, host: AnyHost, arguments: list[str]) -> Held:
    nic, delay_ms = arguments[0], int(arguments[1])
    if isinstance(host, MicroHost):
        return micro.packets_delayed(host, nic, delay_ms)
    return faults.packets_delayed(_lab(member), host, nic, delay_ms)


def _loss(member: Member, host: AnyHost, arguments: list[str]) -> Held:
    nic, percent = arguments[0], int(arguments[1])
    if isinstance(host, MicroHost):
        return micro.packets_lost(host, nic, percent)
    return faults.packets_lost(host, nic, percent)


def _paused(member: Member, host: AnyHost, arguments: list[str]) -> Held:
    return micro.paused(host) if isinstance(host, MicroHost) else faults.paused(host)


def _lab(member: Member) -> Lab:
    if member.lab is None:
        raise HostFailed(f"{member.name} belongs to no cluster: its cable ends in itself")
    return member.lab


def _micro(host: AnyHost) -> MicroHost:
    if not isinstance(host, MicroHost):
        raise HostFailed("there is none for namespace hosts: they share the machine's kernel")
    return host


FAULTS = {
    "link-cut": Fault("no carrier on a NIC", ("nic",), _link_cut),
    "drop-peer": Fault(
        "nothing from or to an address", ("address",), lambda _, host, a: faults.peer_dropped(host, a[0])
    ),
    "delay": Fault("packets that a host sends arrive late", ("nic", "milliseconds"), _delay),
    "loss": Fault("packets are lost at random", ("nic", "percent"), _loss),
    "full": Fault("no space where a folder lies", ("folder",), lambda _, host, a: faults.file_system_full(host, a[0])),
    "freeze": Fault(
        "writes below a mount point hang", ("mount-point",), lambda _, host, a: faults.storage_hung(host, a[0])
    ),
    "kill": Fault("kill -9 of a daemon, then its start", ("daemon",), lambda _, host, a: faults.killed(host, a[0])),
    "pause": Fault("the host stands still", (), _paused),
    "clock": Fault(
        "the wall clock jumps", ("seconds",), lambda _, host, a: micro.clock_shifted(_micro(host), int(a[0]))
    ),
    "lun-errors": Fault(
        "reads and writes of a LUN fail", ("lun",), lambda _, host, a: storage_faults.lun_errors(_micro(host), a[0])
    ),
    "lun-delay": Fault(
        "reads and writes of a LUN are late",
        ("lun", "milliseconds"),
        lambda _, host, a: storage_faults.lun_delayed(_micro(host), a[0], int(a[1])),
    ),
}
