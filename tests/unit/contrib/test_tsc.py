# SPDX-License-Identifier: GPL-2.0-or-later
"""An emulated kernel is told how fast its counter counts, instead of finding out on a busy machine."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from contrib.lab.kernels import Kernel
from contrib.lab.microvm import qemu, tsc
from contrib.lab.microvm.spec import MicroSpec


def _options(khz: int) -> list[str]:
    argv = qemu.command(
        MicroSpec("name", "id", "/folder"),
        kernel=Kernel(Path("/vmlinuz"), Path("/modules/6.1"), "6.1"),
        initrd=Path("/initrd"),
        layer=Path("/layer"),
        checkout=Path("/checkout"),
        taps=[],
        tsc_khz=khz,
    )
    return argv[argv.index("-append") + 1].split()


def test_the_kernel_is_told_the_frequency() -> None:
    assert "tsc_early_khz=2100000" in _options(2_100_000)


def test_a_machine_without_counter_leaves_the_kernel_to_it() -> None:
    assert not [option for option in _options(0) if option.startswith("tsc_early_khz")]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="another machine's counter is not read")
def test_the_frequency_is_the_same_each_time() -> None:
    first, second = tsc.khz(), tsc.khz()
    assert 500_000 < first < 10_000_000
    assert abs(first - second) < first / 1000
