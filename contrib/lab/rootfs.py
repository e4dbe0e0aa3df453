# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's root: the machine's file systems below, memory above.

Runs once, in a fresh mount namespace, as that host's PID 1. Whatever the host writes lands in one tmpfs that ends
with the namespace, so the machine's files cannot change. The checkout is bound read-only at /usr/lib/vdsm, where
user 36 can reach it even when the checkout's own path can't be traversed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from contrib.lab import groups, kernel_calls
from contrib.lab.spec import CHECKOUT, PREFIX, HostSpec
from contrib.lab.vm_xml import domain_type

STAGE = "/mnt"
DISK_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "f2fs", "zfs", "bcachefs"})
# parts of a machine that may be file systems of their own and that a host needs
LAYERED = ("/usr", "/var", "/etc", "/opt", "/root")
FRESH = (("/run", "755"), ("/tmp", "1777"), ("/srv", "755"))


def enter(spec: HostSpec) -> None:
    """Build the root and move into it. Afterwards nothing of the machine is writable but /dev and shared folders."""
    cgroups = groups.hierarchies()
    kernel_calls.mount("lab", STAGE, "tmpfs", options="mode=755")
    root = f"{STAGE}/root"
    os.mkdir(root)
    _overlay("/", root, f"{STAGE}/layer0")
    for number, part in enumerate(_own_file_systems(), start=1):
        _overlay(part, root + part, f"{STAGE}/layer{number}")
    for folder, mode in FRESH:
        os.makedirs(root + folder, exist_ok=True)
        kernel_calls.mount("lab", root + folder, "tmpfs", options=f"mode={mode}")
    _devices(root)
    _bind(str(CHECKOUT), root + PREFIX)
    kernel_calls.make_read_only(root + PREFIX)
    for inside, outside in spec.shared.items():
        _bind(outside, root + inside)
    _pivot(root)
    kernel_calls.mount("proc", "/proc", "proc", kernel_calls.MS_NOSUID | kernel_calls.MS_NODEV | kernel_calls.MS_NOEXEC)
    kernel_calls.mount("sysfs", "/sys", "sysfs")
    groups.mount_all(cgroups)


def _overlay(lower: str, target: str, layer: str) -> None:
    os.makedirs(f"{layer}/upper")
    os.makedirs(f"{layer}/work")
    options = f"lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work"
    kernel_calls.mount("overlay", target, "overlay", options=options)


def _own_file_systems() -> list[str]:
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, fstype = line.split()[:3]
        if mount_point in LAYERED and fstype in DISK_FILE_SYSTEMS:
            found.append(mount_point)
    return sorted(set(found))


def _devices(root: str) -> None:
    kernel_calls.bind("/dev", f"{root}/dev", recursive=True)
    kernel_calls.mount("lab", f"{root}/dev/shm", "tmpfs", options="mode=1777")
    kernel_calls.mount("devpts", f"{root}/dev/pts", "devpts", options="newinstance,ptmxmode=0666,mode=620,gid=5")
    if domain_type() == "qemu" and os.path.exists(f"{root}/dev/kvm"):
        _cover_kvm(f"{root}/dev/kvm")


def _cover_kvm(device: str) -> None:
    """Put an unreadable file over a /dev/kvm that can't run a guest.

    libvirt probes QEMU with rights that a guest's QEMU does not have. Where the two see the device differently,
    it finds its answers outdated and probes again, 7 s at every start of a guest.
    """
    cover = f"{STAGE}/no-kvm"
    os.close(os.open(cover, os.O_CREAT | os.O_WRONLY, 0))
    kernel_calls.bind(cover, device)


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(target).touch()
    kernel_calls.bind(source, target)


def _pivot(root: str) -> None:
    old = f"{root}/run/machine"
    os.mkdir(old)
    subprocess.run(["pivot_root", root, old], check=True)
    os.chdir("/")
    kernel_calls.detach("/run/machine")
    os.rmdir("/run/machine")
