# SPDX-License-Identifier: GPL-2.0-or-later
"""A storage server in a micro-VM: iSCSI (LIO, CHAP), NFS v3 and v4, NVMe over TCP, all by the kernel's own targets.

Each LUN is a sparse file, a loop device and a linear device-mapper device above it: `storage_faults` swaps that
table for one that fails or delays. The targets are configured through configfs, as their documentation in the kernel's
source describes it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contrib.lab.microvm.host import MicroHost

MODULES = (
    *("dm-mod", "dm-delay", "dm-flakey", "target_core_mod", "target_core_iblock", "iscsi_target_mod"),
    *("nvmet", "nvmet-tcp", "nfsd"),
)
ISCSI_NAME = "iqn.2003-01.org.linux-iscsi.lab:target"
NVME_NAME = "nqn.2014-08.org.nvmexpress:lab"
EXPORT = "/srv/export"
# v3 clients mount the export's path, v4 clients the root of what is exported: the server's own root is an overlay,
# which the kernel can't export around it
NFS_PATHS = {"3": EXPORT, "4.0": "/", "4.1": "/", "4.2": "/"}
ACCOUNTS = "_rpc:x:815:65534::/run/rpcbind:/usr/sbin/nologin\nstatd:x:816:65534::/var/lib/nfs:/usr/sbin/nologin\n"


@dataclass(frozen=True)
class Chap:
    """Names and secrets of both sides; an initiator that expects the target's must be given it (mutual CHAP)."""

    user: str = "lab-initiator"
    password: str = "initiator-secret"
    target_user: str = "lab-target"
    target_password: str = "target-secret-1"


def make_lun(server: MicroHost, name: str, size_bytes: int) -> str:
    """A new LUN's device on the server: what the targets export, and faults apply to."""
    script = """
        set -e
        truncate -s $2 /srv/$1.img
        loop=$(losetup --find --show /srv/$1.img)
        dmsetup create $1 --table "0 $(($2 / 512)) linear $loop 0"
        udevadm settle
    """
    _script(server, script, name, str(size_bytes))
    return f"/dev/mapper/{name}"


def serial(name: str) -> str:
    """A LUN's unit serial; LIO makes its WWN of the hexadecimal digits."""
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def wwid(name: str) -> str:
    """The LUN's identity as multipath and udev show it: NAA, LIO's company id, 25 digits of the serial."""
    return f"36001405{serial(name)[:25]}"


def serve_iscsi(server: MicroHost, devices: Sequence[str], portals: Sequence[str], chap: Chap | None = None) -> None:
    """One target with a LUN for each device, on every portal (``address:port``); with CHAP, nobody else gets in."""
    lines = [f"cd /sys/kernel/config/target; tpg=iscsi/{ISCSI_NAME}/tpgt_1; mkdir -p $tpg"]
    for number, device in enumerate(devices):
        name = device.rpartition("/")[2]
        backstore = f"core/iblock_{number}/{name}"
        lines += [
            f"mkdir -p {backstore}",
            f"echo udev_path={device} > {backstore}/control; echo -n {device} > {backstore}/udev_path",
            f"echo {serial(name)} > {backstore}/wwn/vpd_unit_serial; echo 1 > {backstore}/enable",
            f"mkdir -p $tpg/lun/lun_{number}; ln -s $PWD/{backstore} $tpg/lun/lun_{number}/disk",
        ]
    lines += [f"mkdir -p $tpg/np/{portal}" for portal in portals]
    lines += [f"echo {1 if chap else 0} > $tpg/attrib/authentication"]
    lines += ["for name in generate_node_acls cache_dynamic_acls; do echo 1 > $tpg/attrib/$name; done"]
    lines += ["echo 0 > $tpg/attrib/demo_mode_write_protect"]
    if chap:
        lines += [f"echo -n {chap.user} > $tpg/auth/userid; echo -n {chap.password} > $tpg/auth/password"]
        lines += [f"echo -n {chap.target_user} > $tpg/auth/userid_mutual"]
        lines += [f"echo -n {chap.target_password} > $tpg/auth/password_mutual"]
    _script(server, "set -e\n" + "\n".join(lines) + "\necho 1 > $tpg/enable")


