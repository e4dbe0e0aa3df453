# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VMs have something open on a mount, as the kernel says: storage that is dead is not asked."""

from __future__ import annotations

import contextlib
import os
import pwd

QEMU_USERS = ("qemu", "libvirt-qemu")
QEMU_PROGRAMS = ("qemu-system", "qemu-kvm")
"""How names of processes begin that run a VM, whoever they run as."""


def vms_on(target: str) -> list[str]:
    """``name (process id)`` of each, also of VMs that are not the agent's. Blocks for some tenths of a second."""
    users = _qemu_users()
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            with open(f"/proc/{name}/comm", encoding="utf-8", errors="replace") as f:
                program = f.read().strip()
            is_vm = program.startswith(QEMU_PROGRAMS) or os.stat(f"/proc/{name}").st_uid in users
            if is_vm and any(_is_below(path, target) for path in _opened_by(name)):
                found.append(f"{program} (process {name})")
    return found


def _opened_by(process: str) -> list[str]:
    found = []
    folder = f"/proc/{process}/fd"
    for number in os.listdir(folder):
        with contextlib.suppress(OSError):  # closed meanwhile
            found.append(os.readlink(f"{folder}/{number}"))
    return found


def _is_below(path: str, target: str) -> bool:
    return path == target or path.startswith(f"{target}/")


def _qemu_users() -> set[int]:
    found = set()
    for name in QEMU_USERS:
        with contextlib.suppress(KeyError):
            found.add(pwd.getpwnam(name).pw_uid)
    return found
