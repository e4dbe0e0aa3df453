# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypervisor that is libvirt: each method is one or two libvirt calls in a pool's thread.

What may wait for something else has a pool of its own: looks at VMs, changes, starts (which wait for storage), ends
(which must get through when everything else hangs), what a guest's agent is asked, and statistics. All but looks and
ends are together fewer than the 20 calls that libvirtd works on at a time: it has more for most looks, and for kills.
Who calls a change holds the VM's lane: at most one per VM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

import libvirt

from vdsm.virt.domain_xml.names import VM_NAMESPACE
from vdsm.virt.errors import HypervisorError
from vdsm.virt.hypervisor import Domain, HypervisorEvent, Reconnected, Sampled, Stats
from vdsm.virt.libvirt_edge.connection import Connection
from vdsm.virt.libvirt_edge.statistics import StatisticsCalls
from vdsm.virt.libvirt_edge.subscriptions import Subscription
from vdsm.virt.libvirt_edge.translation import contradicts, disk_error, domain_state
from vdsm.virt.libvirt_edge.workers import Workers, check_wanted

T = TypeVar("T")

_READ_S = 20.0
_CHANGE_S = 60.0
_LAUNCH_S = 180.0
_AGENT_S = 180.0  # as long as an engine waits for a freeze
_METADATA_PREFIX = "ovirt-vm"
_CONTRADICTIONS = 5
_UNDEFINE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
)