def serve_nfs(server: MicroHost, exports: Mapping[str, str] | None = None) -> None:
    """`EXPORT`, by v3 and v4, owned by vdsm and with root's rights left to root.

    ``exports``: those that clients have mounted, with their options, after the server's power was cut. The files are on
    its disk. Whoever asks before its export is there would be told that the file system was made anew.
    """
    start_lock_daemons(server)
    script = f"""
        set -e
        mkdir -p {EXPORT} /var/lib/nfs/v4recovery
        touch /var/lib/nfs/etab /var/lib/nfs/rmtab
        chown 36:36 {EXPORT}
        echo '{EXPORT} *(rw,sync,no_subtree_check,no_root_squash,fsid=0)' > /etc/exports
        mount -t nfsd nfsd /proc/fs/nfsd
    """
    _script(server, script)
    for name, options in (exports or {}).items():
        export(server, name, options)
    script = """
        set -e
        exportfs -ra
        rpc.mountd
        # the shortest that the kernel takes: a server just started has nobody's locks to wait for
        echo 10 > /proc/fs/nfsd/nfsv4leasetime; echo 10 > /proc/fs/nfsd/nfsv4gracetime
        rpc.nfsd 4
    """
    _script(server, script)


def export(server: MicroHost, name: str, options: str = "rw", *, owner: str = "36:36") -> dict[str, str]:
    """One more export, below `EXPORT`; its path by version. ``options``: those of its exports line beside the usual."""
    script = f"""
        set -e
        cd {EXPORT}
        mkdir -p "$1"
        mountpoint -q "$1" || mount --bind "$1" "$1"  # else version 4 takes it for a part of the one above
        chown "$3" "$1"
        fsid=$(printf %s "$1" | cksum | cut -d ' ' -f 1)
        printf '"%s/%s" *(%s,sync,no_subtree_check,fsid=%s)\\n' {EXPORT} "$1" "$2" $fsid >> /etc/exports
        exportfs -ra
    """
    _script(server, script, name, options, owner)
    return {version: os.path.join(path, name) for version, path in NFS_PATHS.items()}


def withdraw(server: MicroHost, name: str) -> None:
    """The export is no longer there; who has it mounted gets errors."""
    script = f"""
        set -e
        grep -vF "{EXPORT}/$1" /etc/exports > /etc/exports.new
        mv /etc/exports.new /etc/exports
        exportfs -ra
        exportfs -f
    """
    _script(server, script, name)


def start_lock_daemons(host: MicroHost) -> None:
    """rpcbind and statd, which NFS v3 needs on both sides for locks; they have users of their own."""
    script = f"""
        set -e
        printf '%s' '{ACCOUNTS}' >> /etc/passwd
        mkdir -p /run/rpcbind /run/sendsigs.omit.d /var/lib/nfs/sm /var/lib/nfs/sm.bak
        touch /var/lib/nfs/state
        chown -R 816:65534 /var/lib/nfs
        rpcbind -w
        rpc.statd
    """
    _script(host, script)


def serve_nvme(server: MicroHost, device: str, address: str) -> None:
    """One subsystem with that device as its namespace, at the address's port 4420."""
    script = f"""
        set -e
        cd /sys/kernel/config/nvmet
        mkdir -p subsystems/{NVME_NAME}/namespaces/1 ports/1
        echo 1 > subsystems/{NVME_NAME}/attr_allow_any_host
        echo -n {device} > subsystems/{NVME_NAME}/namespaces/1/device_path
        echo 1 > subsystems/{NVME_NAME}/namespaces/1/enable
        echo tcp > ports/1/addr_trtype; echo ipv4 > ports/1/addr_adrfam
        echo {address} > ports/1/addr_traddr; echo 4420 > ports/1/addr_trsvcid
        ln -s $PWD/subsystems/{NVME_NAME} ports/1/subsystems/
    """
    _script(server, script)


def _script(server: MicroHost, script: str, *arguments: str) -> None:
    server.run(["sh", "-c", script, "lab", *arguments], timeout_s=60)
