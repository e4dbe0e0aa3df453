# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding the VMs again after a restart of the agent: what `recovery` decides is done here, in two phases.

    1. before any verb about VMs is answered, from libvirt and the records alone: who is there, what runs. Nothing
       here waits for storage or a hook; libvirt that does not answer is asked again every 2 s.
    2. afterwards, VM by VM, tried again until it succeeds: what needs storage.

Until the first phase is over verbs answer `Recovering`: a list that lacks a VM tells the engine that the VM has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from vdsm.common.errors import AgentError
from vdsm.virt import lost, qemu_process
from vdsm.virt.errors import DomainMissing
from vdsm.virt.hypervisor import Domain, VmEvent
from vdsm.virt.parts import Parts
from vdsm.virt.qemu_process import QemuProcess
from vdsm.virt.records import Phase
from vdsm.virt.recovery import Action, Decision, decide
from vdsm.virt.startup import run_after_start
from vdsm.virt.states import ExitReason, exit_for
from vdsm.virt.vm import Vm

log = logging.getLogger("vdsm.virt")

RETRY_S = 2.0
STORAGE_RETRY_FIRST_S, STORAGE_RETRY_LAST_S = 2.0, 60.0
EARLY_LIMIT = 100
_AT_ONCE = 16  # slices: the loop has others to serve

Make = Callable[[Decision], Vm]


