# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots of micro-VMs: seen to stand still within seconds, and counted.

An emulated kernel can lose itself: a timer interrupt that never comes, a CPU that waits for another one. A working
boot keeps the emulator busy; one that stands still leaves it idle, or its own kernel says so on the console. Load of
this machine is neither: threads that want to run and can't are counted as busy.

Who runs tests names a file in VDSM_LAB_BOOTS; every boot is a JSON line of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections import deque
from pathlib import Path

RECORD = "VDSM_LAB_BOOTS"
# the kernel's own words, said after `rcu_cpu_stall_timeout` (see `qemu`)
STALLS = ("rcu_preempt detected stalls", "self-detected stall", "timer wakeup didn't happen", "soft lockup")
# a boot that for so long used less of a CPU than this share stands still: 0.01 when idle, over 0.5 when it works
IDLE_S, IDLE_SHARE = 10.0, 0.1


class Watch:
    """Looks at one booting micro-VM from outside."""

    def __init__(self, pid: int, console: Path) -> None:
        self._pid = pid
        self._console = console
        # (time, seconds that its threads ran or wanted to run), the oldest first
        self._wanted: deque[tuple[float, float]] = deque()

    def stalled(self) -> str:
        """Why it does not go on; empty while it does."""
        with contextlib.suppress(OSError):
            console = self._console.read_text(errors="replace")
            for word in STALLS:
                if word in console:
                    return f"its kernel says: {word}"
        now = time.monotonic()
        self._wanted.append((now, wanted_s(self._pid)))
        while now - self._wanted[1 if len(self._wanted) > 1 else 0][0] >= IDLE_S:
            self._wanted.popleft()
        then, before = self._wanted[0]
        if now - then >= IDLE_S and self._wanted[-1][1] - before < IDLE_SHARE * (now - then):
            return f"idle for {now - then:.0f} s"
        return ""


def wanted_s(pid: int) -> float:
    """Seconds that the threads of a process ran or waited for a CPU."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            ran, waited, _ = thread.read_text().split()
            total += int(ran) + int(waited)
    return total / 1e9


def note(name: str, seconds: float, stall: str = "") -> None:
    """One boot: up after so long, or given up because of ``stall``."""
    if path := os.environ.get(RECORD):
        with open(path, "a") as file:
            file.write(json.dumps({"name": name, "seconds": round(seconds, 1), "stall": stall}) + "\n")


def summary(path: Path) -> list[str]:
    """In words, for the last lines of a run; none when nothing was booted."""
    if not path.exists():
        return []
    boots = [json.loads(line) for line in path.read_text().splitlines()]
    taken = sorted(boot["seconds"] for boot in boots if not boot["stall"]) or [0.0]
    stalls = [boot for boot in boots if boot["stall"]]
    text = f"== micro-VMs: {len(boots) - len(stalls)} boots, median {statistics.median(taken):.0f} s, "
    text += f"slowest {taken[-1]:.0f} s, {len(stalls)} begun anew"
    return [text, *(f"   {boot['name']} after {boot['seconds']:.0f} s: {boot['stall']}" for boot in stalls)]
