# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics of all domains in one call, or of one domain.

They have threads of their own: a call for statistics is the first to hang when a QEMU, or the storage below it, does,
and a look at a VM must not wait behind it. A call that hangs is not made a second time: while it does, the same
question is answered at once with `DeadlineExceeded`. So a hung domain holds one thread, however long it hangs, and is
asked again as soon as the thread comes back.

libvirtd works on 20 calls at a time, unless its configuration says otherwise. So few calls may hang here (`HUNG`), and
then none is made until one comes back: changes need its threads, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import libvirt

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import DomainMissing
from vdsm.virt.hypervisor import Sampled, Stats
from vdsm.virt.libvirt_edge.connection import Connection
from vdsm.virt.libvirt_edge.counters import read
from vdsm.virt.libvirt_edge.workers import Workers

T = TypeVar("T")

ALL_S = 15.0
ONE_S = 5.0
THREADS = 2
# the call for all, and two of domains
HUNG = 3
GROUPS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
_NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
ALL_FLAGS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | _NOWAIT


class StatisticsCalls:
    def __init__(self, *, all_s: float = ALL_S, one_s: float = ONE_S) -> None:
        self._workers = Workers("libvirt/statistics", THREADS, limit=HUNG)
        self._all_s = all_s
        self._one_s = one_s
        # what threads ask just now: a VM's id, nothing for all
        self._asked: set[str] = set()

    def stop(self) -> None:
        self._workers.stop()

    async def all(self, connection: Connection) -> Stats:
        return await self._call(connection, "", "read statistics", self._all_s, read_all)

    async def one(self, connection: Connection, vm_id: str) -> Sampled:
        def run(connect: libvirt.virConnect) -> Sampled:
            domain = connect.lookupByUUIDString(vm_id)
            for _, values in connect.domainListGetStats([domain], GROUPS, _NOWAIT):
                return read(values)
            raise DomainMissing(vm_id)  # it ended meanwhile

        return await self._call(connection, vm_id, "read statistics of the domain", self._one_s, run)

    async def _call(
        self, connection: Connection, about: str, what: str, timeout_s: float, run: Callable[[libvirt.virConnect], T]
    ) -> T:
        if about in self._asked:
            raise DeadlineExceeded(f"libvirt: {what}", timeout_s)

        def asked(connect: libvirt.virConnect) -> T:
            self._asked.add(about)
            try:
                return run(connect)
            finally:
                self._asked.discard(about)

        return await connection.call(self._workers, what, timeout_s, asked, vm_id=about)


def read_all(connect: libvirt.virConnect) -> Stats:
    """In a thread."""
    entries = connect.getAllDomainStats(GROUPS, ALL_FLAGS)
    found = {}
    while entries:  # one by one: to free all at the end would hold the interpreter for long
        domain, values = entries.pop()
        found[domain.UUIDString()] = read(values)
    return found
