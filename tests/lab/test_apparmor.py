# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM flow with AppArmor enforcing: QEMU is confined to its own profile and its guest works on its disk."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from contrib.lab import engine, furnish, vm_xml
from contrib.lab.guest import prepare
from contrib.lab.microvm.host import MicroHost
from tests.failure_logs import watched

BOOT_S = 120


@pytest.fixture
def confined() -> Iterator[MicroHost]:
    with MicroHost("confined", apparmor=True, memory_mib=2048) as host, watched(host):
        host.start_agent()
        yield host


@pytest.mark.timeout(400)
def test_a_vm_s_qemu_is_confined_and_its_disk_works(confined: MicroHost) -> None:
    guest = prepare()
    # libvirt's profile maker refuses files below /usr/lib
    confined.run(["cp", guest.kernel, guest.initrd, "/srv"])
    vm_id = str(uuid.uuid4())

    async def flow() -> vm_xml.Vm:
        async with confined.client() as client:
            pool = await engine.new_pool(client)
            volume = await engine.create_volume(client, pool, size_bytes=64 << 20, thin=False)
            vm = vm_xml.Vm(
                vm_id,
                "confined",
                kernel="/srv/vmlinuz",
                initrd="/srv/initrd.gz",
                cmdline="console=ttyS0 lab.token=inside",
                disks=(volume.disk(),),
                kind="qemu",
            )
            await engine.create_vm(client, vm)
            await engine.wait_vm(client, vm_id, "Up", timeout_s=BOOT_S)
            return vm

    vm = asyncio.run(flow())
    pid = confined.get("/run/libvirt/qemu/confined.pid").decode().strip()
    assert confined.get(f"/proc/{pid}/attr/current") == f"libvirt-{vm_id} (enforce)\n".encode()
    furnish.until("the guest's disk", lambda: b"guest: disk says" in confined.get(vm.serial_log), BOOT_S)
