# SPDX-License-Identifier: GPL-2.0-or-later
"""Every hook point of the field, as data: what a script gets, whether its output counts, who runs it.

``aborts``: a failing script makes the operation fail; elsewhere a failure is logged, counted and told as
an event. ``wired``: this agent runs the point. A script at any other point is reported by the lint,
not silently left alone.

Two rows differ from VDSM on purpose: before_device_destroy can't keep a VM from being destroyed, and the
points that got an empty document by mistake are declared with the document that they were meant to get.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from vdsm.common.errors import AgentError


class Data(StrEnum):
    """What lies in the file that a script may read and write."""

    NOTHING = "nothing"
    DOMAIN = "domain XML"
    DEVICE = "device XML"
    JSON = "JSON"


@dataclass(frozen=True)
class Point:
    name: str
    data: Data
    output_used: bool
    aborts: bool
    as_root: bool
    wired: bool
    polled: bool
    when: str


class UnknownPoint(AgentError):
    point: str
    suggestion: str = ""
    msg = "There is no hook point {self.point!r}{self.hint}"

    @property
    def hint(self) -> str:
        return f"; did you mean {self.suggestion}?" if self.suggestion else "; 'vdsm hooks list --all' names them"


_D, _V, _J, _0 = Data.DOMAIN, Data.DEVICE, Data.JSON, Data.NOTHING

# name, data, flags (u: output used, a: aborts, r: as root, w: wired, p: polled), when
_ROWS: tuple[tuple[str, Data, str, str], ...] = (
    ("before_vdsm_start", _0, "rw", "before the agent serves"),
    ("after_vdsm_stop", _0, "w", "at the end of the agent's shutdown"),
    ("after_disk_prepare", _J, "ua", "an image was prepared for a VM's start"),
    ("before_device_create", _V, "ua", "before the start, for each device with custom properties"),
    ("before_vm_start", _D, "uaw", "images are prepared, libvirt is asked next"),
    ("after_vm_start", _D, "w", "the VM runs"),
    ("after_device_create", _V, "", "after after_vm_start, for each device with custom properties"),
    ("before_device_destroy", _V, "", "the agent was asked to end a VM, for each device"),
    ("before_vm_destroy", _D, "w", "the agent was asked to end a VM"),
    ("after_vm_destroy", _D, "w", "a VM has ended, however that came; its images are torn down"),
    ("after_device_destroy", _V, "", "after after_vm_destroy, for each device"),
    ("before_vm_cont", _D, "aw", "before the agent resumes a VM"),
    ("after_vm_cont", _D, "w", "a VM was resumed"),
    ("before_vm_pause", _D, "aw", "before the agent pauses a VM"),
    ("after_vm_pause", _D, "w", "a VM was paused, also by an I/O error"),
    ("before_vm_hibernate", _D, "a", "before a paused VM is saved"),
    ("after_vm_hibernate", _D, "", "a VM was saved"),
    ("before_vm_dehibernate", _D, "a", "before a saved VM is restored"),
    ("after_vm_dehibernate", _D, "", "a restored VM runs"),
    ("before_device_migrate_source", _V, "a", "before a migration, at the source, for each device"),
    ("before_vm_migrate_source", _D, "a", "before a migration, at the source"),
    ("before_device_migrate_destination", _V, "a", "before a migration, at the destination, for each device"),
    ("before_vm_migrate_destination", _D, "a", "before a migration, at the destination"),
    ("after_vm_migrate_destination", _D, "", "after a migration, at the destination"),
    ("after_device_migrate_destination", _V, "", "after a migration, at the destination, for each device"),
    ("after_vm_migrate_source", _D, "", "after a migration, at the source"),
    ("after_device_migrate_source", _V, "", "after a migration, at the source, for each device"),
    ("before_nic_hotplug", _V, "ua", "before a NIC is plugged"),
    ("after_nic_hotplug", _V, "", "a NIC was plugged"),
    ("after_nic_hotplug_fail", _V, "", "a NIC could not be plugged"),
    ("before_nic_hotunplug", _V, "a", "before a NIC is unplugged"),
    ("after_nic_hotunplug", _V, "", "a NIC was unplugged"),
    ("after_nic_hotunplug_fail", _V, "", "a NIC could not be unplugged"),
    ("before_update_device", _V, "ua", "before a NIC is changed"),
    ("after_update_device", _V, "", "a NIC was changed"),
    ("after_update_device_fail", _V, "", "a NIC could not be changed"),
    ("before_disk_hotplug", _V, "ua", "before a disk is plugged"),
    ("after_disk_hotplug", _V, "", "a disk was plugged"),
    ("before_disk_hotunplug", _V, "a", "before a disk is unplugged"),
    ("after_disk_hotunplug", _V, "", "a disk was unplugged"),
    ("before_memory_hotplug", _V, "ua", "before memory is plugged"),
    ("after_memory_hotplug", _V, "", "memory was plugged"),
    ("before_set_num_of_cpus", _0, "a", "before the number of CPUs changes"),
    ("after_set_num_of_cpus", _0, "", "the number of CPUs has changed"),
    ("before_vm_set_ticket", _D, "", "before a console password is set"),
    ("after_vm_set_ticket", _D, "", "a console password was set"),
    ("before_get_vm_stats", _J, "ap", "before each VM.getStats"),
    ("after_get_vm_stats", _J, "up", "after each VM.getStats"),
    ("before_get_all_vm_stats", _J, "ap", "before each Host.getAllVmStats"),
    ("after_get_all_vm_stats", _J, "up", "after each Host.getAllVmStats"),
    ("before_get_caps", _J, "ap", "before each Host.getCapabilities"),
    ("after_get_caps", _J, "up", "after each Host.getCapabilities"),
    ("before_get_stats", _J, "ap", "before each Host.getStats"),
    ("after_get_stats", _J, "up", "after each Host.getStats"),
    ("after_hostdev_list_by_caps", _J, "up", "after each listing of host devices"),
    ("before_network_setup", _J, "uarw", "before networks are set up"),
    ("after_network_setup", _J, "r", "networks were set up"),
    ("after_network_setup_fail", _J, "r", "networks could not be set up"),
)

POINTS: Mapping[str, Point] = MappingProxyType(
    {
        name: Point(
            name,
            data,
            output_used="u" in flags,
            aborts="a" in flags,
            as_root="r" in flags,
            wired="w" in flags,
            polled="p" in flags,
            when=when,
        )
        for name, data, flags, when in _ROWS
    }
)

# points that VDSM once had; a script there has not run for years
REMOVED = frozenset({"before_ifcfg_write", "after_ifcfg_write"})


def find(name: str) -> Point:
    """Raises `UnknownPoint`, with the nearest name."""
    point = POINTS.get(name)
    if point is None:
        raise UnknownPoint(name, nearest(name))
    return point


def nearest(name: str) -> str:
    """The point that was probably meant; empty when none is near."""
    return next(iter(difflib.get_close_matches(name, POINTS, n=1, cutoff=0.7)), "")