class LibvirtHypervisor:
    """Implements `vdsm.virt.hypervisor.Hypervisor`."""

    def __init__(self, uri: str = "qemu:///system") -> None:
        self._uri = uri
        self._reads = Workers("libvirt/read", 3, limit=8)
        self._changes = Workers("libvirt/change", 4, limit=7, slow_s=2.0)
        self._launches = Workers("libvirt/launch", 4, limit=5, slow_s=10.0)
        self._ends = Workers("libvirt/end", 4, limit=12, slow_s=2.0)
        self._agents = Workers("libvirt/agent", 2, limit=4)
        self._statistics = StatisticsCalls()
        self._connection: Connection | None = None

    async def start(self, hear: Callable[[HypervisorEvent], None]) -> None:
        loop = asyncio.get_running_loop()
        self._connection = Connection(self._uri, lambda: Subscription(loop, hear), lambda: hear(Reconnected()))
        await self._connection.start()

    async def stop(self) -> None:
        if self._connection is not None:
            await self._connection.stop()
        for workers in (self._reads, self._changes, self._launches, self._ends, self._agents, self._statistics):
            workers.stop()

    async def domains(self) -> list[Domain]:
        return await self._call(self._reads, "list domains", _READ_S, _read_all)

    async def domain(self, vm_id: str) -> Domain:
        return await self._read(vm_id, "look at the domain", _read)

    def check_free(self, vm_id: str) -> None:
        for workers in (self._ends, self._changes, self._agents):
            workers.check_back(vm_id)

    async def define(self, xml: str) -> None:
        def run(connect: libvirt.virConnect) -> None:
            connect.defineXML(xml)

        await self._call(self._changes, "define the domain", _CHANGE_S, run)

    async def launch(self, vm_id: str, flags: int) -> Domain:
        def run(domain: libvirt.virDomain) -> Domain:
            domain.createWithFlags(flags)
            return _read(domain)

        return await self._on_domain(self._launches, vm_id, "start the domain", _LAUNCH_S, run)

    async def pause(self, vm_id: str) -> None:
        await self._change(vm_id, "pause the domain", libvirt.virDomain.suspend)

    async def resume(self, vm_id: str) -> None:
        await self._change(vm_id, "resume the domain", libvirt.virDomain.resume)

    async def reset(self, vm_id: str) -> None:
        await self._change(vm_id, "reset the domain", lambda d: d.reset(0))

    async def terminate(self, vm_id: str) -> None:
        flags = libvirt.VIR_DOMAIN_DESTROY_GRACEFUL
        await self._end(vm_id, "end QEMU by SIGTERM", lambda d: d.destroyFlags(flags))

    async def kill(self, vm_id: str) -> None:
        await self._end(vm_id, "kill QEMU", lambda d: d.destroyFlags(0))

    async def undefine(self, vm_id: str) -> None:
        await self._end(vm_id, "undefine the domain", lambda d: d.undefineFlags(_UNDEFINE_FLAGS))

    async def ask_shutdown(self, vm_id: str) -> None:
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        await self._change(vm_id, "press the power button", lambda d: d.shutdownFlags(flags))

    async def ask_agent_shutdown(self, vm_id: str) -> None:
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT
        await self._ask_agent(vm_id, "ask the guest agent to shut down", lambda d: d.shutdownFlags(flags), _CHANGE_S)

    async def ask_reboot(self, vm_id: str) -> None:
        flags = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
        await self._change(vm_id, "ask for a reboot", lambda d: d.reboot(flags))

    async def ask_agent_reboot(self, vm_id: str) -> None:
        flags = libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT
        await self._ask_agent(vm_id, "ask the guest agent to reboot", lambda d: d.reboot(flags), _CHANGE_S)

    async def freeze(self, vm_id: str) -> int:
        return await self._ask_agent(vm_id, "freeze the guest's file systems", lambda d: d.fsFreeze(), _AGENT_S)

    async def thaw(self, vm_id: str) -> int:
        return await self._ask_agent(vm_id, "thaw the guest's file systems", lambda d: d.fsThaw(), _AGENT_S)

    async def disk_errors(self, vm_id: str) -> Mapping[str, str]:
        def run(domain: libvirt.virDomain) -> Mapping[str, str]:
            return {target: disk_error(error) for target, error in domain.diskErrors().items()}

        return await self._read(vm_id, "ask for errors of its disks", run)

    async def set_metadata(self, vm_id: str, xml: str) -> None:
        def run(domain: libvirt.virDomain) -> None:
            kind, now = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_CURRENT
            domain.setMetadata(kind, xml, _METADATA_PREFIX, VM_NAMESPACE, now)

        await self._change(vm_id, "write its metadata", run)

    async def statistics(self) -> Stats:
        return await self._statistics.all(self._started("read statistics"))

    async def statistics_of(self, vm_id: str) -> Sampled:
        return await self._statistics.one(self._started("read statistics of the domain"), vm_id)

    async def active_networks(self) -> frozenset[str]:
        return await self._call(self._reads, "list networks", _READ_S, lambda c: frozenset(c.listNetworks()))

    async def filters(self) -> frozenset[str]:
        return await self._call(self._reads, "list network filters", _READ_S, lambda c: frozenset(c.listNWFilters()))

    async def host_documents(self, domain_type: str) -> tuple[str, str, int, int]:
        """What libvirt can do here: capabilities XML, domain capabilities XML, its version, QEMU's version."""

        def run(connect: libvirt.virConnect) -> tuple[str, str, int, int]:
            possible = connect.getDomainCapabilities(None, None, None, domain_type, 0)
            return connect.getCapabilities(), possible, connect.getLibVersion(), connect.getVersion()

        return await self._call(self._reads, "read what the host can do", _READ_S, run)

    async def _read(self, vm_id: str, what: str, run: Callable[[libvirt.virDomain], T]) -> T:
        return await self._on_domain(self._reads, vm_id, what, _READ_S, run)

    async def _change(self, vm_id: str, what: str, run: Callable[[libvirt.virDomain], T]) -> T:
        return await self._on_domain(self._changes, vm_id, what, _CHANGE_S, run)

    async def _end(self, vm_id: str, what: str, run: Callable[[libvirt.virDomain], T]) -> T:
        return await self._on_domain(self._ends, vm_id, what, _CHANGE_S, run)

    async def _ask_agent(self, vm_id: str, what: str, run: Callable[[libvirt.virDomain], T], timeout_s: float) -> T:
        return await self._on_domain(self._agents, vm_id, what, timeout_s, run)

    async def _on_domain(
        self, workers: Workers, vm_id: str, what: str, timeout_s: float, run: Callable[[libvirt.virDomain], T]
    ) -> T:
        def go(connect: libvirt.virConnect) -> T:
            domain = connect.lookupByUUIDString(vm_id)
            check_wanted()  # a caller that left meanwhile meant the domain of that time
            return run(domain)

        return await self._call(workers, what, timeout_s, go, vm_id)

    async def _call(
        self,
        workers: Workers,
        what: str,
        timeout_s: float,
        run: Callable[[libvirt.virConnect], T],
        vm_id: str = "",
    ) -> T:
        repeat = workers is self._reads
        return await self._started(what).call(workers, what, timeout_s, run, vm_id=vm_id, repeat=repeat)

    def _started(self, what: str) -> Connection:
        if self._connection is None:
            raise HypervisorError(what, 0, "the connection was not started")
        return self._connection


def _read_all(connect: libvirt.virConnect) -> list[Domain]:
    found = []
    for domain in connect.listAllDomains(0):
        try:
            found.append(_read(domain))
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it ended meanwhile
                raise
    return found


def _read(domain: libvirt.virDomain) -> Domain:
    for _ in range(_CONTRADICTIONS):  # two answers: between them it may start or end
        xml = domain.XMLDesc(0)
        number, reason, *_ = domain.state(0)
        active = bool(domain.isActive())
        state, word = domain_state(number, reason)
        if not contradicts(state, active):
            break
    return Domain(domain.UUIDString(), domain.name(), state, word, xml, active)
