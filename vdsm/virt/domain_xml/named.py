# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain XML names on its host beside images: libvirt networks and filters, bridges, folders of sockets.

The engine takes them for there, because the field's set-up makes them (virt.md §4.1). Pure: whether they are there,
`vdsm.virt.host_objects` sees.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from lxml import etree

# libvirt makes these folders itself, one for each domain
_LIBVIRTS_OWN = "/var/lib/libvirt/qemu/channel/"


@dataclass(frozen=True)
class Named:
    networks: frozenset[str]
    bridges: frozenset[str]
    filters: frozenset[str]
    folders: frozenset[str]
    spice_tls: bool


def read_named(root: etree._Element) -> Named:
    devices = root.find("devices")
    if devices is None:
        devices = etree.Element("devices")
    listened = _all(devices, "graphics/listen[@type='network']", "network")
    attached = _all(devices, "interface[@type='network']/source", "network")
    return Named(
        networks=listened | attached,
        bridges=_bridges(devices),
        filters=_all(devices, "interface/filterref", "filter"),
        folders=_folders(devices),
        spice_tls=any(_is_secure(graphics) for graphics in devices.findall("graphics[@type='spice']")),
    )


def _all(devices: etree._Element, path: str, attribute: str) -> frozenset[str]:
    return frozenset(found for element in devices.iterfind(path) if (found := element.get(attribute)))


def _bridges(devices: etree._Element) -> frozenset[str]:
    """Bridges of the kernel. Those of Open vSwitch need not be a device."""
    plain = [i for i in devices.iterfind("interface[@type='bridge']") if i.find("virtualport") is None]
    sources = [source for interface in plain for source in interface.iterfind("source")]
    return frozenset(bridge for source in sources if (bridge := source.get("bridge")))


def _folders(devices: etree._Element) -> frozenset[str]:
    """Folders in which QEMU is to make a socket."""
    found = set()
    for kind in ("channel", "serial", "console"):
        for source in devices.iterfind(f"{kind}[@type='unix']/source"):
            path = source.get("path", "")
            if source.get("mode", "bind") == "bind" and path.startswith("/") and not path.startswith(_LIBVIRTS_OWN):
                found.add(os.path.dirname(path))
    return frozenset(found)


def _is_secure(graphics: etree._Element) -> bool:
    asked = [graphics.get("defaultMode", ""), *(c.get("mode", "") for c in graphics.iterfind("channel"))]
    return "secure" in asked or graphics.get("tlsPort", "-1") not in ("-1", "0", "")
