# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent starts a guest of domain type kvm where the processor's flags allow it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from contrib.lab import engine, furnish, vm_xml
from contrib.lab.guest import prepare
from contrib.lab.microvm.host import MicroHost
from tests.failure_logs import watched

BOOT_S = 180


@pytest.fixture
def large() -> Iterator[MicroHost]:
    with MicroHost("nested", memory_mib=3072) as host, watched(host):
        host.start_agent()
        yield host


@pytest.mark.timeout(400)
def test_a_nested_guest_of_type_kvm_boots(large: MicroHost) -> None:
    guest = prepare()
    token = uuid.uuid4().hex[:8]
    vm_id = str(uuid.uuid4())
    vm = vm_xml.Vm(
        vm_id,
        "nested",
        kernel=guest.kernel,
        initrd=guest.initrd,
        cmdline=f"console=ttyS0 lab.token={token}",
        kind="kvm",
    )

    async def flow() -> None:
        async with large.client() as client:
            capabilities = await client.call("Host.getCapabilities", timeout_s=60)
            assert capabilities["kvmEnabled"] == "true"
            await engine.create_vm(client, vm)
            await engine.wait_vm(client, vm_id, "Up", timeout_s=BOOT_S)

    asyncio.run(flow())
    assert b"<domain type='kvm'" in large.run(["virsh", "dumpxml", "nested"]).stdout
    said = f"kernel command line says {token}".encode()
    furnish.until("the guest speaks", lambda: said in large.get(vm.serial_log), BOOT_S)
