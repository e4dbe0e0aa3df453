# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's own control groups: one folder per hierarchy of the machine, seen by the host as its root.

Both layouts are served: cgroup v2 alone, and v1 hierarchies (with or without v2 beside them). A machine whose cgroups
can't be written (some containers) gives hosts without cgroups; the list of folders is empty then.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from contrib.lab import kernel_calls


@dataclass(frozen=True)
class Hierarchy:
    mount_point: str
    fstype: str
    options: str
    # path of this process in it
    path: str


def hierarchies() -> list[Hierarchy]:
    """The cgroup hierarchies mounted here, with this process's place in each."""
    places = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        places[frozenset(controllers.split(","))] = path
    found = []
    for mount in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, fstype, options = mount.split()[:4]
        if fstype == "cgroup2":
            found.append(Hierarchy(mount_point, fstype, "", places.get(frozenset([""]), "/")))
        elif fstype == "cgroup":
            for names, path in places.items():
                if names <= set(options.split(",")):
                    found.append(Hierarchy(mount_point, fstype, ",".join(sorted(names)), path))
    return found


def named(prefix: str) -> list[str]:
    """Every host's folder whose host's name begins so. Others come and go meanwhile: `os.walk` steps over them."""
    return sorted(
        os.path.join(top, folder)
        for hierarchy in hierarchies()
        for top, folders, _ in os.walk(hierarchy.mount_point)
        for folder in folders
        if folder.startswith(f"vdsm-lab-{prefix}")
    )


def create(name: str) -> list[str]:
    """Make the host's folder in every hierarchy; returns those that could be made."""
    folders = []
    for hierarchy in hierarchies():
        # v2 forbids processes beside sub-groups with controllers: there the host hangs below the root
        parent = Path(hierarchy.mount_point)
        inner = parent / hierarchy.path.lstrip("/")
        if hierarchy.fstype == "cgroup" and inner.is_dir():
            parent = inner
        folder = parent / f"vdsm-lab-{name}"
        try:
            folder.mkdir(exist_ok=True)
            _fill_cpuset(folder)
        except OSError:
            continue
        folders.append(str(folder))
    return folders


def enter(folders: list[str]) -> None:
    """Move this process into the folders; runs between fork and exec."""
    for folder in folders:
        with contextlib.suppress(OSError):
            Path(folder, "cgroup.procs").write_text(str(os.getpid()))


def freezer(folders: list[str]) -> tuple[Path, str, str] | None:
    """The file that stops and starts the host's processes, with the words for both; None where there is none."""
    for folder in folders:
        for name, frozen, thawed in (("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0")):
            if (switch := Path(folder, name)).exists():
                return switch, frozen, thawed
    return None


def thaw(folders: list[str]) -> None:
    """A frozen process does not even die: before a host is ended, it goes on."""
    if found := freezer(folders):
        with contextlib.suppress(OSError):
            found[0].write_text(found[2])


def remove(folders: list[str], timeout_s: float) -> list[str]:
    """Remove the folders with all below, waiting for their last processes to go; returns what stayed."""
    limit = time.monotonic() + timeout_s
    left = [folder for folder in folders if not _remove_tree(folder)]
    while left and time.monotonic() < limit:
        # a folder stays busy until the kernel has reaped its last process; v1 has no event for it
        time.sleep(0.01)
        left = [folder for folder in left if not _remove_tree(folder)]
    return left


def mount_all(mounted: list[Hierarchy]) -> None:
    """Mount the hierarchies again, seen from this process's cgroup namespace (below an empty /sys/fs/cgroup)."""
    if not mounted:
        return
    if all(hierarchy.fstype == "cgroup2" for hierarchy in mounted):
        kernel_calls.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
        leaf = Path("/sys/fs/cgroup/init")
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text("0")
        for controller in Path("/sys/fs/cgroup/cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                Path("/sys/fs/cgroup/cgroup.subtree_control").write_text(f"+{controller}")
        return
    kernel_calls.mount("cgroup", "/sys/fs/cgroup", "tmpfs", options="mode=755")
    for hierarchy in mounted:
        target = Path(hierarchy.mount_point)
        target.mkdir(parents=True, exist_ok=True)
        kernel_calls.mount(hierarchy.fstype, str(target), hierarchy.fstype, options=hierarchy.options)


def _fill_cpuset(folder: Path) -> None:
    """A v1 cpuset takes no process before its CPUs and memory nodes are set."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (folder / name).exists() and not (folder / "cgroup.controllers").exists():
            (folder / name).write_text((folder.parent / name).read_text())


def _remove_tree(folder: str) -> bool:
    for current, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(current)
    return not os.path.exists(folder)