class Recovery:
    def __init__(
        self,
        parts: Parts,
        vms: dict[str, Vm],
        make: Make,
        destroy: Callable[[Vm], Awaitable[None]],
        spawn: Callable[[Awaitable[None], str], object],
    ) -> None:
        """``make`` makes the owner of a VM; ``destroy`` ends and forgets it; ``spawn`` runs what goes on afterwards."""
        self._parts = parts
        self._vms = vms
        self._make = make
        self._destroy = destroy
        self._spawn = spawn
        self.problems: dict[str, str] = {}
        self._processes: Mapping[str, QemuProcess] = {}
        self._loaded = False
        self._early: dict[str, deque[VmEvent]] = {}
        self.external: list[Domain] = []

    async def first_phase(self) -> None:
        """Returns when every VM is there."""
        while True:
            try:
                await self._recover()
                return
            except (AgentError, OSError) as e:
                log.error("VMs can't be recovered yet: %s", e)
            except Exception:  # whatever it was: without VMs this host answers code 99, so it is tried again
                log.exception("VMs can't be recovered yet")
            await asyncio.sleep(RETRY_S)

    def hear(self, event: VmEvent) -> None:
        """Of a VM that is not there yet: it hears it once it is, because who ended a VM is said by an event only."""
        self._early.setdefault(event.vm_id, deque(maxlen=EARLY_LIMIT)).append(event)

    async def take_in(self, vm_id: str) -> None:
        """A domain of ours that runs and has no owner: somebody started it again after its VM was let go."""
        try:  # who was seen in a list may have been destroyed and let go while the list was made
            domain = await self._parts.hypervisor.domain(vm_id)
        except DomainMissing:
            return
        self._processes = await asyncio.to_thread(self._parts.processes)
        found = decide([], self._parts.records.unreadable, [domain]) if domain.active else []
        if not found or vm_id in self._vms:  # a VM.create that came meanwhile takes it over
            return
        log.error("VM %s runs, and nobody asked the agent to start it: it is taken over", domain.vm_id)
        self._parts.records.take_over(found[0].record)
        vm = self._vms[domain.vm_id] = self._make(found[0])
        try:
            await self._adopt(vm, found[0], domain)
        except BaseException:
            del self._vms[domain.vm_id]
            raise
        await self._reach_storage(vm)

    def second_phase(self) -> None:
        self._early.clear()  # what is left was of no VM of ours
        for vm in self._vms.values():
            if vm.launched and not vm.status.ending:
                self._spawn(self._reach_storage(vm), f"storage of VM {vm.vm_id}")

    async def _recover(self) -> None:
        if not self._loaded:  # once: a further attempt must not take from VMs that are there what was learnt since
            await asyncio.to_thread(self._parts.records.load)
            self._loaded = True
        records = self._parts.records.all()
        domains = await self._parts.hypervisor.domains()
        unreadable = self._parts.records.unreadable
        self._processes = await asyncio.to_thread(self._parts.processes)
        decisions = await asyncio.to_thread(decide, records, unreadable, domains)
        self.problems = dict(unreadable)
        left = [decision for decision in decisions if decision.record.vm_id not in self._vms]
        for first in range(0, len(left), _AT_ONCE):
            some = left[first : first + _AT_ONCE]
            results = await asyncio.gather(*(self._recover_one(decision) for decision in some), return_exceptions=True)
            for result in results:  # the others are there; a further attempt is for these only
                if isinstance(result, BaseException):
                    raise result
        ours = {decision.record.vm_id for decision in decisions}
        self.external = [domain for domain in domains if domain.vm_id not in ours]
        log.info("recovered %d VMs; %d domains are not ours", len(self._vms), len(self.external))

    async def _recover_one(self, decision: Decision) -> None:
        record = decision.record
        vm_id = record.vm_id
        if decision.problem:
            self.problems[vm_id] = decision.problem
            log.error("VM %s: %s", vm_id, decision.problem)
        if decision.action is Action.CLEAN:
            return  # the reconciler's
        if self._parts.records.get(vm_id) is None:
            self._parts.records.take_over(record)
        vm = self._make(decision)
        if decision.action is Action.ADOPT and decision.domain is not None:
            await self._adopt(vm, decision, decision.domain)
        elif decision.action is Action.RELEASE and self._runs_without_libvirt(decision):
            log.error("VM %s: libvirt does not know that its QEMU runs: it is left as it is", vm_id)
            vm.adopt_lost()
            await vm.change(forget=False)  # as of any VM that runs: a destroy that was cut off must be asked for again
            vm.tell()
        elif decision.action is Action.RELEASE:
            vm.end(decision.exit or exit_for(ExitReason.GENERIC_ERROR))
            if record.forget:
                self._spawn(self._finish_destroy(vm), f"destroy {vm_id}")
        else:
            vm.report_down()
            if not record.told:
                vm.tell()
                await vm.change(told=True)
        self._vms[vm_id] = vm
        for event in self._early.pop(vm_id, ()):
            vm.hear(event)
        log.info("VM %s: %s, reported as %s", vm_id, decision.action, vm.status.reported)

    def _runs_without_libvirt(self, decision: Decision) -> bool:
        if not lost.knows_nothing(decision.domain) or decision.record.phase is not Phase.RUNNING:
            return False
        process = decision.record.process or self._processes.get(decision.record.vm_id)
        return process is not None and qemu_process.lives(process)

    async def _adopt(self, vm: Vm, decision: Decision, domain: Domain) -> None:
        process = decision.record.process
        if process is None or not qemu_process.lives(process):
            process = self._processes.get(vm.vm_id)
        await vm.adopt(domain)
        # afterwards: when it is tried again, the record still says what the start has left to do
        await vm.change(phase=Phase.RUNNING, process=process, forget=False, exit=None, told=False)
        vm.tell()
        if decision.start_unfinished:
            self._spawn(run_after_start(self._parts, vm.hook_vm, domain.xml), f"after start {vm.vm_id}")

    async def _reach_storage(self, vm: Vm) -> None:
        pause_s = STORAGE_RETRY_FIRST_S
        while not vm.status.ending:
            try:
                await vm.reach_storage()
                return
            except (AgentError, OSError) as e:
                log.warning("VM %s: its storage is not there yet: %s", vm.vm_id, e)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, STORAGE_RETRY_LAST_S)

    async def _finish_destroy(self, vm: Vm) -> None:
        """The engine asked for the end before the agent died: forget the VM once it has ended."""
        try:
            await self._destroy(vm)
        except AgentError as e:
            log.error("VM %s: %s", vm.vm_id, e)
