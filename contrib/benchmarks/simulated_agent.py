# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's VMs and their verbs on a simulated hypervisor, in a process of its own.

    python -m contrib.benchmarks.simulated_agent SOCKET COUNT DISKS NICS PERIOD_S

Prints "ready" once VMs have figures. Each line of input is answered with one JSON object: how many samples were taken
since the last one, the longest that the loop did nothing else meanwhile, and the most CPU time that its thread used
between two turns, which other load on the machine does not change. Serves until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from contrib.benchmarks.simulated import SimulatedHypervisor, new_vms
from vdsm.api import registry
from vdsm.common import heap, memory
from vdsm.common.events import Events
from vdsm.rpc.dispatcher import Dispatcher
from vdsm.rpc.listener import UnixListener

TICK_S = 0.001


class Watch:
    """The longest time between two turns of the loop that was not asked for; of the clock, and of the thread's CPU."""

    def __init__(self) -> None:
        self.longest_s = self.most_cpu_s = 0.0
        self._cpu_s = time.thread_time()
        asyncio.get_running_loop().call_later(TICK_S, self._tick, asyncio.get_running_loop().time() + TICK_S)

    def _tick(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        cpu_s = time.thread_time()
        self.longest_s = max(self.longest_s, loop.time() - due)
        self.most_cpu_s = max(self.most_cpu_s, cpu_s - self._cpu_s)
        self._cpu_s = cpu_s
        loop.call_later(TICK_S, self._tick, loop.time() + TICK_S)


async def serve(socket: str, hypervisor: SimulatedHypervisor, period_s: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        events = Events()
        vms = new_vms(hypervisor, Path(folder), events, period_s=period_s)
        dispatcher = Dispatcher(cast("Any", SimpleNamespace(events=events, vms=vms)), registry.load())
        listener = UnixListener(dispatcher, events, socket)
        await vms.start()
        while vms.all() and hypervisor.samples < 3:
            await asyncio.sleep(0.01)
        memory.settle()
        await listener.start()
        print("ready", flush=True)
        watch, samples = Watch(), hypervisor.samples
        while await asyncio.to_thread(sys.stdin.readline):
            told = {"longest_ms": 1000 * watch.longest_s, "cpu_ms": 1000 * watch.most_cpu_s}
            print(json.dumps(told | {"samples": hypervisor.samples - samples}), flush=True)
            watch.longest_s, watch.most_cpu_s, samples = 0.0, 0.0, hypervisor.samples
        await listener.stop()
        await vms.stop()


def main() -> None:
    socket, count, disks, nics, period_s = sys.argv[1:6]
    heap.give_large_blocks_back()
    hypervisor = SimulatedHypervisor(int(count), disks=int(disks), nics=int(nics))
    asyncio.run(serve(socket, hypervisor, float(period_s)))


if __name__ == "__main__":
    main()
