# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo as a newcomer runs it: it proves every step, and leaves nothing, also when interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contrib.lab import groups, registry

TOP = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "contrib.demo"]


def _traces(before: set[str]) -> list[str]:
    """What hosts that appeared since have left on the machine."""
    names = {record.name for record in registry.records()} - before
    folders = [
        str(folder)
        for hierarchy in groups.hierarchies()
        for folder in Path(hierarchy.mount_point).rglob("vdsm-lab-*")
        if folder.name.removeprefix("vdsm-lab-") not in before
    ]
    return sorted(names) + folders


@pytest.fixture
def hosts_before() -> set[str]:
    return {record.name for record in registry.records()}


@pytest.mark.cost(40)
def test_demo_proves_every_step_and_leaves_nothing(hosts_before: set[str]) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    nics = os.listdir("/sys/class/net")
    done = subprocess.run(COMMAND, cwd=TOP, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "guest: kernel command line says" in done.stdout
    assert "\x1b" not in done.stdout
    assert _traces(hosts_before) == []
    assert Path("/proc/self/mounts").read_text() == mounts
    assert os.listdir("/sys/class/net") == nics


@pytest.mark.cost(30)
@pytest.mark.parametrize("reached", ["Start a private host", "spmStart", "guest: kernel command line says"])
def test_interrupted_demo_leaves_nothing(reached: str, hosts_before: set[str]) -> None:
    demo = subprocess.Popen(COMMAND, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    for line in demo.stdout:
        if reached in line:
            demo.send_signal(signal.SIGINT)
            break
    _, errors = demo.communicate(timeout=30)
    assert demo.returncode == 130, errors
    assert _traces(hosts_before) == []


def test_demo_without_root_says_so_in_one_line() -> None:
    # the checkout may lie where nobody else can go: root is renounced only after the import
    script = "import os, sys; from contrib.demo.__main__ import main; os.setuid(65534); sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "root" in done.stderr
