# SPDX-License-Identifier: GPL-2.0-or-later
"""Holds a domain XML against the table of what an operator may start (`allowed`). Pure; what is not known is refused.

Beyond the table: an element that libvirt reads once stands once; a disk shows an image that its metadata names by ids
(`read_drives` says which; for these, and only these, the start writes path and format itself), or is a CD of the ISO
domain, or empty; custom properties start hook scripts, so only those that the administrator listed pass.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator

from lxml import etree

from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.ids import shown
from vdsm.common.xml import parse
from vdsm.virt.domain_xml.allowed import TABLE, pattern
from vdsm.virt.domain_xml.drives import read_drives
from vdsm.virt.domain_xml.errors import BadDomainXml
from vdsm.virt.domain_xml.names import QEMU_NAMESPACE, TUNE_NAMESPACE, VM_NAMESPACE, children, local_name

_PREFIXES = {VM_NAMESPACE: "vm", TUNE_NAMESPACE: "tune", QEMU_NAMESPACE: "qemu"}
_CUSTOM = "metadata/vm:vm/vm:custom/*"
# besides the devices themselves
_REPEATED = frozenset(
    ("page", "vcpupin", "iothreadpin", "memnode", "feature", "cell", "cache", "entry", "timer", "boot", "listen")
) | {"channel", "parameter", "codec", "qemu:add", "qemu:del", "vm:device"}
TOLD = 5  # problems in one message
MAX_DEPTH = 12


class XmlNotAllowed(AgentError):
    """``problems`` names the first few places."""

    problems: str
    msg = "An operator may not start a VM with this domain XML: {self.problems}"
    remedy = "Leave these out, have an administrator start the VM, or see docs/access.md for what operators may use"


def check(text: str, vm_id: str, custom_properties: Collection[str]) -> None:
    """Raises `InvalidXml` or `XmlNotAllowed`."""
    root = parse(text, what=f"the domain XML of VM {vm_id}")
    found: list[str] = []
    for problem in problems(root, vm_id, custom_properties):
        if len(found) == TOLD:
            found.append("and more")
            break
        found.append(problem)
    if found:
        raise XmlNotAllowed("; ".join(found))


def problems(root: etree._Element, vm_id: str, custom_properties: Collection[str]) -> Iterator[str]:
    if root.tag != "domain":
        yield f"the root element is {shown(str(root.tag))}"
        return
    yield from _Walk(vm_id, custom_properties).element(root, "", "domain", 0)
    yield from _disks(root)


class _Walk:
    def __init__(self, vm_id: str, custom_properties: Collection[str]) -> None:
        self._vm_id = vm_id
        self._custom = custom_properties

    def element(self, element: etree._Element, path: str, place: str, depth: int) -> Iterator[str]:
        row = _row(path)
        if row is None or depth > MAX_DEPTH:
            yield f"{place} is not on the list"
            return
        rules = TABLE[row]
        for name, value in element.items():
            yield from self._value(rules, str(name), str(value), f"{place}/@{shown_name(str(name))}")
        if (element.text or "").strip() or "#" in rules:
            yield from self._value(rules, "#", (element.text or "").strip(), place)
        if row == _CUSTOM and local_name(element) not in self._custom:
            yield f"custom property {shown(local_name(element))} is not one that operators may set"
        for child in element:
            if (child.tail or "").strip():
                yield f"{place} has text between its elements"
        numbers: dict[str, int] = {}
        for child in children(element):
            name = _name(child)
            numbers[name] = numbers.get(name, 0) + 1
            if numbers[name] == 2 and path != "devices" and name not in _REPEATED:
                yield f"{place} has more than one {shown_name(name)}"
            yield from self.element(
                child, f"{path}/{name}".lstrip("/"), f"{place}/{shown_name(name)}[{numbers[name]}]", depth + 1
            )

    def _value(self, rules: dict[str, str], name: str, value: str, place: str) -> Iterator[str]:
        if name not in rules:
            yield f"{place} is not on the list"
        elif not _pattern(rules[name], self._vm_id).fullmatch(value):
            told = "what it is" if name == "passwd" else shown(value)
            yield f"{place} may not be {told}"


def _disks(root: etree._Element) -> Iterator[str]:
    try:
        drives = read_drives(root)
    except (BadDomainXml, InvalidParameter) as e:
        yield str(e)
        return
    for drive, disk in zip(drives, root.findall("devices/disk"), strict=True):
        if drive.image is not None:
            continue
        source, driver = disk.find("source"), disk.find("driver")
        name = f"disk {shown(drive.target)}"
        if drive.device != "cdrom":
            yield f"{name} has no image in the metadata"
        elif disk.get("type", "file") != "file" or (source is not None and source.get("dev") is not None):
            yield f"{name}: a CD without image is a file"
        elif drive.path and not _pattern("{ISO}", "").fullmatch(drive.path):
            yield f"{name}: {shown(drive.path)} is no image of an ISO domain"
        elif driver is not None and driver.get("type", "raw") != "raw":
            yield f"{name}: a CD without image is raw"


def _row(path: str) -> str | None:
    """The key of the row for a path: by its own name, else with one name left open."""
    if path in TABLE:
        return path
    parent, _, name = path.rpartition("/")
    if f"{parent}/*" in TABLE and _may_be_open(parent, name):
        return f"{parent}/*"
    device, _, _ = parent.partition("/")
    opened = f"devices/*/{name}"
    return opened if device == "devices" and parent.count("/") == 1 and opened in TABLE else None


def _may_be_open(parent: str, name: str) -> bool:
    # names of other namespaces are never meant by an open name, but for the properties of VMs
    return ":" not in name or parent.endswith("vm:custom")


def _name(element: etree._Element) -> str:
    """The element's name as the table writes it; of a namespace that it does not know, one that stands in no row."""
    name = etree.QName(element)
    if not name.namespace:
        return name.localname
    return f"{_PREFIXES.get(name.namespace, 'unknown')}:{name.localname}"


def shown_name(name: str) -> str:
    return name if len(name) <= 40 else shown(name)


@functools.lru_cache(maxsize=1024)
def _pattern(text: str, vm_id: str) -> re.Pattern[str]:
    return pattern(text, vm_id)
