# SPDX-License-Identifier: GPL-2.0-or-later
"""The operating system: release, kernel, switches that the engine looks at, versions of what we stand on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from vdsm.common import commands
from vdsm.common.errors import AgentError
from vdsm.host.tree import Tree

log = logging.getLogger("vdsm.host")

_QUERY_S = 20.0
# name on the wire -> names of the package by distribution
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "qemu-kvm": ("qemu-kvm", "qemu-system-x86", "qemu-system-x86-core"),
    "qemu-img": ("qemu-img", "qemu-utils"),
    "libvirt": ("libvirt-daemon", "libvirt"),
    "sanlock": ("sanlock",),
    "lvm2": ("lvm2",),
    "spice-server": ("spice-server", "libspice-server1"),
    "librbd1": ("librbd1",),
    "glusterfs-cli": ("glusterfs-cli", "glusterfs-client"),
    "openvswitch": ("openvswitch", "openvswitch-switch"),
    "nmstate": ("nmstate",),
}
Packages = dict[str, dict[str, str]]
Versions = dict[str, tuple[str, str]]  # package -> (version, release)


@dataclass(frozen=True)
class Release:
    name: str
    version: str
    release: str
    pretty_name: str


def parse_os_release(text: str) -> Release:
    values = {}
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if sign and not key.lstrip().startswith("#"):
            try:
                values[key.strip()] = " ".join(shlex.split(value))
            except ValueError:  # an unclosed quote
                values[key.strip()] = value.strip()
    name = values.get("ID", "unknown")
    version, _, release = values.get("VERSION_ID", "unknown").partition(".")
    return Release(name, version, release or "0", values.get("PRETTY_NAME", name))


def selinux_mode(tree: Tree) -> str:
    """1 enforcing, 0 permissive, -1 disabled."""
    text = tree.text("/sys/fs/selinux/enforce")
    return text if text in ("0", "1") else "-1"


def kdump_status(tree: Tree) -> int:
    """1 a crash kernel is loaded, 0 not, -1 unknown."""
    return tree.number("/sys/kernel/kexec_crash_loaded", -1)


def nested_virtualization(tree: Tree) -> bool:
    return any(
        tree.text(f"/sys/module/{module}/parameters/nested") in ("1", "Y", "y") for module in ("kvm_intel", "kvm_amd")
    )


def kernel_features(tree: Tree) -> dict[str, str]:
    """The kernel's word on each of the processor's weaknesses."""
    folder = "/sys/devices/system/cpu/vulnerabilities"
    return {name: tree.text(f"{folder}/{name}") for name in tree.names(folder)}


def numa_balancing(tree: Tree) -> int:
    """0 off, 1 on, 2 unknown."""
    value = tree.number("/proc/sys/kernel/numa_balancing", 2)
    return value if value in (0, 1) else 2


def boot_uuid(tree: Tree) -> str:
    """UUID of the file system that holds /boot; empty unknown. An engine writes it into the kernel's command line."""
    folder = "/dev/disk/by-uuid"
    try:
        device = os.stat(tree.path("/boot")).st_dev
    except OSError:
        return ""
    for name in tree.names(folder):
        with contextlib.suppress(OSError):  # a link to what is gone
            if os.stat(tree.path(f"{folder}/{name}")).st_rdev == device:
                return name
    return ""


def kernel_package(tree: Tree) -> dict[str, str]:
    version, _, release = tree.text("/proc/sys/kernel/osrelease").partition("-")
    return {"version": version, "release": release}


async def installed_packages() -> Packages:
    """Versions by the distribution's own database; empty where it has none that we know."""
    if shutil.which("rpm") and not shutil.which("dpkg-query"):
        argv = ["rpm", "-qa", "--qf", "%{NAME} %{VERSION} %{RELEASE}\\n"]
        split = rpm_versions
    else:
        argv = ["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\\n"]
        split = dpkg_versions
    try:
        done = await commands.run(argv, timeout_s=_QUERY_S, max_output=4 << 20)
    except (AgentError, OSError) as e:
        log.warning("versions of packages are not known: %s", e)
        return {}
    versions = await asyncio.to_thread(split, done.out.decode(errors="replace"))
    return wire_packages(versions)


def rpm_versions(text: str) -> Versions:
    lines = (line.split() for line in text.splitlines())
    return {words[0]: (words[1], words[2]) for words in lines if len(words) == 3}


def dpkg_versions(text: str) -> Versions:
    """A Debian version is split at its last hyphen; its epoch goes. Removed packages may still be listed."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        version, _, status = rest.partition(" ")
        if status == "installed":
            upstream, hyphen, revision = version.partition(":")[2 if ":" in version else 0].rpartition("-")
            found[name] = (upstream, revision) if hyphen else (revision, "0")
    return found


def wire_packages(versions: Versions) -> Packages:
    found: Packages = {}
    for wire_name, known in PACKAGES.items():
        installed = [versions[name] for name in known if name in versions]
        if installed:
            found[wire_name] = {"version": installed[0][0], "release": installed[0][1]}
    return found
