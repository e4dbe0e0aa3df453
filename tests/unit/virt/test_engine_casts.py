# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics of VMs hold what engines cast them to, from the first answer to the last."""

from __future__ import annotations

from typing import Any

from contrib.contract.casts import wrong
from vdsm.common.errors import AgentError
from vdsm.virt.libvirt_edge.counters import read

from .fakes import VM, World, disk, until, xml_of

SAMPLE: dict[str, Any] = {
    "cpu.time": 10,
    "cpu.system": 5,
    "cpu.user": 1,
    "vcpu.current": 1,
    "balloon.current": 1024,
    "balloon.maximum": 2048,
    "balloon.available": 1000,
    "balloon.unused": 500,
    "block.count": 1,
    "block.0.name": "vda",
    "block.0.physical": 7,
    "block.0.rd.bytes": 1,
    "block.0.rd.reqs": 1,
    "block.0.rd.times": 9,
}


async def test_stats_hold_what_engines_cast_at_every_age_of_a_vm(world: World) -> None:
    screen = "<graphics type='vnc' port='5900' tlsPort='-1' listen='192.0.2.1'/>"
    vm = await world.vms.create(VM, xml_of(disks=[disk()], devices=screen))
    assert wrong("Host.getAllVmStats", world.vms.all_stats()) == []
    await until(lambda: vm.status.reported == "Up")
    for _ in range(2):
        world.vms._samples.take(VM, read(SAMPLE).counters)
        assert wrong("Host.getAllVmStats", world.vms.all_stats()) == []
    assert world.vms.stats(VM)["disks"]["vda"]["truesize"]
    assert world.vms.stats(VM)["displayInfo"][0]["port"] == "5900"


class Broken(AgentError):
    msg = "broken on purpose"


async def test_stats_of_a_vm_that_could_not_start_hold_what_engines_cast(world: World) -> None:
    async def script(xml: str) -> str:
        raise Broken()

    world.hooks.scripts["before_vm_start"] = script
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Down")
    (told,) = world.vms.all_stats()
    assert (told["exitCode"], "broken on purpose" in told["exitMessage"]) == (1, True)
    assert wrong("Host.getAllVmStats", [told]) == []
