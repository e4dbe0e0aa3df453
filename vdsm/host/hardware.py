# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's own description (DMI). Serial number and UUID are readable by root only: without them the
agent's own id stands for the UUID, and the serial number is empty."""

from __future__ import annotations

from vdsm.host.tree import Tree

_DMI = "/sys/class/dmi/id"
_FILES = {
    "systemManufacturer": "sys_vendor",
    "systemProductName": "product_name",
    "systemVersion": "product_version",
    "systemSerialNumber": "product_serial",
    "systemFamily": "product_family",
}


def read_hardware(tree: Tree, host_id: str) -> dict[str, str]:
    found = {key: tree.text(f"{_DMI}/{name}") for key, name in _FILES.items()}
    return {**found, "systemUUID": tree.text(f"{_DMI}/product_uuid") or host_id}
