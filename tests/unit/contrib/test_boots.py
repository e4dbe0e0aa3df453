# SPDX-License-Identifier: GPL-2.0-or-later
"""A boot that stands still is told from one that works, and from one that this machine is too busy for."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contrib.lab.control import HostFailed
from contrib.lab.microvm import boots, host
from contrib.lab.microvm.boots import Watch

ADVANCE = boots.IDLE_S / 4


class Clock:
    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def _looks(watch: Watch, clock: Clock, wanted: Callable[[], float], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(boots, "wanted_s", lambda pid: wanted())
    found = []
    for _ in range(8):
        found.append(watch.stalled())
        clock.now += ADVANCE
    return found


def test_a_boot_that_works_goes_on(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(1, tmp_path / "console")
    assert not any(_looks(watch, clock, lambda: clock.now * 0.5, monkeypatch))


def test_an_idle_boot_is_seen_after_some_seconds(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(1, tmp_path / "console")
    found = _looks(watch, clock, lambda: clock.now * 0.01, monkeypatch)
    assert found[:4] == [""] * 4
    assert found[4] == f"idle for {boots.IDLE_S:.0f} s"


def test_a_boot_that_becomes_idle_later_is_seen(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(1, tmp_path / "console")
    assert not any(_looks(watch, clock, lambda: clock.now, monkeypatch))
    stood = clock.now
    assert any(_looks(watch, clock, lambda: stood, monkeypatch))


@pytest.mark.parametrize(
    "line",
    [
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "rcu: rcu_preempt kthread timer wakeup didn't happen for 5250 jiffies!",
        "watchdog: BUG: soft lockup - CPU#1 stuck for 22s!",
    ],
)
def test_what_the_kernel_says_is_believed(tmp_path: Path, line: str) -> None:
    console = tmp_path / "console"
    console.write_text(f"booting\n[   31.2] {line}\n")
    assert Watch(1, console).stalled().startswith("its kernel says")


def test_threads_that_wait_for_a_cpu_are_not_idle() -> None:
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as busy:
        before = boots.wanted_s(busy.pid)
        time.sleep(0.3)
        assert boots.wanted_s(busy.pid) - before > 0.2
        busy.kill()


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each attempt to boot ends with, the next one first."""
    planned: list[str] = []
    monkeypatch.setattr(host, "compile_checkout", lambda: None)
    monkeypatch.setattr(host.MicroHost, "_boot", lambda self: planned.pop(0))
    return planned


def test_a_boot_that_stands_still_is_begun_anew_and_counted(
    tmp_path: Path, attempts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(boots.RECORD, str(tmp_path / "boots"))
    attempts += ["idle for 10 s", ""]
    with host.MicroHost("one"):
        pass
    told = boots.summary(tmp_path / "boots")
    assert "1 boots" in told[0]
    assert "1 begun anew" in told[0]
    assert "one after" in told[1]
    assert "idle for 10 s" in told[1]


def test_a_host_that_never_comes_up_says_why(
    tmp_path: Path, attempts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(boots.RECORD, str(tmp_path / "boots"))
    attempts += ["idle for 10 s"] * host.ATTEMPTS
    micro = host.MicroHost("two")
    with pytest.raises(HostFailed, match=r"stood still at boot 3 times \(idle for 10 s\)"):
        micro.start()
    micro.stop()


def test_figures_of_a_run(tmp_path: Path) -> None:
    record = tmp_path / "boots"
    lines = [{"name": "a", "seconds": seconds, "stall": ""} for seconds in (10.0, 12.0, 40.0)]
    record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert boots.summary(record) == ["== micro-VMs: 3 boots, median 12 s, slowest 40 s, 0 begun anew"]
    assert boots.summary(tmp_path / "none") == []
