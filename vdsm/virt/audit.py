# SPDX-License-Identifier: GPL-2.0-or-later
"""What each VM was given of the host, at its start and at each change: one log line a resource.

    VM <id>: given disk vda /rhev/.../volume
    VM <id>: disk sdc changed from ... to ...
    VM <id>: taken interface 56:6f:...

In the log ``vdsm.audit.vm``, which is kept at INFO, so that an admin can tell later which VM had which disk, network or
device when.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from vdsm.virt.domain_xml.description import Description

log = logging.getLogger("vdsm.audit.vm")


Given = dict[str, str]


def record(vm_id: str, old: Given, after: Description) -> Given:
    """Log what differs from what the VM had before (nothing at its start); what it has now."""
    new = dict(_given(after))
    for what, value in new.items():
        if what not in old:
            log.info("VM %s: given %s %s", vm_id, what, value)
        elif old[what] != value:
            log.info("VM %s: %s changed from %s to %s", vm_id, what, old[what], value)
    for what, value in old.items():
        if what not in new:
            log.info("VM %s: taken %s %s", vm_id, what, value)
    return new


def of(description: Description) -> Given:
    """What a VM has that ran before we came: nothing of it is news."""
    return dict(_given(description))


def _given(description: Description) -> Iterator[tuple[str, str]]:
    yield "memory", f"{description.memory_kib} KiB"
    yield "processors", str(description.cpus)
    for drive in description.drives:
        yield f"{drive.device} {drive.target}", drive.path or "nothing"
    for interface in description.interfaces:
        yield f"interface {interface.mac}", interface.source or "nothing"
    for device in description.host_devices:
        yield "host device", device
