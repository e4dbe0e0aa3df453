# SPDX-License-Identifier: GPL-2.0-or-later
"""Words in the engine's XML that only the host can replace (virt.md §4).

A placeholder that this agent does not fill yet is refused by name: handing it to libvirt would
end in an error that nobody understands.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from vdsm.virt.domain_xml.errors import BadDomainXml

_UNFILLED = ("LEASE-PATH:", "LEASE-OFFSET:", "PAYLOAD:")


@dataclass(frozen=True)
class HostFacts:
    """What this host says of itself inside a VM."""

    os_name: str
    os_version: str
    host_id: str
    kvm: bool


def fill_placeholders(root: etree._Element, facts: HostFacts) -> None:
    """Replace the words in sysinfo; `BadDomainXml` for a placeholder that can't be filled."""
    values = {"OS-NAME:": facts.os_name, "OS-VERSION:": facts.os_version, "HOST-SERIAL:": facts.host_id}
    for entry in root.findall("sysinfo/system/entry"):
        for word, value in values.items():
            if (entry.text or "").startswith(word):
                entry.text = value
    for element in root.iterfind("devices//*"):
        for value in [*element.attrib.values(), element.text or ""]:
            if isinstance(value, str) and value.startswith(_UNFILLED):
                raise BadDomainXml(f"<{element.tag}>", f"the placeholder {value.split(':')[0]} is not supported yet")
