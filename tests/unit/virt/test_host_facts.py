# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM is used only where it can run a guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from vdsm.virt.host_facts import can_use_kvm


@pytest.mark.parametrize(
    ("device", "flags", "expected"),
    [(True, "fpu vmx sse", True), (True, "fpu svm", True), (True, "fpu sse", False), (False, "fpu vmx", False)],
)
def test_kvm_needs_the_device_and_the_flag(tmp_path: Path, device: bool, flags: str, expected: bool) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "proc").mkdir()
    if device:
        (tmp_path / "dev/kvm").touch()
    (tmp_path / "proc/cpuinfo").write_text(f"processor: 0\nflags\t\t: {flags}\n")
    assert can_use_kvm(root=str(tmp_path)) is expected
