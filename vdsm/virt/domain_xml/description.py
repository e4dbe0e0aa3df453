# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent must know of a VM, read from its domain XML once.

The same reader serves the engine's XML, libvirt's live XML and the XML after a restart, so a
VM is described the same way in all three.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from lxml import etree

from vdsm.common.ids import check_uuid, shown
from vdsm.virt.domain_xml.drives import Drive, read_drives
from vdsm.virt.domain_xml.errors import BadDomainXml
from vdsm.virt.domain_xml.metadata import VmMetadata, read_metadata
from vdsm.virt.domain_xml.names import text_of, vm_metadata

_AGENT_CHANNELS = frozenset({"org.qemu.guest_agent.0"})


@dataclass(frozen=True)
class Interface:
    """A vNIC: host device (`vnet0`, empty before the start), MAC and model."""

    device: str
    mac: str
    model: str
    source: str = ""


@dataclass(frozen=True)
class Display:
    kind: str
    port: str
    tls_port: str
    address: str


@dataclass(frozen=True)
class Description:
    vm_id: str
    name: str
    metadata: VmMetadata
    drives: tuple[Drive, ...]
    interfaces: tuple[Interface, ...]
    displays: tuple[Display, ...]
    acpi: bool
    agent_channel: bool
    agent_connected: bool
    domain_type: str
    devices_digest: str
    # seconds that the guest's clock is ahead of the host's, as libvirt keeps it while the guest sets its clock
    clock_offset_s: int = 0
    memory_kib: int = 0
    cpus: int = 0
    host_devices: tuple[str, ...] = ()

    @property
    def kvm(self) -> bool:
        return self.domain_type == "kvm"


def describe(root: etree._Element) -> Description:
    """Read ``root``; `BadDomainXml` or `InvalidParameter` say which part can't be understood."""
    if root.tag != "domain":
        raise BadDomainXml("the root element", f"expected <domain>, found <{shown(root.tag)}>")
    name = text_of(root, "name")
    if not name or len(name) > 255 or "/" in name or "\n" in name:
        rule = "1 to 255 characters, no / and no line end"
        raise BadDomainXml("name", f"{shown(name)} can't be the name of a VM: {rule}")
    if len(root.findall("metadata")) > 1:
        raise BadDomainXml("metadata", "it stands there twice, and libvirt keeps the first one only")
    channels = [t for t in root.findall("devices/channel/target") if t.get("name") in _AGENT_CHANNELS]
    return Description(
        vm_id=read_vm_id(root),
        name=name,
        metadata=read_metadata(root),
        drives=tuple(read_drives(root)),
        interfaces=tuple(_interface(i) for i in root.findall("devices/interface")),
        displays=tuple(_display(g) for g in root.findall("devices/graphics")),
        acpi=root.find("features/acpi") is not None,
        agent_channel=bool(channels),
        agent_connected=any(t.get("state") == "connected" for t in channels),
        domain_type=root.get("type", ""),
        devices_digest=_digest(root.find("devices")),
        clock_offset_s=_clock_offset_s(root),
        memory_kib=_kib(root.find("memory")),
        cpus=_number(text_of(root, "vcpu"), 1),
        host_devices=tuple(_host_device(device) for device in root.findall("devices/hostdev")),
    )


def read_vm_id(root: etree._Element) -> str:
    return check_uuid("uuid", text_of(root, "uuid").lower())


def is_ours(root: etree._Element) -> bool:
    """A domain is ours when the agent's metadata is in it; any other one is left alone."""
    return vm_metadata(root) is not None


def _interface(element: etree._Element) -> Interface:
    source = element.find("source")
    network = "" if source is None else source.get("bridge") or source.get("network") or source.get("dev") or ""
    return Interface(
        _attribute(element, "target", "dev"), _attribute(element, "mac", "address"), _model(element), network
    )


def _model(element: etree._Element) -> str:
    return _attribute(element, "model", "type")


def _display(element: etree._Element) -> Display:
    address = _attribute(element, "listen", "address") or element.get("listen", "")
    return Display(element.get("type", ""), element.get("port", "-1"), element.get("tlsPort", "-1"), address)


def _clock_offset_s(root: etree._Element) -> int:
    clock = root.find("clock")
    return 0 if clock is None or clock.get("offset") != "variable" else _number(clock.get("adjustment", ""), 0)


_UNITS = {"b": 1, "bytes": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30}


def _kib(element: etree._Element | None) -> int:
    """An amount of memory; 0 for a unit that libvirt may know and we don't: it is shown, not reckoned with."""
    if element is None:
        return 0
    return _number(element.text or "", 0) * _UNITS.get(element.get("unit", "KiB").lower(), 0) >> 10


def _number(text: str, default: int) -> int:
    try:
        return int(text[:20])
    except ValueError:
        return default


def _host_device(element: etree._Element) -> str:
    """Its kind and where it is on the host."""
    address = element.find("source/address")
    source = address if address is not None else element.find("source/adapter")
    where = "" if source is None else " ".join(f"{name}={source.get(name)}" for name in sorted(map(str, source.keys())))
    return f"{element.get('type', '')} {where}".strip()


def _attribute(element: etree._Element, child: str, name: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(name, "")


def _digest(devices: etree._Element | None) -> str:
    """A stable name of this set of devices: the engine reads the XML again when it changes."""
    if devices is None:
        return ""
    try:
        text = etree.tostring(devices, method="c14n")
    except etree.C14NError:  # a namespace with a relative name, for one
        text = etree.tostring(devices)
    return hashlib.sha256(text).hexdigest()[:16]
