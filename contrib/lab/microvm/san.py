# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypervisors around shared storage: N hosts, one storage server, disks that all hosts share, networks that can be cut.

network      host 1, 2, ...     server       for
management   eth0 10.38.0.1..   10.38.0.100
san-a        eth1 10.38.1.1..   10.38.1.100  first path to storage
san-b        eth2 10.38.2.1..   10.38.2.100  second path to storage
lan-a        eth3               -            bonds: hosts only, no address
lan-b        eth4               -            bonds: hosts only, no address
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from contrib.lab import registry
from contrib.lab.control import HostFailed
from contrib.lab.fabric import Fabric
from contrib.lab.labs import Lab
from contrib.lab.microvm import initiator, storage_server
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.spec import Lun, Nic

NETWORKS = ("management", "san-a", "san-b", "lan-a", "lan-b")
SERVER = 100
LUN_BYTES = 2 << 30


def address(network: str, member: int) -> str:
    return f"10.38.{NETWORKS.index(network)}.{member}"


class San:
    """``with San(hosts=2) as san``: everybody is booted at once; ``fields`` are further ones of each host's spec."""

    def __init__(self, hosts: int = 2, *, luns: int = 1, **fields: Any) -> None:
        self.name = secrets.token_hex(2)
        self._count = hosts
        self._lun_count = luns
        self._fields = fields
        self._stack = ExitStack()
        self._server: MicroHost | None = None
        self.hosts: list[MicroHost] = []
        self.luns: list[Lun] = []

    @property
    def server(self) -> MicroHost:
        if self._server is None:
            raise HostFailed("the storage server is not up")
        return self._server

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._fabric = stack.enter_context(Fabric(NETWORKS))
            folder = stack.enter_context(registry.folder("luns"))
            for number in range(self._lun_count):
                image = folder / f"lun{number}.img"
                with open(image, "wb") as file:
                    file.truncate(LUN_BYTES)
                self.luns.append(Lun(str(image), f"{folder.name[-6:]}{number}"))
            self._server = MicroHost(
                f"{self.name}-storage",
                fabric=self._fabric,
                nics=_nics(SERVER, NETWORKS[:3]),
                hypervisor=False,
                memory_mib=768,
                cpus=1,
                modules=storage_server.MODULES,
            )
            self.hosts = [
                MicroHost(
                    f"{self.name}-host{number}",
                    fabric=self._fabric,
                    nics=_nics(number, NETWORKS),
                    luns=tuple(self.luns),
                    modules=initiator.MODULES,
                    hosts=self._names(),
                    **self._fields,
                )
                for number in range(1, self._count + 1)
            ]
            everybody = [self._server, *self.hosts]
            for host in everybody:
                stack.callback(host.stop)
            _side_by_side(MicroHost.start, everybody)
            names = [host.spec.name for host in self.hosts]
            disks = [f"LUN /dev/disk/by-id/wwn-{lun.wwn}" for lun in self.luns]
            Lab(f"{self.name}", "micro", self._fabric.pid, [*names, self.server.spec.name], NETWORKS, disks).save(
                folder
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start_agents(self) -> None:
        _side_by_side(MicroHost.start_agent, self.hosts)

    def _names(self) -> str:
        members = [(f"host{number}", number) for number in range(1, self._count + 1)]
        return "".join(f"{address('management', n)} {name}\n" for name, n in [*members, ("storage", SERVER)])


def _side_by_side(start: Callable[[MicroHost], object], hosts: Sequence[MicroHost]) -> None:
    """When it is interrupted, or one fails, the others are not waited for: a power cut ends their start."""
    with ThreadPoolExecutor(len(hosts)) as threads:
        try:
            list(threads.map(start, hosts))
        except BaseException:
            for host in hosts:
                host.power_cut()
            raise


def _nics(member: int, networks: tuple[str, ...]) -> tuple[Nic, ...]:
    nics = []
    for number, network in enumerate(networks):
        configured = f"{address(network, member)}/24" if network not in ("lan-a", "lan-b") else ""
        nics.append(Nic(f"eth{number}", network, f"52:54:00:38:{number:02x}:{member:02x}", configured))
    return tuple(nics)
