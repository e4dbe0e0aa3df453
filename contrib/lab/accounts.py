# SPDX-License-Identifier: GPL-2.0-or-later
"""Users and groups of a host: the machine's, with vdsm as 36:36 and the memberships that an installed host has."""

from __future__ import annotations

from dataclasses import dataclass

from contrib.lab.spec import KVM_GID, VDSM_UID

# the accounts under which distributions run QEMU and sanlock
QEMU_USERS = ("libvirt-qemu", "qemu")
SANLOCK_USER = "sanlock"
VDSM_GROUPS = ("kvm", "sanlock", "libvirt", "qemu", "libvirt-qemu")


@dataclass(frozen=True)
class Accounts:
    passwd: str
    group: str
    qemu_user: str


def accounts_of(passwd: str, group: str) -> Accounts:
    """The host's account files, from the machine's.

    Whoever has the number 36 on the machine loses it in the host. The group with number 36 is called vdsm: the
    machine's kvm group keeps its name and number, since device nodes carry it.
    """
    users = [line for line in passwd.splitlines() if line and not _is(line, "vdsm", VDSM_UID)]
    groups = [line for line in group.splitlines() if line and not _is(line, "vdsm", KVM_GID)]
    names = {line.split(":")[0] for line in users}
    qemu_user = next((name for name in QEMU_USERS if name in names), "root")
    users.append(f"vdsm:x:{VDSM_UID}:{KVM_GID}:Node Virtualization Manager:/var/lib/vdsm:/usr/sbin/nologin")
    members = ",".join(name for name in (*QEMU_USERS, SANLOCK_USER) if name in names)
    groups = [_joined(line, "vdsm") if line.split(":")[0] in VDSM_GROUPS else line for line in groups]
    groups.append(f"vdsm:x:{KVM_GID}:{members}")
    return Accounts("\n".join(users) + "\n", "\n".join(groups) + "\n", qemu_user)


def _is(line: str, name: str, number: int) -> bool:
    fields = line.split(":")
    return fields[0] == name or fields[2] == str(number)


def _joined(line: str, user: str) -> str:
    name, password, number, members = line.split(":", 3)
    present = [member for member in members.split(",") if member]
    return ":".join((name, password, number, ",".join([*present, user])))
