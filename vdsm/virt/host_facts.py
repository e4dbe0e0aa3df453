# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this host can run a VM in hardware.

/dev/kvm alone proves nothing: on a host without the CPU's virtualisation flag libvirt still offers KVM, and
the guest hangs. KVM is used only when the device exists and the CPU has vmx or svm.
"""

from __future__ import annotations

import os
from pathlib import Path

_FLAGS = frozenset({"vmx", "svm"})


def can_use_kvm(*, root: str = "/") -> bool:
    if not os.path.exists(os.path.join(root, "dev/kvm")):
        return False
    for line in Path(root, "proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith("flags"):
            return not _FLAGS.isdisjoint(line.split())
    return False
