# SPDX-License-Identifier: GPL-2.0-or-later
"""Namespaces of the domain XML and the few ways to find something in it.

The metadata of a VM stands in ``<metadata>/<ovirt-vm:vm>``; a child element may say by its
attribute ``type`` that its text is an int, a float or a bool (virt.md §3). Inside it, elements are read with
and without the namespace: older engines, and everything that went through libvirt's metadata calls, write none.
"""

from __future__ import annotations

from lxml import etree

VM_NAMESPACE = "http://ovirt.org/vm/1.0"
TUNE_NAMESPACE = "http://ovirt.org/vm/tune/1.0"
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

NAMESPACES = {"ovirt-vm": VM_NAMESPACE, "ovirt-tune": TUNE_NAMESPACE, "qemu": QEMU_NAMESPACE}

etree.register_namespace("ovirt-vm", VM_NAMESPACE)
etree.register_namespace("ovirt-tune", TUNE_NAMESPACE)


def vm_tag(name: str) -> str:
    """The name of a metadata element as lxml spells it."""
    return f"{{{VM_NAMESPACE}}}{name}"


def local_name(element: etree._Element) -> str:
    return etree.QName(element).localname


def text_of(parent: etree._Element, path: str, default: str = "") -> str:
    """The stripped text at ``path`` (prefixes as in NAMESPACES)."""
    return (parent.findtext(path, default, NAMESPACES) or default).strip()


def vm_children(parent: etree._Element, name: str) -> list[etree._Element]:
    """Metadata elements ``name`` in ``parent``; those with the namespace first, because they count where both stand."""
    return parent.findall(vm_tag(name)) + parent.findall(name)


def vm_child(parent: etree._Element, name: str) -> etree._Element | None:
    return next(iter(vm_children(parent, name)), None)


def vm_text(parent: etree._Element, name: str, default: str = "") -> str:
    """The stripped text of a metadata element."""
    found = vm_child(parent, name)
    return default if found is None else ((found.text or "").strip() or default)


def children(element: etree._Element) -> list[etree._Element]:
    """Child elements without comments and processing instructions."""
    return [child for child in element if isinstance(child.tag, str)]


def vm_metadata(root: etree._Element) -> etree._Element | None:
    return root.find("metadata/ovirt-vm:vm", NAMESPACES)
