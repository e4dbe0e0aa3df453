# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients hear of a VM: the dictionary of VM.getStats and of the VM_status event.

Keys and types are the field's (virt.md §10.2): the engine casts hard. They stand here and in `stats.figures`,
and nowhere else in `vdsm.virt`, because events carry them as well as verbs.
"""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

from vdsm.common.clocks import event_ms
from vdsm.virt.domain_xml.description import Description
from vdsm.virt.domain_xml.drives import Drive
from vdsm.virt.lifecycle import Lifecycle
from vdsm.virt.states import VmState
from vdsm.virt.stats import figures
from vdsm.virt.stats.samples import Samples, Window

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
    """All that is known, from caches only: this never waits for libvirt. As `now` and `lasting` have it."""
    told = now(vm, samples)
    return told if vm.status.down else lasting(vm.description, samples.window(vm.vm_id)) | told


def now(vm: Shown, samples: Samples) -> Json:
    """What is the owner's, or the clock's, at the moment of the answer: an engine drops what is older than its last."""
    told = event(vm)
    if vm.status.down:
        return told | _identity(vm.description) | {"timeOffset": str(vm.time_offset_s)}
    return (
        told
        | {
            "timeOffset": str(vm.time_offset_s),
            "monitorResponse": "0" if samples.responsive(vm.vm_id) else "-1",
            "elapsedTime": str(_elapsed_s(vm)),
        }
        | vm.report()
    )


def lasting(description: Description, window: Window | None) -> Json:
    """What stays as it is until the next sample or the next look at the domain's XML; shares no key with `now`."""
    told = _identity(description) | {"displayInfo": _displays(description), "clientIp": ""}
    return told | ({"memUsage": "0"} if window is None else _sampled(description, window))


def _identity(description: Description) -> Json:
    return {
        "vmName": description.name,
        "vmType": "kvm",
        "kvmEnable": "true" if description.kvm else "false",
        "acpiEnable": "true" if description.acpi else "false",
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


def _sampled(description: Description, window: Window) -> Json:
    ids = {drive.target: _shown_by(drive) for drive in description.drives}
    vnics = {i.device: (i.mac, i.model) for i in description.interfaces if i.device}
    memory = figures.memory(window)
    metadata = description.metadata
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
    if started_at_s is None or not math.isfinite(started_at_s):
        return 0
    return max(0, int(time.time() - started_at_s))


def _displays(description: Description) -> list[Json]:
    return [
        {"type": d.kind, "port": d.port, "tlsPort": d.tls_port, "ipAddress": d.address or "0"}
        for d in description.displays
    ]
