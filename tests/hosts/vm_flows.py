# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of VMs on a real host do again and again, and what they look at: libvirt, run links, records."""

from __future__ import annotations

import uuid
from typing import Any

from contrib.lab import engine, vm_xml
from contrib.lab.guest import Guest
from contrib.lab.host import PrivateHost
from vdsm.client import Client

RECORDS = "/var/lib/vdsm/vms"
STEP_S = 60.0


def describe(volume: engine.Volume | None = None, guest: Guest | None = None, **more: Any) -> vm_xml.Vm:
    """A small VM: firmware only, or with a kernel when ``guest`` is given."""
    vm_id = str(uuid.uuid4())
    if guest is not None:
        more = {
            "kernel": guest.kernel,
            "initrd": guest.initrd,
            "cmdline": f"console=ttyS0 lab.token={vm_id[:8]}",
            "memory_mib": 256,
        } | more
    disks = () if volume is None else (volume.disk(),)
    return vm_xml.Vm(vm_id, f"vm-{vm_id[:8]}", disks=disks, **({"memory_mib": 32} | more))


async def connect(client: Client, pool: engine.Pool) -> None:
    """What an engine does after an agent's restart, without the SPM role."""
    await engine.connect_server(client, pool.domain_type, pool.connection, pool.pool_id)
    await engine.connect_pool(client, pool.pool_id, pool.domain_id)


def domains(host: PrivateHost) -> dict[str, str]:
    """State by id of everything that libvirt knows, asked without the agent."""
    found = {}
    for vm_id in host.run(["virsh", "-q", "list", "--all", "--uuid"]).stdout.decode().split():
        found[vm_id] = host.run(["virsh", "-q", "domstate", vm_id]).stdout.decode().strip()
    return found


def is_prepared(host: PrivateHost, volume: engine.Volume) -> bool:
    path = host.path(f"/run/vdsm/storage/{volume.domain_id}/{volume.image_id}")
    return path.is_symlink() or path.exists()


def records(host: PrivateHost) -> list[str]:
    folder = host.path(RECORDS)
    return sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []


async def stats(client: Client, vm_id: str) -> dict[str, Any]:
    answer = await client.call("VM.getStats", {"vmID": vm_id})
    assert len(answer) == 1
    return dict(answer[0])


async def destroy(client: Client, vm_id: str) -> None:
    await client.call("VM.destroy", {"vmID": vm_id}, timeout_s=STEP_S)


async def settled(client: Client, vm_id: str, timeout_s: float = STEP_S) -> str:
    """The status once the VM neither starts nor ends; ``gone`` when the host does not know it."""

    async def look() -> str | None:
        status = await engine.vm_status(client, vm_id)
        return status if status in ("Up", "Paused", "Down", "gone") else None

    answer: str = await engine.until(f"VM {vm_id} settles", look, timeout_s=timeout_s)
    return answer
