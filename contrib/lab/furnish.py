# SPDX-License-Identifier: GPL-2.0-or-later
"""What turns a bare root into a hypervisor: accounts, folders, configuration, image files, daemons.

Runs as the first process of a host, of either kind: in namespaces (`init`) or in a micro-VM (`microvm.init`).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from contrib.lab import accounts, settings
from contrib.lab.spec import KVM_GID, LOCAL_FOLDER, POSIX_IMAGE, PYTHON, VDSM_UID, HostSpec
from contrib.lab.supervisor import Supervisor

DAEMON_START_S = 20.0
SOCKETS = {
    "virtlogd": "/run/libvirt/virtlogd-sock",
    "sanlock": "/run/sanlock/sanlock.sock",
    "libvirtd": "/run/libvirt/libvirt-sock",
}
# without a watchdog sanlock needs no right to lock memory
DAEMON_ENVIRONMENT = {"SANLOCK_PRIVILEGED": "0"}
COMMANDS = {"vdsm": "vdsm.cli", "vdsm-client": "vdsm.cli.vdsm_client"}
LIBVIRT_CACHE = "/var/cache/libvirt/qemu/capabilities"
VDSM_FOLDERS = (
    "/run/vdsm",
    "/var/log/vdsm",
)
ROOT_FOLDERS = (
    "/var/lib/vdsm",
    "/rhev/data-center",
    "/rhev/data-center/mnt",
    "/run/vdsm-root",
    "/var/lib/vdsm-root",
    "/etc/vdsm/vdsm.conf.d",
    "/usr/libexec/vdsm/hooks",
    "/run/libvirt",
    "/run/lock",
)
# a host starts without the machine's VMs, networks, certificates and logs
EMPTIED = (
    "/etc/libvirt",
    "/var/lib/libvirt",
    "/var/log/libvirt",
    "/etc/vdsm",
    "/var/lib/vdsm",
    "/var/log/vdsm",
    "/var/lib/sanlock",
)


def furnish(spec: HostSpec, capabilities: dict[str, bytes]) -> str:
    """Accounts, names, folders and configuration; returns QEMU's user."""
    socket.sethostname(spec.name)
    Path("/etc/hostname").write_text(spec.name + "\n")
    Path("/etc/hosts").write_text(settings.hosts(spec))
    own = accounts.accounts_of(Path("/etc/passwd").read_text(), Path("/etc/group").read_text())
    Path("/etc/passwd").write_text(own.passwd)
    Path("/etc/group").write_text(own.group)
    for folder in EMPTIED:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (*ROOT_FOLDERS, *VDSM_FOLDERS, "/etc/libvirt", "/var/log/libvirt/qemu", "/var/lib/libvirt/qemu"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    for folder in VDSM_FOLDERS:
        os.chown(folder, VDSM_UID, KVM_GID)
    for name, content in capabilities.items():
        Path(LIBVIRT_CACHE).mkdir(parents=True, exist_ok=True)
        Path(LIBVIRT_CACHE, name).write_bytes(content)
    Path("/etc/libvirt/libvirtd.conf").write_text(settings.libvirtd(spec))
    Path("/etc/libvirt/qemu.conf").write_text(settings.qemu(own.qemu_user))
    Path("/etc/libvirt/virtlogd.conf").write_text("max_clients = 1024\nmax_size = 0\n")
    Path("/etc/vdsm/vdsm.id").write_text(spec.host_id + "\n")
    Path("/etc/vdsm/vdsm.conf").write_text(settings.agent())
    Path("/etc/vdsm/vdsm.conf.d/50-lab.conf").write_text(settings.agent_drop_in(spec))
    Path("/usr/local/bin").mkdir(parents=True, exist_ok=True)
    for command, module in COMMANDS.items():
        Path("/usr/local/bin", command).write_text(f'#!/bin/sh\nexec {PYTHON} -m {module} "$@"\n')
        os.chmod(f"/usr/local/bin/{command}", 0o755)
    return own.qemu_user


def read_tree(folder: str) -> dict[str, bytes]:
    """libvirt's cached answers of this machine's QEMU: saves each host a second; libvirt checks that they still fit."""
    path = Path(folder)
    return {entry.name: entry.read_bytes() for entry in path.iterdir()} if path.is_dir() else {}


def start_image_makers(spec: HostSpec) -> list[subprocess.Popen[bytes]]:
    """A LUN-like image with a file system for POSIXFS domains, and a folder on a real file system for LOCALFS ones."""
    images = ((POSIX_IMAGE, spec.posix_image_bytes), ("/srv/local.img", spec.local_image_bytes))
    return [make_image(image, size) for image, size in images]


def make_image(path: str, size_bytes: int) -> subprocess.Popen[bytes]:
    """Start making a sparse file with an empty ext4 that belongs to vdsm."""
    with open(path, "wb") as file:
        file.truncate(size_bytes)
    options = f"lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner={VDSM_UID}:{KVM_GID}"
    return subprocess.Popen(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", options, path], stdin=subprocess.DEVNULL)


def finish_images(makers: list[subprocess.Popen[bytes]]) -> None:
    for maker in makers:
        if maker.wait(timeout=30) != 0:
            raise RuntimeError(f"{maker.args!r} ended with {maker.returncode}")
    os.mkdir(LOCAL_FOLDER)
    subprocess.run(["mount", "-t", "ext4", "-o", "loop", "/srv/local.img", LOCAL_FOLDER], check=True)
    os.chmod(LOCAL_FOLDER, 0o755)


def daemons(host_id: str, *, watchdog: bool = False) -> dict[str, list[str]]:
    """Command lines by name. ``watchdog``: sanlock lets wdmd reset the host when leases are lost."""
    return {
        "virtlogd": ["virtlogd"],
        "sanlock": ["sanlock", "daemon", "-D", "-w", "1" if watchdog else "0", "-h", "0", "-l", "0", "-e", host_id],
        "libvirtd": ["libvirtd", "--listen"],
    }


def start_daemons(spec: HostSpec, supervisor: Supervisor, *, watchdog: bool = False) -> None:
    """libvirt's and sanlock's; returns once they listen."""
    Path("/run/sanlock").mkdir()
    environment = {} if watchdog else DAEMON_ENVIRONMENT
    started = {
        name: supervisor.start(argv, env=environment, log=f"/var/log/{name}.out")
        for name, argv in daemons(spec.host_id, watchdog=watchdog).items()
    }
    for name, pid in started.items():

        def listens(name: str = name, pid: int = pid) -> bool:
            code = supervisor.has_ended(pid)
            if code is not None:
                raise RuntimeError(f"{name} ended with {code}: {_tail(f'/var/log/{name}')}")
            return _answers(SOCKETS[name])

        until(name, listens)
    open_sanlock(lambda argv: subprocess.run(argv, check=True))


def open_sanlock(run: Callable[[list[str]], object]) -> None:
    """Its socket belongs to root; vdsm's group may use it, as on an installed host."""
    run(["chown", f"0:{KVM_GID}", SOCKETS["sanlock"]])
    run(["chmod", "660", SOCKETS["sanlock"]])


def _tail(prefix: str) -> str:
    for path in (f"{prefix}.out", f"{prefix}.log"):
        if os.path.exists(path):
            return Path(path).read_text(errors="replace")[-500:]
    return ""


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def until(what: str, done: Callable[[], bool], timeout_s: float = DAEMON_START_S) -> None:
    """Other programs' sockets and namespaces appear without an event for us: look every 5 ms."""
    limit = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > limit:
            raise RuntimeError(f"{what} did not come up within {timeout_s:.0f} s")
        time.sleep(0.005)
