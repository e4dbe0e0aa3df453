# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that hangs, with libvirt's call for all statistics in it: the others' figures go on."""

from __future__ import annotations

from typing import Any

import pytest

from contrib.lab import engine, vm_xml
from contrib.lab.host import PrivateHost
from vdsm.client import Client
from vdsm.common.ids import new_uuid


async def _figures(client: Client) -> dict[str, Any]:
    return {vm["vmId"]: vm.get("cpuUsage") for vm in await client.call("Host.getAllVmStats")}


@pytest.mark.cost(50)
async def test_a_qemu_that_hangs_costs_its_own_figures_only(local_pool_host: PrivateHost) -> None:
    stuck, other = new_uuid(), new_uuid()
    async with local_pool_host.client() as client:
        for vm_id in (stuck, other):
            vm = vm_xml.Vm(vm_id, f"vm-{vm_id[:8]}", memory_mib=64)
            await client.call("VM.create", {"vmID": vm_id, "vmParams": {"xml": vm_xml.to_xml(vm)}}, timeout_s=60)

        async def told() -> dict[str, Any] | None:
            found = await _figures(client)
            return found if found.get(stuck) and found.get(other) else None

        before = await engine.until("both VMs have figures", told, timeout_s=60)
        local_pool_host.run(["pkill", "-STOP", "-f", f"uuid {stuck}"])
        try:
            for _ in range(2):  # the second sample comes while the first call still hangs

                async def grown(last: str = before[other]) -> dict[str, Any] | None:
                    found = await _figures(client)
                    return found if found[other] != last else None

                before = await engine.until("the other's figures go on", grown, timeout_s=50)
            hung = before[stuck]
            assert (await _figures(client))[stuck] == hung
        finally:
            local_pool_host.run(["pkill", "-CONT", "-f", f"uuid {stuck}"])

        async def back() -> bool:
            return bool((await _figures(client))[stuck] != hung)

        await engine.until("the VM that hung has figures again", back, timeout_s=50)
        for vm_id in (stuck, other):
            await client.call("VM.destroy", {"vmID": vm_id}, timeout_s=60)
