# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether what a fault is told to break is there: each check takes the host and a value, and raises HostFailed."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from contrib.lab import faults
from contrib.lab.control import HostFailed
from contrib.lab.labs import AnyHost


def _nic(host: AnyHost, value: str) -> None:
    _one_of("NIC", value, _words(host, "cd /sys/class/net && ls -d */ | tr -d / | grep -vx lo"))


def _folder(host: AnyHost, value: str) -> None:
    if host.run(["test", "-d", value], check=False).returncode != 0:
        raise HostFailed(f"there is no folder {value}")


def _mount_point(host: AnyHost, value: str) -> None:
    _one_of("mount point", value, _words(host, "findmnt -rno TARGET -t ext4,xfs,nfs,nfs4"))


def _daemon(_: AnyHost, value: str) -> None:
    _one_of("daemon", value, faults.DAEMONS)


def _lun(host: AnyHost, value: str) -> None:
    _one_of("LUN", value, _words(host, "dmsetup info -c --noheadings -o name"))


def _address(_: AnyHost, value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError as error:
        raise HostFailed(str(error)) from None


def _number(name: str, least: int, most: int) -> Callable[[AnyHost, str], None]:
    def check(_: AnyHost, value: str) -> None:
        number = value.removeprefix("-")
        if not (number.isdecimal() and number.isascii() and least <= int(value) <= most):
            raise HostFailed(f"{name}: expected a whole number from {least} to {most}, not {value}")

    return check


def _words(host: AnyHost, command: str) -> list[str]:
    return host.run(["sh", "-c", command], check=False).stdout.decode().split()


def _one_of(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise HostFailed(f"there is no {what} {value}: there are {', '.join(known) or 'none'}")


# by the names that `fault_list` gives arguments
CHECKS: dict[str, Callable[[AnyHost, str], None]] = {
    "nic": _nic,
    "folder": _folder,
    "mount-point": _mount_point,
    "daemon": _daemon,
    "lun": _lun,
    "address": _address,
    "milliseconds": _number("milliseconds", 1, 600_000),
    "percent": _number("percent", 0, 100),
    "seconds": _number("seconds", -(10**9), 10**9),
}
