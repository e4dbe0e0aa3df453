# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong with hosts of a cluster, each for the length of a ``with`` block and then restored, whatever happens.

Those that take a host and no cluster serve micro-VMs too, which have more in `microvm.faults` and `storage_faults`. A
private host shares its kernel with the machine, so its clock can't be shifted and its disks can't be made to fail: that
is what micro-VMs are for.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol

from contrib.lab import fabric, furnish, groups
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost
from contrib.lab.microvm.host import MicroHost
from contrib.lab.registry import find
from contrib.lab.spec import CHECKOUT

DROP_TABLE = "lab-drop"
LOSS_TABLE = "lab-loss"
DAEMONS = ("agent", "root", "spm", *furnish.SOCKETS)


class Runs(Protocol):
    """A host of either kind."""

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]: ...


class Cabled(Protocol):
    """Who knows where a host's cables end: a `Cluster`, or what the command line knows of one."""

    @property
    def fabric_pid(self) -> int: ...

    def number(self, host: PrivateHost) -> int: ...


# -- networks


@contextlib.contextmanager
def link_cut(cluster: Cabled, host: PrivateHost, nic: str = "eth0") -> Iterator[None]:
    """The cable is out: no carrier on that NIC."""
    port = fabric.port(cluster.number(host), nic)
    _ip(cluster, f"link set {port} down")
    try:
        yield
    finally:
        _ip(cluster, f"link set {port} up")


@contextlib.contextmanager
def peer_dropped(host: Runs, peer: str) -> Iterator[None]:
    """Nothing from that address reaches the host, nothing from the host reaches it; nobody is told."""
    rules = (
        f"chain in {{ type filter hook input priority 0; ip saddr {peer} drop; }}",
        f"chain out {{ type filter hook output priority 0; ip daddr {peer} drop; }}",
    )
    with _table(host, DROP_TABLE, rules):
        yield


@contextlib.contextmanager
def packets_lost(host: Runs, nic: str, percent: int) -> Iterator[None]:
    """That share of what reaches the host on that NIC is lost, at random."""
    if not 0 <= percent <= 100:
        raise ValueError(f"a share of lost packets is 0 to 100 percent, not {percent}")
    rule = f'iifname "{nic}" numgen random mod 100 < {percent} drop;'
    with _table(host, LOSS_TABLE, (f"chain in {{ type filter hook input priority 0; {rule} }}",)):
        yield


@contextlib.contextmanager
def packets_delayed(cluster: Cabled, host: PrivateHost, nic: str, delay_ms: int) -> Iterator[None]:
    """What the host sends on that NIC arrives so much later: a program carries its frames across."""
    port = fabric.port(cluster.number(host), nic)
    enter = fabric.enter(cluster.fabric_pid)
    with _held([*enter, sys.executable, "-m", "contrib.lab.slow_wire", port, str(delay_ms)], "carrying"):
        yield


# -- storage


@contextlib.contextmanager
def storage_hung(host: PrivateHost | MicroHost, mount_point: str) -> Iterator[None]:
    """Writes below that mount point, on every host that has it mounted, neither succeed nor fail."""
    if isinstance(host, PrivateHost):
        with _held([sys.executable, "-m", "contrib.lab.frozen", str(host.path(mount_point))], "frozen"):
            yield
        return
    host.run(["fsfreeze", "--freeze", mount_point])
    try:
        yield
    finally:
        host.run(["fsfreeze", "--unfreeze", mount_point])


@contextlib.contextmanager
def file_system_full(host: Runs, folder: str) -> Iterator[None]:
    """No space is left where that folder lies."""
    filler = f"{folder}/lab-filler"
    # at once what is free, then what is too scattered for one piece
    free = '$(stat -f -c "%a" "$1") * $(stat -f -c "%S" "$1")'
    fill = f'fallocate -l $(({free})) "$1/lab-filler"; cat /dev/zero >> "$1/lab-filler"'
    host.run(["sh", "-c", fill, "fill", folder], check=False)
    try:
        yield
    finally:
        host.run(["rm", "-f", filler])


# -- processes and power


@contextlib.contextmanager
def killed(host: PrivateHost | MicroHost, daemon: str) -> Iterator[None]:
    """kill -9 of a daemon, and its start afterwards. The SPM process is started by whom the engine elects."""
    _kill(host, daemon)
    try:
        yield
    finally:
        _restart(host, daemon)


def _kill(host: PrivateHost | MicroHost, daemon: str) -> None:
    if daemon == "agent":
        host.kill_agent()
    elif daemon == "root":
        host.kill_root_helper()
    elif daemon == "spm":
        host.run(["pkill", "-9", "-f", "storage[.]spm"])
    elif daemon in furnish.SOCKETS:
        host.run(["pkill", "-9", "-x", daemon])
        furnish.until(f"the end of {daemon}", lambda: host.run(["pidof", daemon], check=False).returncode == 1)
    else:
        raise ValueError(f"no daemon {daemon}: there are {', '.join(DAEMONS)}")


def _restart(host: PrivateHost | MicroHost, daemon: str) -> None:
    if daemon == "agent":
        host.start_agent()
    elif daemon == "root":
        host.start_root_helper()
    elif daemon in furnish.SOCKETS:
        watchdog = isinstance(host, MicroHost) and host.spec.watchdog
        argv = furnish.daemons(host.spec.host_id, watchdog=watchdog)[daemon]
        env = {} if watchdog else furnish.DAEMON_ENVIRONMENT
        host.start_process(argv, log=f"/var/log/{daemon}.out", env=env)
        furnish.until(daemon, lambda: host.answers(furnish.SOCKETS[daemon]))
        furnish.open_sanlock(host.run)


@contextlib.contextmanager
def paused(host: PrivateHost) -> Iterator[None]:
    """All of the host's processes stand still, and go on."""
    found = groups.freezer(find(host.spec.name).cgroups)
    if found is None:
        raise HostFailed(f"{host.spec.name} can't be paused: this machine lets nobody make freezer groups")
    switch, frozen, thawed = found
    switch.write_text(frozen)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):  # the host was ended meanwhile
            switch.write_text(thawed)


def _ip(cluster: Cabled, command: str) -> None:
    subprocess.run([*fabric.enter(cluster.fabric_pid), "ip", *command.split()], check=True, capture_output=True)


@contextlib.contextmanager
def _held(argv: Sequence[str], word: str) -> Iterator[None]:
    """A program that says the word once its fault is there, and undoes it when its input ends, however that comes."""
    with subprocess.Popen(
        argv, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != f"{word}\n":
                raise HostFailed(f"{' '.join(argv)} did not start")
            yield
        finally:
            holder.stdin.close()
            holder.wait(timeout=10)


@contextlib.contextmanager
def _table(host: Runs, name: str, chains: Sequence[str]) -> Iterator[None]:
    newline = "\n"
    host.run(["nft", "-f", "-"], stdin=f"table inet {name} {{\n{newline.join(chains)}\n}}\n".encode())
    try:
        yield
    finally:
        host.run(["nft", "delete", "table", "inet", name])
