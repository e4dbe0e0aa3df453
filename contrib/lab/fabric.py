# SPDX-License-Identifier: GPL-2.0-or-later
"""The cables between hosts: bridges in a network namespace of their own, so that this machine's network shows none.

One network is one bridge; each NIC of a micro-VM is a tap on it, each NIC of a namespace host the far end of a veth
pair. The namespace, and all in it, ends with its last process: the placeholder here (which dies with the starter)
and the QEMUs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from contrib.lab import furnish, kernel_calls
from contrib.lab.control import HostFailed


class Fabric:
    def __init__(self, networks: Sequence[str] = ("management", "storage", "spare")) -> None:
        self._networks = tuple(networks)
        self._placeholder: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """A process in the fabric's network namespace."""
        if self._placeholder is None:
            raise HostFailed("the fabric is not up")
        return self._placeholder.pid

    def __enter__(self) -> Self:
        self._placeholder = subprocess.Popen(
            ["unshare", "--net", "--", "sleep", "infinity"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=kernel_calls.die_with_parent,  # noqa: PLW1509 - one system call, no lock taken
        )
        own = os.readlink("/proc/self/ns/net")
        furnish.until("the fabric's network", lambda: os.readlink(f"/proc/{self.pid}/ns/net") != own)
        commands = ["link set lo up"]
        for network in self._networks:
            # a bridge without spanning tree forwards at once
            commands += [f"link add {bridge(network)} type bridge stp_state 0 forward_delay 0"]
            commands += [f"link set {bridge(network)} up"]
        self.ip(*commands)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        placeholder, self._placeholder = self._placeholder, None
        if placeholder is not None:
            placeholder.kill()
            placeholder.wait()

    def ip(self, *commands: str) -> None:
        subprocess.run([*self.command(), "ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)

    def command(self) -> list[str]:
        return enter(self.pid)


def enter(pid: int) -> list[str]:
    """Prefix of a command line that runs in that process's network namespace."""
    return ["nsenter", "-t", str(pid), "-n", "--"]


def bridge(network: str) -> str:
    return f"br-{network}"[:15]


def port(number: int, nic: str) -> str:
    """Name of the bridge's end of a cluster host's cable."""
    return f"h{number}{nic}"


def cable(fabric: int, number: int, network: str, host: int, nic: str, mac: str) -> None:
    """Give a host's network namespace a NIC whose other end is a port of the network's bridge."""
    end = port(number, nic)
    commands = (
        f"link add {end} type veth peer name {nic} address {mac} netns {host}",
        f"link set {end} master {bridge(network)} up",
    )
    subprocess.run([*enter(fabric), "ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def plug(pid: int, tap: str, network: str) -> None:
    """A tap on the network's bridge; one that a former QEMU left is taken again. Raises HostFailed."""
    commands = f"tuntap add dev {tap} mode tap\nlink set {tap} master {bridge(network)} up\n"
    done = subprocess.run(
        [*enter(pid), "ip", "-force", "-batch", "-"], input=commands, text=True, capture_output=True, check=False
    )
    shown = subprocess.run([*enter(pid), "ip", "-o", "link", "show", tap], capture_output=True, text=True, check=False)
    if f"master {bridge(network)}" not in shown.stdout:
        raise HostFailed(f"no NIC on network {network}: {done.stderr.strip()}")
