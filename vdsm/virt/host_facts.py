# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VM is told about its host, and whether the host can run it in hardware.

/dev/kvm alone proves nothing: on a host without the CPU's virtualisation flag libvirt still offers KVM, and
the guest hangs. KVM is used only when the device exists and the CPU has vmx or svm.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from vdsm.virt.domain_xml.placeholders import HostFacts

_FLAGS = frozenset({"vmx", "svm"})


def read_host_facts(host_id: str, *, root: str = "/") -> HostFacts:
    """Blocking, but only on /etc and /proc; called once at start."""
    release = _os_release(Path(root))
    return HostFacts(
        os_name=release.get("NAME", platform.system()),
        os_version=release.get("VERSION_ID", platform.release()),
        host_id=host_id,
        kvm=can_use_kvm(root=root),
    )


def can_use_kvm(*, root: str = "/") -> bool:
    if not os.path.exists(os.path.join(root, "dev/kvm")):
        return False
    for line in Path(root, "proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith("flags"):
            return not _FLAGS.isdisjoint(line.split())
    return False


def _os_release(root: Path) -> dict[str, str]:
    try:
        text = (root / "etc/os-release").read_text(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value.strip().strip('"') for key, _, value in pairs}
