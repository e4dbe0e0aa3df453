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


def _traces(pid: int) -> list[str]:
    """What the host of this demo left on the machine; other hosts may come and go meanwhile."""
    name = f"demo-{pid}"
    return [record.name for record in registry.records() if record.name == name] + groups.named(name)


@pytest.mark.cost(15)
def test_demo_proves_every_step_and_leaves_nothing() -> None:
    mounts = Path("/proc/self/mounts").read_text()
    nics = os.listdir("/sys/class/net")
    demo = subprocess.Popen(COMMAND, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told, _ = demo.communicate(timeout=90)
    assert demo.returncode == 0, told
    assert "guest: kernel command line says" in told
    assert "\x1b" not in told
    assert f"demo-{demo.pid}" in told
    assert _traces(demo.pid) == []
    assert Path("/proc/self/mounts").read_text() == mounts
    assert os.listdir("/sys/class/net") == nics


@pytest.mark.cost(9)
@pytest.mark.parametrize("reached", ["Start a private host", "spmStart", "guest: kernel command line says"])
def test_interrupted_demo_leaves_nothing(reached: str) -> None:
    demo = subprocess.Popen(
        COMMAND,
        cwd=TOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts background jobs with Ctrl-C ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if reached in line:
            demo.send_signal(signal.SIGINT)
            break
    _, errors = demo.communicate(timeout=30)
    assert demo.returncode == 130, errors
    assert _traces(demo.pid) == []


def test_demo_without_root_says_so_in_one_line() -> None:
    # the checkout may lie where nobody else can go: root is renounced only after the import
    script = "import os, sys; from contrib.demo.__main__ import main; os.setuid(65534); sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "root" in done.stderr
