# SPDX-License-Identifier: GPL-2.0-or-later
"""A hypervisor's side of shared block storage: iSCSI sessions, paths, NVMe connections, with the tools of the field."""

from __future__ import annotations

import re

from contrib.lab import furnish
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.storage_server import ISCSI_NAME, NVME_NAME, Chap

MODULES = ("dm-mod", "dm-multipath", "dm-round-robin", "iscsi_tcp", "nvme-tcp", "nfs", "nfsv4", "bonding", "8021q")
# a dead path is noticed within 4 s and its I/O handed back 2 s later
SETTINGS = {
    "node.conn[0].timeo.noop_out_interval": "2",
    "node.conn[0].timeo.noop_out_timeout": "2",
    "node.session.timeo.replacement_timeout": "2",
    "node.conn[0].timeo.login_timeout": "5",
    "node.session.initial_login_retry_max": "1",
}
MULTIPATH = """defaults {
    user_friendly_names no
    find_multipaths no
    polling_interval 1
    no_path_retry 30
}
blacklist {
    device {
        vendor "QEMU"
    }
    devnode "^(vd|loop|ram|sr)"
}
blacklist_exceptions {
    property "(SCSI_IDENT_|ID_WWN)"
}
"""


def start_iscsi(host: MicroHost) -> None:
    """iscsid with an initiator name of its own."""
    host.put("/etc/iscsi/initiatorname.iscsi", f"InitiatorName=iqn.1994-05.com.redhat:{host.spec.name}\n".encode())
    host.run(["sh", "-c", "mkdir -p /run/lock/iscsi /etc/iscsi/nodes /etc/iscsi/send_targets"])
    host.start_process(["iscsid", "-f"], log="/var/log/iscsid.log")
    furnish.until("iscsid", lambda: host.run(["iscsiadm", "-m", "session"], check=False).returncode in (0, 21))


def log_in(host: MicroHost, portal: str, chap: Chap | None = None, *, mutual: bool = False) -> None:
    """Discover the portal and log in to the lab's target there. Raises HostFailed as iscsiadm words it."""
    host.run(["iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal])
    node = ["iscsiadm", "-m", "node", "-T", ISCSI_NAME, "-p", portal]
    settings = dict(SETTINGS)
    if chap:
        settings |= {"node.session.auth.authmethod": "CHAP", "node.session.auth.username": chap.user}
        settings |= {"node.session.auth.password": chap.password}
    if chap and mutual:
        settings |= {"node.session.auth.username_in": chap.target_user}
        settings |= {"node.session.auth.password_in": chap.target_password}
    for name, value in settings.items():
        host.run([*node, "-o", "update", "-n", name, "-v", value])
    host.run([*node, "--login"])
    host.run(["udevadm", "settle"])


def log_out(host: MicroHost) -> None:
    """End every session and forget the nodes."""
    host.run(["iscsiadm", "-m", "node", "--logoutall=all"], check=False)
    host.run(["iscsiadm", "-m", "node", "-o", "delete"], check=False)


def start_multipath(host: MicroHost) -> int:
    """multipathd over all SCSI disks; returns its number inside."""
    host.put("/etc/multipath.conf", MULTIPATH.encode())
    pid = host.start_process(["multipathd", "-d", "-s"], log="/var/log/multipathd.log")
    furnish.until("multipathd", lambda: b"path" in host.run(["multipathd", "show", "status"], check=False).stdout)
    return pid


def paths(host: MicroHost, wwid: str) -> dict[str, str]:
    """State of each path of a map as multipathd sees it: {"sda": "active", ...}."""
    told = host.run(["multipathd", "show", "paths", "format", "%d %w %t"]).stdout.decode()
    found = [line.split() for line in told.splitlines()[1:]]
    return {fields[0]: fields[2] for fields in found if len(fields) == 3 and fields[1] == wwid}


def connect_nvme(host: MicroHost, address: str) -> str:
    """Connect the lab's subsystem; returns its block device."""
    before = _namespaces(host)
    host.run(["nvme", "connect", "-t", "tcp", "-a", address, "-s", "4420", "-n", NVME_NAME])
    furnish.until("the NVMe namespace", lambda: _namespaces(host) != before)
    return f"/dev/{(_namespaces(host) - before).pop()}"


def _namespaces(host: MicroHost) -> set[str]:
    names = host.run(["ls", "/sys/class/block"]).stdout.decode().split()
    # "nvme0c0n1" is one path of "nvme0n1"
    return {name for name in names if re.fullmatch(r"nvme\d+n\d+", name)}
