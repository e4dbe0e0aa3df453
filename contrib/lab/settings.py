# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration files of a host's daemons and of its agent."""

from __future__ import annotations

from contrib.lab.spec import HostSpec
from contrib.lab.vm_xml import domain_type


def libvirtd(spec: HostSpec) -> str:
    return "\n".join(
        (
            f'host_uuid = "{spec.host_id}"',
            'unix_sock_group = "libvirt"',
            'unix_sock_rw_perms = "0770"',
            'auth_unix_rw = "none"',
            'auth_unix_ro = "none"',
            # for migration between hosts of one lab: the network is private to it
            "listen_tls = 0",
            "listen_tcp = 1",
            'auth_tcp = "none"',
            'log_filters = "1:qemu.qemu_monitor 3:*"',
            'log_outputs = "3:file:/var/log/libvirt/libvirtd.log"',
            "",
        )
    )


def qemu(qemu_user: str) -> str:
    return "\n".join(
        (
            f'user = "{qemu_user}"',
            f'group = "{qemu_user}"' if qemu_user != "root" else 'group = "root"',
            "dynamic_ownership = 1",
            "remember_owner = 0",
            # a profile would be loaded into the machine's kernel; user, capabilities, seccomp and cgroups confine QEMU
            'security_driver = "none"',
            'stdio_handler = "logd"',
            # libvirt can't rebuild a /dev in which a device is covered by a file, see `rootfs`
            *(["namespaces = []"] if domain_type() == "qemu" else []),
            "max_core = 0",
            "",
        )
    )


def agent() -> str:
    """What host deployment writes."""
    return "[vars]\nssl = true\n\n[addresses]\nmanagement_port = 54321\n"


def agent_drop_in(spec: HostSpec) -> str:
    return "[sanlock]\nio_timeout = 1\n\n" + spec.settings


def hosts(spec: HostSpec) -> str:
    """The host's own name must resolve: libvirt looks it up at every start of a guest."""
    return f"127.0.0.1 localhost\n{spec.address.partition('/')[0]} {spec.name}\n{spec.neighbours}"
