# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding many VMs again after a restart of the agent: 400 simulated ones with 10 disks each, records on a real disk.

    python -m contrib.benchmarks.recovery

The time runs from the start of the part until every VM is answered for; the second row has no record of any VM, as
after an upgrade from another agent.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from contrib.benchmarks import report
from contrib.benchmarks.report import Row, Table
from contrib.benchmarks.simulated import SimulatedHypervisor, new_vms
from contrib.benchmarks.simulated_agent import Watch
from contrib.lab.host import PrivateHost
from vdsm.common import memory
from vdsm.common.events import Events
from vdsm.virt.hypervisor import Domain
from vdsm.virt.records import Phase, Record, Store

VMS, DISKS, NICS = 400, 10, 2
ROUNDS = 3
GOAL_S, GOAL_BLOCK_MS = 2.0, 50


def run(_host: PrivateHost) -> list[Table]:
    return [asyncio.run(measure())]


async def measure() -> Table:
    hypervisor = SimulatedHypervisor(VMS, disks=DISKS, nics=NICS)
    rows = [
        await _row("with their records", hypervisor, _record_all),
        await _row("without a record", hypervisor, lambda _folder, _domains: asyncio.sleep(0)),
    ]
    note = (
        f"{VMS} VMs, {DISKS} disks and {NICS} NICs each, best of {ROUNDS}. Goals: under {GOAL_S:g} s, "
        f"no block of the loop over {GOAL_BLOCK_MS} ms."
    )
    return Table(
        "Recovery of simulated VMs", ("state", "s until all are there", "longest block ms", "its CPU ms"), rows, note
    )


async def _row(state: str, hypervisor: SimulatedHypervisor, furnish: Callable[..., object]) -> Row:
    seconds, blocks, cpu = [], [], []
    for _ in range(ROUNDS):
        folder = Path(tempfile.mkdtemp())
        try:
            done = furnish(folder, await hypervisor.domains())
            if asyncio.iscoroutine(done):
                await done
            memory.settle()  # as an agent that serves already, and whose libvirt was away
            vms = new_vms(hypervisor, folder, Events(), period_s=3600.0)
            watch = Watch()
            started = time.perf_counter()
            await vms.start()
            found = len(vms.all())
            seconds.append(time.perf_counter() - started)
            await asyncio.sleep(0.2)
            blocks.append(1000 * watch.longest_s)
            cpu.append(1000 * watch.most_cpu_s)
            if found != VMS:
                raise RuntimeError(f"{found} VMs were found")
            await vms.stop()
        finally:
            shutil.rmtree(folder)
    return (state, f"{min(seconds):.2f}", f"{min(blocks):.0f}", f"{min(cpu):.0f}")


async def _record_all(folder: Path, domains: list[Domain]) -> None:
    store = Store(str(folder / "state" / "vms"))
    for domain in domains:
        await store.create(Record(vm_id=domain.vm_id, name=domain.name, phase=Phase.RUNNING, xml=domain.xml))
    await store.stop()


if __name__ == "__main__":
    print(report.as_markdown(asyncio.run(measure())))
    print(report.machine())
