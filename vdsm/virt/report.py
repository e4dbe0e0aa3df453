# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients hear of a VM: the dictionary of VM.getStats and of the VM_status event.

Keys and types are the field's (virt.md §10.2): the engine casts hard. They stand here and in `stats.figures`,
and nowhere else in `vdsm.virt`, because events carry them as well as verbs.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from vdsm.common.clocks import event_ms
from vdsm.virt.domain_xml.description import Description
from vdsm.virt.domain_xml.drives import Drive
from vdsm.virt.lifecycle import Lifecycle
from vdsm.virt.states import VmState
from vdsm.virt.stats import figures
from vdsm.virt.stats.samples import Samples

Json = dict[str, Any]


class Shown(Protocol):
    """What is looked at of a VM."""

    @property
    def vm_id(self) -> str: ...
    @property
    def status(self) -> Lifecycle: ...
    @property
    def description(self) -> Description: ...
    @property
    def time_offset_s(self) -> int: ...
    @property
    def started_at_s(self) -> float | None: ...
    def report(self) -> Json:
        """What its capabilities report."""


def brief(vm: Shown) -> Json:
    """As VM lists show it."""
    return stamped(vm.vm_id, vm.status.reported)


def stamped(vm_id: str, status: VmState) -> Json:
    """A state, and when it was looked up."""
    return {"vmId": vm_id, "status": str(status), "statusTime": str(event_ms())}


def event(vm: Shown) -> Json:
    """As a change of state is told; a Down VM says how it ended."""
    told = brief(vm) | {"hash": vm.description.devices_digest}
    if vm.status.pause_code:
        told["pauseCode"] = str(vm.status.pause_code)
    return told | _exit(vm)


def stats(vm: Shown, samples: Samples) -> Json:
    """All that is known, from caches only: this never waits for libvirt."""
    told = event(vm) | _identity(vm)
    if vm.status.down:
        return told
    told |= {
        "monitorResponse": "0" if samples.responsive(vm.vm_id) else "-1",
        "elapsedTime": str(_elapsed_s(vm)),
        "displayInfo": _displays(vm),
        "clientIp": "",
        "vmJobs": {},
    } | vm.report()
    return told | _sampled(vm, samples)


def _identity(vm: Shown) -> Json:
    return {
        "vmName": vm.description.name,
        "vmType": "kvm",
        "kvmEnable": "true" if vm.description.kvm else "false",
        "acpiEnable": "true" if vm.description.acpi else "false",
        "timeOffset": str(vm.time_offset_s),
    }


def _exit(vm: Shown) -> Json:
    exit_ = vm.status.exit
    if vm.status.reported is not VmState.DOWN or exit_ is None:
        return {}
    return {
        "exitCode": exit_.code,
        "exitMessage": exit_.message,
        "exitReason": exit_.reason,
        "timeOffset": str(vm.time_offset_s),
    }


def _sampled(vm: Shown, samples: Samples) -> Json:
    window = samples.window(vm.vm_id)
    if window is None:
        return {"memUsage": "0"}
    ids = {drive.target: _shown_by(drive) for drive in vm.description.drives}
    vnics = {i.device: (i.mac, i.model) for i in vm.description.interfaces if i.device}
    memory = figures.memory(window)
    metadata = vm.description.metadata
    parts = {
        "balloonInfo": figures.balloon(
            window,
            minimum_kib=(metadata.min_guaranteed_memory_mib or 0) * 1024,
            enabled=metadata.ballooning_enabled,
        ),
        "memoryStats": memory,
        "disks": figures.disks(window, ids),
        "network": figures.network(window, vnics),
    }
    known = {key: value for key, value in parts.items() if value}
    return figures.cpu(window) | known | {"memUsage": figures.memory_usage_percent(window, memory)}


def _shown_by(drive: Drive) -> Json:
    if drive.image is not None:
        return {"imageID": drive.image.image_id}
    return {"lunGUID": drive.lun} if drive.lun else {}


def _elapsed_s(vm: Shown) -> int:
    started_at_s = vm.started_at_s
    return 0 if started_at_s is None else max(0, int(time.time() - started_at_s))


def _displays(vm: Shown) -> list[Json]:
    return [
        {"type": d.kind, "port": d.port, "tlsPort": d.tls_port, "ipAddress": d.address or "0"}
        for d in vm.description.displays
    ]
