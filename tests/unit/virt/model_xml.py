# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs of the model, as an engine describes them: each has an image of its own, and all share a CD."""

from __future__ import annotations

import uuid

POOL = str(uuid.UUID(int=1))
DOMAINS = [str(uuid.UUID(int=n)) for n in (2, 3)]
VMS = [str(uuid.UUID(int=0xA0 + n)) for n in range(3)]
CODES = {"enospc": "ENOSPC", "eio": "EIO", "eperm": "EPERM", "": "EOTHER", "eother": "EOTHER"}
CD = str(uuid.UUID(int=4))


def image_of(vm_id: str) -> str:
    return str(uuid.UUID(int=uuid.UUID(vm_id).int + 0x100))


def xml_of(vm_id: str, *, disks: bool, paused: bool, behaviour: str, destroy_on_reboot: bool, agent: bool) -> str:
    found = []
    if disks:
        found = [("vda", image_of(vm_id), DOMAINS[VMS.index(vm_id) % 2]), ("vdb", CD, DOMAINS[0])]
    elements = "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file=''/>"
        f"<target dev='{target}' bus='virtio'/></disk>"
        for target, _, _ in found
    )
    metadata = "".join(
        f"<ovirt-vm:device devtype='disk' name='{target}'><ovirt-vm:poolID>{POOL}</ovirt-vm:poolID>"
        f"<ovirt-vm:domainID>{domain}</ovirt-vm:domainID><ovirt-vm:imageID>{image}</ovirt-vm:imageID>"
        f"<ovirt-vm:volumeID>{image}</ovirt-vm:volumeID></ovirt-vm:device>"
        for target, image, domain in found
    )
    if agent:
        elements += (
            "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='disconnected'/></channel>"
        )
    metadata += f"<ovirt-vm:launchPaused>{paused}</ovirt-vm:launchPaused>"
    metadata += f"<ovirt-vm:resumeBehavior>{behaviour}</ovirt-vm:resumeBehavior>"
    metadata += f"<ovirt-vm:destroy_on_reboot>{destroy_on_reboot}</ovirt-vm:destroy_on_reboot>"
    return (
        f"<domain type='kvm' xmlns:ovirt-vm='http://ovirt.org/vm/1.0'><name>vm-{vm_id[-2:]}</name><uuid>{vm_id}</uuid>"
        f"<memory>65536</memory><features><acpi/></features><devices>{elements}</devices>"
        f"<metadata><ovirt-vm:vm>{metadata}</ovirt-vm:vm></metadata></domain>"
    )
