# SPDX-License-Identifier: GPL-2.0-or-later
"""Several private hosts on common networks, with a file system that all can mount: what an engine calls a data center.

    with Cluster(hosts=3) as cluster:        # 6 s with agents
        cluster.start_agents()
        cluster.hosts[0].run(["ping", "-c1", "host2"])
        ... cluster.connection()             # parameters of a POSIXFS connection, good on every host

    network      host 1, 2, ...     for
    management   eth0 10.37.0.11..  names resolve to these
    migration    eth1 10.37.1.11..
    storage      eth2 10.37.2.11..

The shared image is one file; every host that mounts it by ``-o loop`` gets the same loop device, and so the same
mounted file system: the kernel keeps one page cache for all, as a cluster file system would appear to. The cluster
itself holds that device: of two hosts that mount at once each would make one of its own, and destroy the file system.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from contrib.lab import authority, fabric, furnish, kernel_calls, registry
from contrib.lab.host import PrivateHost
from contrib.lab.labs import Lab

NETWORKS = ("management", "migration", "storage")
SHARED_FOLDER = "/srv/shared"
SHARED_IMAGE = f"{SHARED_FOLDER}/domain.img"
SHARED_BYTES = 16 << 30
PKI = "/etc/pki/vdsm"
# the engine's side of the management network: the bridge itself
ENGINE_ADDRESS = "10.37.0.1/24"


def address(network: str, number: int) -> str:
    """Host 1 is .11 on every network."""
    return f"10.37.{NETWORKS.index(network)}.{10 + number}"


class Cluster:
    def __init__(self, hosts: int = 3, *, name: str = "", settings: str = "") -> None:
        if not 1 <= hosts <= 99:
            raise ValueError(f"a cluster has 1 to 99 hosts, not {hosts}")
        self.name = name or secrets.token_hex(2)
        self._settings = settings
        self._count = hosts
        self._stack = ExitStack()
        self.hosts: list[PrivateHost] = []

    # -- life

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._fabric = stack.enter_context(fabric.Fabric(NETWORKS))
            self._fabric.ip(f"address add {ENGINE_ADDRESS} dev {fabric.bridge('management')}")
            self.folder = stack.enter_context(registry.folder(self.name))
            maker = self._make_image()
            self._authority = authority.Authority(_made(self.folder / "pki"))
            self.engine_identity = self._authority.issue("engine")
            self.hosts = [self._describe(number) for number in range(1, self._count + 1)]
            for host in self.hosts:
                stack.callback(host.stop)
            self._each(self.start_host)
            self._describe_lab().save(self.folder)
            if maker.wait(timeout=60) != 0:
                raise RuntimeError(f"{maker.args!r} ended with {maker.returncode}")
            stack.enter_context(kernel_calls.loop_held(self.folder / "shared" / Path(SHARED_IMAGE).name))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # side by side: each takes a tenth of a second, most of it waiting for the kernel
        try:
            self._each(PrivateHost.stop)
        finally:
            self._stack.close()

    def start_host(self, host: PrivateHost) -> None:
        """Start a host that is down, cable it and give it its certificates; its agent is not started."""
        host.start()
        number = self.number(host)
        commands = ["link set lo up"]
        for index, network in enumerate(NETWORKS):
            nic = f"eth{index}"
            fabric.cable(self._fabric.pid, number, network, host.pid, nic, f"52:54:00:37:{index:02x}:{number:02x}")
            commands += [f"address add {address(network, number)}/24 dev {nic}", f"link set {nic} up"]
        commands.append(f"route add default via {ENGINE_ADDRESS.split('/')[0]}")
        host.run(["ip", "-batch", "-"], stdin="\n".join(commands).encode())
        self._certify(host, number)

    def start_agents(self) -> None:
        self._each(PrivateHost.start_agent)

    # -- what tests and people ask for

    def number(self, host: PrivateHost) -> int:
        """1 for the first host; also the host id by which it connects to pools."""
        return self.hosts.index(host) + 1

    def connection(self) -> dict[str, str]:
        """The shared file system, for connectStorageServer with POSIXFS."""
        return {"id": str(uuid.uuid4()), "connection": SHARED_IMAGE, "vfs_type": "ext4", "mnt_options": "loop"}

    def issue(self, name: str) -> authority.Identity:
        """A certificate of the cluster's authority for a client of that name."""
        return self._authority.issue(name)

    def run_outside(self, argv: list[str], *, timeout_s: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Run a command where the engine would be: on the bridges' side of every cable."""
        return subprocess.run([*self._fabric.command(), *argv], capture_output=True, check=False, timeout=timeout_s)

    @property
    def fabric_pid(self) -> int:
        return self._fabric.pid

    # -- inside

    def _each(self, act: Callable[[PrivateHost], None]) -> None:
        with ThreadPoolExecutor(max(1, len(self.hosts))) as threads:
            list(threads.map(act, self.hosts))

    def _describe(self, number: int) -> PrivateHost:
        return PrivateHost(
            f"{self.name}-host{number}",
            address=f"{address('management', number)}/24",
            cabled=True,
            neighbours=self._names(),
            settings=self._settings,
            shared={SHARED_FOLDER: str(self.folder / "shared")},
        )

    def _describe_lab(self) -> Lab:
        return Lab(
            self.name,
            "namespace",
            self._fabric.pid,
            [host.spec.name for host in self.hosts],
            NETWORKS,
            [f"POSIXFS {SHARED_IMAGE}"],
        )

    def _names(self) -> str:
        numbers = range(1, self._count + 1)
        return "".join(f"{address('management', n)} host{n} {self.name}-host{n}\n" for n in numbers)

    def _make_image(self) -> subprocess.Popen[bytes]:
        shared = _made(self.folder / "shared")
        shared.chmod(0o755)
        return furnish.make_image(str(shared / Path(SHARED_IMAGE).name), SHARED_BYTES)

    def _certify(self, host: PrivateHost, number: int) -> None:
        addresses = [*(address(network, number) for network in NETWORKS), "127.0.0.1"]
        identity = self._authority.issue(f"host{number}", addresses)
        sources: Mapping[str, Path] = {
            "ca": identity.ca,
            "certificate": identity.certificate,
            "key": identity.key,
        }
        for what, path in authority.HOST_FILES.items():
            target = host.path(f"{PKI}/{path}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sources[what], target)
            target.chmod(0o440 if what == "key" else 0o644)
            os.chown(target, 0, 36)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
