# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's port and its verbs in a process of their own, without host, storage and VMs: the wire alone.

    python contrib/benchmarks/bare.py FOLDER [--no-gc]

FOLDER holds ``certs`` and ``keys`` as ``/etc/pki/vdsm`` does. Prints the port, and serves until its input ends. It
imports `vdsm` by PYTHONPATH, so that one run can measure two checkouts in turns.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from types import SimpleNamespace
from typing import Any, cast

from vdsm.api import registry
from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import NoParams
from vdsm.certificates import places
from vdsm.common import heap, memory
from vdsm.common.events import Events
from vdsm.rpc import tls
from vdsm.rpc.dispatcher import Dispatcher
from vdsm.rpc.policy import PolicyFile
from vdsm.rpc.port import Address, EnginePort

# as large as the statistics of 30 VMs, and as the volumes of a large domain
LARGE = {"Bench.50KB": 50_000, "Bench.1600KB": 1_600_000}


async def serve(folder: str) -> None:
    verbs = dict(registry.load())
    for name, size in LARGE.items():
        value = [{"vmId": f"{number:036}", "status": "Up", "memUsage": "17"} for number in range(size // 80)]

        @verb(name, role=Role.READER, into=verbs)
        async def answer(call: Call, params: NoParams, value: list[Any] = value) -> list[Any]:
            """A large answer."""
            return value

    events = Events()
    dispatcher = Dispatcher(cast("Any", SimpleNamespace(events=events)), verbs)
    port = EnginePort(
        dispatcher,
        events,
        Address("127.0.0.1", 0),
        certificates=tls.Certificates(places.host(folder)),
        policy=PolicyFile(folder),
    )
    memory.settle()
    if "--no-gc" in sys.argv:
        gc.disable()
    await port.start()
    while not port.port:
        await asyncio.sleep(0.01)
    print(port.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await port.stop()


if __name__ == "__main__":
    heap.give_large_blocks_back()
    asyncio.run(serve(sys.argv[1]))
