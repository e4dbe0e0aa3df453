# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this host has what a domain XML names. What is missing is told by name and with what to do, before QEMU
starts: libvirt's own words come late and name an inner step.

Looked at after the before_vm_start hooks, because hooks replace such names (a dummy bridge by a port of Open vSwitch).
What can't be seen from here (a folder inside one that only root enters, a file that only root reads) passes: then
libvirt judges it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator

from vdsm.virt.domain_xml.named import Named
from vdsm.virt.errors import HostLacks
from vdsm.virt.hypervisor import Hypervisor

DUMMY_BRIDGE = ";vdsmdummy;"
SPOOFING_FILTER = "vdsm-no-mac-spoofing"
_FIELDS_NETWORK = "vdsm-"
_QEMU_CONF = "etc/libvirt/qemu.conf"
_SPICE_TLS = re.compile(r"^\s*spice_tls\s*=\s*1\b", re.MULTILINE)


async def check(hypervisor: Hypervisor, named: Named, *, root: str = "/") -> None:
    """Raises `HostLacks`."""
    missing = await asyncio.to_thread(lambda: list(_not_in_files(named, root)))
    if named.networks:
        missing += [_network(name) for name in sorted(named.networks - await hypervisor.active_networks())]
    if named.filters:
        missing += [_filter(name) for name in sorted(named.filters - await hypervisor.filters())]
    if missing:
        raise HostLacks("; ".join(missing))


def _not_in_files(named: Named, root: str) -> Iterator[str]:
    for bridge in sorted(named.bridges):
        if "/" in bridge or _is_missing(os.path.join(root, "sys/class/net", bridge)):
            yield _bridge(bridge)
    for folder in sorted(named.folders):
        if _is_missing(os.path.join(root, folder.lstrip("/"))):
            yield f"the folder {folder} (make it, with QEMU's user as its owner)"
    if named.spice_tls and not _may_have_spice_tls(os.path.join(root, _QEMU_CONF)):
        yield "TLS for SPICE (set spice_tls=1 and spice_tls_x509_cert_dir in /etc/libvirt/qemu.conf, restart libvirtd)"


def _is_missing(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # it may be there
        return False
    return False


def _may_have_spice_tls(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return _SPICE_TLS.search(file.read()) is not None
    except FileNotFoundError:
        return False
    except OSError:  # readable by root only
        return True


def _bridge(name: str) -> str:
    if name == DUMMY_BRIDGE:
        return f"the bridge {name!r} of vNICs without network (ip link add '{name}' type bridge)"
    return f"the bridge {name!r} (attach the network to this host)"


def _network(name: str) -> str:
    if not name.startswith(_FIELDS_NETWORK):
        return f"the active libvirt network {name!r} (virsh net-define, net-start)"
    bridge = name.removeprefix(_FIELDS_NETWORK)
    return (
        f"the active libvirt network {name!r} (virsh net-define with forward mode 'bridge' and bridge {bridge!r}, "
        f"net-start, net-autostart)"
    )


def _filter(name: str) -> str:
    if name == SPOOFING_FILTER:
        return (
            f"the network filter {name!r} (virsh nwfilter-define with chain 'root' and references to "
            "'no-mac-spoofing' and 'no-arp-mac-spoofing')"
        )
    return f"the network filter {name!r} (virsh nwfilter-define)"
