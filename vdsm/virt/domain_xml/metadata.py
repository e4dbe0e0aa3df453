# SPDX-License-Identifier: GPL-2.0-or-later
"""Typed values in the VM's metadata, and what the engine says there about devices.

Elements that nobody here knows stay as they are: other hosts and later versions need them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from lxml import etree

from vdsm.common.ids import check_uuid
from vdsm.virt.domain_xml.errors import BadDomainXml
from vdsm.virt.domain_xml.names import (
    children,
    local_name,
    vm_child,
    vm_children,
    vm_metadata,
    vm_tag,
    vm_text,
)

_TRUE = frozenset({"true", "yes", "1"})


@dataclass(frozen=True)
class ImageId:
    """A volume of an image of a domain of a pool: how the engine names a disk's content."""

    pool_id: str
    domain_id: str
    image_id: str
    volume_id: str


@dataclass(frozen=True)
class VmMetadata:
    custom: Mapping[str, str] = field(default_factory=dict)
    launch_paused: bool = False
    ballooning_enabled: bool = True
    min_guaranteed_memory_mib: int | None = None
    destroy_on_reboot: bool = False
    started_at_s: float | None = None
    # auto_resume, leave_paused or kill (virt.md §5.4); what nobody knows counts as the first
    resume_behaviour: str = "auto_resume"


def read_metadata(root: etree._Element) -> VmMetadata:
    """The VM's own metadata; defaults where nothing is written."""
    vm = vm_metadata(root)
    if vm is None:
        return VmMetadata()
    custom = vm_child(vm, "custom")
    return VmMetadata(
        custom={} if custom is None else {local_name(c): c.text or "" for c in children(custom)},
        launch_paused=_bool(vm, "launchPaused", default="false"),
        ballooning_enabled=_bool(vm, "ballooningEnabled", default="true"),
        min_guaranteed_memory_mib=_whole_number(vm, "minGuaranteedMemoryMb"),
        destroy_on_reboot=_bool(vm, "destroy_on_reboot", default="false"),
        started_at_s=_seconds(vm, "startTime"),
        resume_behaviour=vm_text(vm, "resumeBehavior") or "auto_resume",
    )


def device_metadata(root: etree._Element, device_type: str) -> list[etree._Element]:
    vm = vm_metadata(root)
    return [] if vm is None else [d for d in vm_children(vm, "device") if d.get("devtype") == device_type]


def read_image_id(device: etree._Element) -> ImageId | None:
    """The image that a disk's metadata names; None for a disk without one: an empty CD, a LUN, a managed volume.

    Agents of the field write the id of a LUN into imageID as well.
    """
    found = {name: vm_text(device, name) for name in ("poolID", "domainID", "imageID", "volumeID")}
    if not found["domainID"] and (not found["imageID"] or read_lun(device) or vm_text(device, "RBD")):
        return None
    where = f"metadata of disk {device.get('name', '?')}: "
    return ImageId(*(check_uuid(where + name, value) for name, value in found.items()))


def read_lun(device: etree._Element) -> str:
    """The id of the LUN that a disk's metadata names; empty for an image."""
    return vm_text(device, "GUID")


def write_value(root: etree._Element, name: str, value: str | float | bool) -> None:
    """Set one typed element of the VM's metadata, which is made where absent."""
    parent = root.find("metadata")
    if parent is None:
        parent = etree.SubElement(root, "metadata")
    vm = vm_metadata(root)
    if vm is None:
        vm = etree.SubElement(parent, vm_tag("vm"))
    element = vm_child(vm, name)
    if element is None:
        element = etree.SubElement(vm, vm_tag(name))
    element.attrib.pop("type", "")
    if not isinstance(value, str):
        element.set("type", type(value).__name__)
    element.text = str(value)


def _bool(vm: etree._Element, name: str, *, default: str) -> bool:
    return vm_text(vm, name, default).lower() in _TRUE


def _whole_number(vm: etree._Element, name: str) -> int | None:
    text = vm_text(vm, name)
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise BadDomainXml(f"metadata {name}", f"{text[:40]!r} is not a whole number")
    return int(text)


def _seconds(vm: etree._Element, name: str) -> float | None:
    text = vm_text(vm, name)
    try:
        number = float(text) if text else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise BadDomainXml(f"metadata {name}", f"{text[:40]!r} is not a number")
    return number
