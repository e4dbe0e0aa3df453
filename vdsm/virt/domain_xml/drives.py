# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of a domain XML: which image each one shows, and where that image lies on this host.

Metadata and disk are matched by the target device (`vda`). Everything that the engine wrote
about a disk stays; only the source, the disk's type and the driver's type are this host's
business (virt.md §4).
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from vdsm.virt.domain_xml.errors import BadDomainXml
from vdsm.virt.domain_xml.metadata import ImageId, device_metadata, read_image_id, read_lun
from vdsm.virt.domain_xml.names import children

_DRIVER_TYPES = {"raw": "raw", "cow": "qcow2"}
_SOURCE_ATTRIBUTES = {"file": "file", "block": "dev"}
MAX_DRIVES = 500


@dataclass(frozen=True)
class Drive:
    """``lun``: the id of a LUN that is shown as it is."""

    target: str
    device: str
    image: ImageId | None
    path: str
    lun: str = ""


@dataclass(frozen=True)
class Source:
    """Where a prepared image lies: kind file or block, format raw or cow."""

    path: str
    kind: str
    format: str


def read_drives(root: etree._Element) -> list[Drive]:
    """The disks in their order; `BadDomainXml` when it can be doubted which image one of them shows."""
    metadata = _metadata(root)
    drives: dict[str, Drive] = {}
    for disk in root.findall("devices/disk"):
        target = _target(disk)
        if target in drives:
            raise BadDomainXml(f"disk {target}", "two disks have this target")
        if len(drives) == MAX_DRIVES:
            raise BadDomainXml("devices", f"more than {MAX_DRIVES} disks")
        image, lun = metadata.pop(target, (None, ""))
        drives[target] = Drive(target, disk.get("device", "disk"), image, _path(disk), lun)
    orphans = [name for name, (image, _) in metadata.items() if image is not None]
    if orphans:
        raise BadDomainXml(f"metadata of disk {orphans[0]}", "the domain has no disk with this target")
    return list(drives.values())


def _metadata(root: etree._Element) -> dict[str, tuple[ImageId | None, str]]:
    """Image and LUN by target."""
    found: dict[str, tuple[ImageId | None, str]] = {}
    for device in device_metadata(root, "disk"):
        target = device.get("name", "")
        if target in found:
            raise BadDomainXml(f"metadata of disk {target}", "it stands there twice")
        found[target] = read_image_id(device), read_lun(device)
    return found


def set_source(root: etree._Element, target: str, source: Source) -> None:
    """Let the disk at ``target`` use ``source``, without libvirt changing its ownership.

    Where another host saw the layers below, and what it copied to, is dropped: here they lie where the image is.
    """
    attribute = _SOURCE_ATTRIBUTES.get(source.kind)
    driver_type = _DRIVER_TYPES.get(source.format)
    if attribute is None or driver_type is None:
        raise BadDomainXml(f"disk {target}", f"no disk of kind {source.kind} and format {source.format} is known")
    disk = next(d for d in root.findall("devices/disk") if _target(d) == target)
    for elsewhere in [child for child in children(disk) if child.tag in ("backingStore", "mirror")]:
        disk.remove(elsewhere)
    disk.set("type", source.kind)
    _set_path(disk, attribute, source.path)
    driver = disk.find("driver")
    if driver is None:
        driver = etree.Element("driver", name="qemu")
        disk.insert(0, driver)
    driver.set("type", driver_type)


def _set_path(disk: etree._Element, attribute: str, path: str) -> None:
    source = disk.find("source")
    if source is None:
        source = etree.SubElement(disk, "source")
    for other in _SOURCE_ATTRIBUTES.values():
        source.attrib.pop(other, "")
    source.set(attribute, path)
    if not any(child.tag == "seclabel" and child.get("model") == "dac" for child in children(source)):
        etree.SubElement(source, "seclabel", model="dac", relabel="no")


def _target(disk: etree._Element) -> str:
    target = disk.find("target")
    name = "" if target is None else target.get("dev", "")
    if not name:
        raise BadDomainXml("disk", "a disk has no target device")
    return name


def _path(disk: etree._Element) -> str:
    source = disk.find("source")
    return "" if source is None else source.get("file") or source.get("dev") or ""
