# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole VM flow on a host with KVM and AppArmor enforcing, as a distribution's own installation has them."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from contrib.lab import engine, furnish, vm_xml
from contrib.lab.guest import prepare
from contrib.lab.microvm.host import MicroHost
from tests.failure_logs import watched

# of a guest in a guest, whose processor is a program
BOOT_S = 240
pytestmark = [pytest.mark.timeout(600), pytest.mark.cost(45)]


@dataclass(frozen=True)
class Running:
    host: MicroHost
    vm: vm_xml.Vm
    capabilities: dict[str, object]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with MicroHost("confined", apparmor=True, memory_mib=3072) as host, watched(host):
        host.start_agent()
        guest = prepare()
        # libvirt's profile maker refuses files below /usr/lib
        host.run(["cp", guest.kernel, guest.initrd, "/srv"])
        yield asyncio.run(_start(host))


async def _start(host: MicroHost) -> Running:
    """Domain, pool, disk and VM by the API, as an engine makes them."""
    vm_id = str(uuid.uuid4())
    async with host.client() as client:
        capabilities = await client.call("Host.getCapabilities", timeout_s=60)
        pool = await engine.new_pool(client)
        volume = await engine.create_volume(client, pool, size_bytes=64 << 20, thin=False)
        vm = vm_xml.Vm(
            vm_id,
            "confined",
            kernel="/srv/vmlinuz",
            initrd="/srv/initrd.gz",
            cmdline=f"console=ttyS0 lab.token={vm_id[:8]}",
            disks=(volume.disk(),),
            kind="kvm",
        )
        await engine.create_vm(client, vm)
        await engine.wait_vm(client, vm_id, "Up", timeout_s=BOOT_S)
        return Running(host, vm, capabilities)


def test_the_agent_tells_that_the_host_has_kvm(running: Running) -> None:
    assert running.capabilities["kvmEnabled"] == "true"


def test_a_nested_guest_of_type_kvm_boots(running: Running) -> None:
    assert re.search(rb"<domain type='kvm'", running.host.run(["virsh", "dumpxml", "confined"]).stdout)
    said = f"kernel command line says {running.vm.vm_id[:8]}".encode()
    furnish.until("the guest speaks", lambda: said in running.host.get(running.vm.serial_log), BOOT_S)


def test_its_qemu_is_confined_to_a_profile_of_its_own(running: Running) -> None:
    pid = running.host.get("/run/libvirt/qemu/confined.pid").decode().strip()
    label = running.host.get(f"/proc/{pid}/attr/current")
    assert label == f"libvirt-{running.vm.vm_id} (enforce)\n".encode()


def test_its_disk_works_all_the_same(running: Running) -> None:
    furnish.until("the guest's disk", lambda: b"guest: disk says" in running.host.get(running.vm.serial_log), BOOT_S)
