# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run of tests left on this machine: nothing, or it is an error.

Processes are known by a mark in their environment, which everything inherits that tests start outside of their hosts.
What has no process (control groups, loop devices, networks, mounts, folders) is compared with before; where labs of
somebody else run meanwhile it can't be told whose it is, and only processes are looked at.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contrib.lab import groups, registry

MARK = "VDSM_TEST_RUN"
# the kernel ends mounts and loop devices of a namespace in the background
SETTLE_S = 10.0
FOLDERS = ("/run/vdsm-lab/*", "/tmp/vdsm-lab-*", "/var/tmp/vdsm-lab-*")


@dataclass(frozen=True)
class Seen:
    processes: frozenset[str]
    # None: somebody else's hosts run
    things: frozenset[str] | None


def seen(run: str) -> Seen:
    """What there is now, each thing as a line of text."""
    return Seen(frozenset(_processes(run)), None if _others(run) else frozenset(_things()))


def left(before: Seen, run: str, *, settle_s: float = SETTLE_S) -> list[str]:
    """What there is now and was not before, once it had time to go."""
    limit = time.monotonic() + settle_s
    while (found := _new(before, seen(run))) and time.monotonic() < limit:
        time.sleep(0.1)
    return sorted(found)


def _new(before: Seen, now: Seen) -> frozenset[str]:
    things = frozenset() if before.things is None or now.things is None else now.things - before.things
    return (now.processes - before.processes) | things


def _processes(run: str) -> Iterator[str]:
    wanted = f"{MARK}={run}".encode()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if wanted in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                argv = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield f"process {entry}: {argv.strip()[:200]}"


def _others(run: str) -> bool:
    """Whether somebody else's hosts run on this machine."""
    wanted = f"{MARK}={run}".encode()
    for record in registry.records():
        with contextlib.suppress(OSError):
            if record.keeper_lives() and wanted not in Path(f"/proc/{record.keeper}/environ").read_bytes():
                return True
    return False


def _things() -> Iterator[str]:
    for hierarchy in groups.hierarchies():
        for folder in Path(hierarchy.mount_point).glob("**/vdsm-lab-*"):
            yield f"control group {folder}"
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            yield f"loop device {file.parts[3]} of {file.read_text().strip()}"
    for name in os.listdir("/sys/class/net"):
        yield f"network interface {name}"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        yield f"mount {line}"
    for pattern in FOLDERS:
        for path in Path("/").glob(pattern[1:]):
            yield f"folder {path}"
