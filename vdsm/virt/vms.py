# SPDX-License-Identifier: GPL-2.0-or-later
"""All VMs of the host: who is there, accepting new ones, handing on what happens to them, and forgetting them.

Timeline of a start of the agent: connect to libvirt; `recover`, first phase; from then on verbs about VMs are served,
and statistics, the reconciler and the second phase of the recovery run.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from vdsm.common.crashpoints import crash_point
from vdsm.common.encoded import Encoded, as_list, encode
from vdsm.common.ids import check_uuid
from vdsm.common.paths import Paths
from vdsm.virt import accept, host_shutdown, qemu_process, report
from vdsm.virt.background import Background
from vdsm.virt.domain_xml.placeholders import HostFacts
from vdsm.virt.errors import NoSuchVm, Recovering, VmExists, VmIdDiffers
from vdsm.virt.external import ExternalVm, ExternalVms
from vdsm.virt.host_shutdown import HostShutdown
from vdsm.virt.hypervisor import DomainState, Hypervisor, HypervisorEvent, Reconnected
from vdsm.virt.images import SharedImages
from vdsm.virt.parts import Parts
from vdsm.virt.ports import Hooks, Images, Publisher
from vdsm.virt.qemu_process import QemuProcess
from vdsm.virt.reconcile import PERIOD_S as RECONCILE_S
from vdsm.virt.reconcile import Reconciler
from vdsm.virt.records import Store
from vdsm.virt.recover import Recovery
from vdsm.virt.recovery import Decision
from vdsm.virt.slots import Slots, fitting
from vdsm.virt.stats.answers import Answers
from vdsm.virt.stats.sampler import PERIOD_S, Sampler
from vdsm.virt.stats.samples import Samples
from vdsm.virt.vm import Vm

log = logging.getLogger("vdsm.virt")

RECORDED = crash_point("vm.create.recorded", "the VM is on record, nothing of it was started")
FORGOTTEN = crash_point("vm.destroy.forgotten", "the record is gone, the caller has no answer yet")

_RECOVERY_WAIT_S = 10.0
_HOOKS_AT_ONCE = 8


class Vms:
    def __init__(
        self,
        *,
        paths: Paths,
        storage: Images,
        hooks: Hooks,
        events: Publisher,
        hypervisor: Hypervisor,
        facts: HostFacts,
        start_slots: int = 0,
        stats_interval_s: float = PERIOD_S,
        reconcile_s: float = RECONCILE_S,
        host_root: str = "/",
        processes: Callable[[], Mapping[str, QemuProcess]] = qemu_process.find_all,
        host_goes_down: Callable[[], Awaitable[bool]] = host_shutdown.ask,
    ) -> None:
        """``start_slots``: VMs that are launched at once; 0 for what suits the host."""
        self._vms: dict[str, Vm] = {}
        # whose records are on their way to the disk; set when that is decided
        self._accepting: dict[str, asyncio.Event] = {}
        self._host_shutdown = HostShutdown(host_goes_down)
        self._parts = Parts(
            hypervisor,
            SharedImages(storage),
            hooks,
            events,
            Store(os.path.join(paths.state, "vms")),
            facts,
            paths.run,
            host_root,
            Slots(start_slots or fitting()),
            asyncio.Semaphore(_HOOKS_AT_ONCE),
            self._host_shutdown,
            processes,
        )
        self._external = ExternalVms(hypervisor, self._found_ours)
        self._samples = Samples()
        self._answers = Answers(self._samples)
        self._sampler = Sampler(
            hypervisor, self._samples, self._answers, self._running, seen=self._seen, period_s=stats_interval_s
        )
        self._background = Background()
        self._recovery = Recovery(
            self._parts, self._vms, self._recovered_vm, lambda vm: self._destroy(vm, 0), self._background.spawn
        )
        self._reconciler = Reconciler(self._parts, self._vms, period_s=reconcile_s)
        self._recovered = asyncio.Event()
        self._let_go = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    # Life of the part

    async def start(self) -> None:
        """Begin the recovery. It goes on in the background when libvirt does not answer at once."""
        await self._parts.hypervisor.start(self._hear)
        self._starting = asyncio.create_task(self._start(), name="vm recovery")
        await asyncio.wait([self._starting], timeout=_RECOVERY_WAIT_S)

    async def stop(self) -> None:
        """VMs run on; starts and releases under way are found again by their records."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        await self._background.stop()
        await self._reconciler.stop()
        for vm in self._vms.values():
            vm.abandon()
        self._external.close()
        await self._sampler.stop()
        await self._parts.records.stop()
        await self._parts.hypervisor.stop()

    async def farewell(self) -> None:
        """When the host goes down: stay until the engine has let go of every VM, for a while."""
        await self._host_shutdown.farewell(lambda: len(self._vms), self._let_go)

    async def _start(self) -> None:
        await self._recovery.first_phase()
        self._external.take(self._recovery.external)
        self._recovered.set()
        for vm in self._vms.values():
            vm.look.soon()  # what ended since they were listed
        self._background.spawn(self._external.look_at_all(), "look at external VMs")  # also of those
        self._recovery.second_phase()
        self._sampler.start()
        self._reconciler.start()

    @property
    def recovered(self) -> bool:
        return self._recovered.is_set()

    @property
    def problems(self) -> dict[str, str]:
        """What of which VM could not be understood."""
        return self._recovery.problems

    # Verbs

    async def create(self, vm_id: str, xml: str) -> Vm:
        """Accept a VM: it is on record and WaitForLaunch when this returns; the start goes on by itself.

        `InvalidParameter` (named xml), `VmIdDiffers`, `VmExists`, `ForeignDomain` and `VmCallsHang` (of its earlier
        life) refuse it, with nothing changed.
        """
        self._check_recovered()
        description, kept = await accept.read(xml, self._parts.facts)
        if description.vm_id != check_uuid("vmID", vm_id):
            raise VmIdDiffers(vm_id, description.vm_id)
        if vm_id in self._vms:
            raise VmExists(vm_id, str(self._vms[vm_id].status.reported))
        self._external.refuse(vm_id)
        self._parts.hypervisor.check_free(vm_id)
        record = accept.record(description, kept, self._parts.records.get(vm_id))
        vm = self._vms[vm_id] = Vm(self._parts, record, description, lambda: self._began(vm_id))
        accepted = self._accepting[vm_id] = asyncio.Event()
        try:
            await self._parts.records.create(record)
        except BaseException:  # nothing was started: it is as if it had never come
            self._vms.pop(vm_id).abandon()
            raise
        finally:
            del self._accepting[vm_id]
            accepted.set()
        RECORDED.reach()
        vm.begin(xml)
        return vm

    async def destroy(self, vm_id: str, graceful_attempts: int = 1) -> None:
        """End and forget a VM; a Down one is only forgotten. Goes on when the caller leaves."""
        vm = self.get(vm_id)
        await asyncio.shield(self._background.spawn(self._destroy(vm, graceful_attempts), f"destroy {vm_id}"))

    def get(self, vm_id: str) -> Vm:
        """Raises `NoSuchVm`, `ForeignDomain`, `Recovering`."""
        self._check_recovered()
        vm = self._vms.get(vm_id)
        if vm is not None:
            return vm
        self._external.refuse(vm_id)
        raise NoSuchVm(vm_id)

    def all(self) -> list[Vm]:
        self._check_recovered()
        return list(self._vms.values())

    def brief(self) -> list[dict[str, Any]]:
        """All VMs as lists show them, also those that are not ours."""
        return [report.brief(vm) for vm in self.all()] + [vm.brief() for vm in self._others()]

    def encoded_stats(self, vm_id: str) -> Encoded:
        """As `stats`, in a list of one."""
        vm = self._vms.get(vm_id) if self.recovered else None
        return as_list([self._answers.one(vm) if vm is not None else encode(self.stats(vm_id))])

    async def all_encoded_stats(self) -> Encoded:
        """As `all_stats`."""
        ours = await self._answers.all(self.all())
        return as_list([*ours, *(encode(vm.stats()) for vm in self._others())])

    def stats(self, vm_id: str) -> dict[str, Any]:
        external = self._external.get(vm_id)
        if external is not None and vm_id not in self._vms:
            return external.stats()
        return report.stats(self.get(vm_id), self._samples)

    def all_stats(self) -> list[dict[str, Any]]:
        ours = [report.stats(vm, self._samples) for vm in self.all()]
        return ours + [vm.stats() for vm in self._others()]

    def _others(self) -> list[ExternalVm]:
        """An id stands once in a list, also where somebody gave a domain that of a VM of ours."""
        return [vm for vm in self._external.all() if vm.vm_id not in self._vms]

    def storage_is_back(self, domain_id: str) -> None:
        """A storage domain became valid: VMs that it had paused may go on."""
        for vm in self._vms.values():
            if vm.resume_behaviour.uses(domain_id):
                self._background.spawn(vm.resume_behaviour.storage_is_back(), f"resume {vm.vm_id}")

    async def _destroy(self, vm: Vm, graceful_attempts: int) -> None:
        if (accepted := self._accepting.get(vm.vm_id)) is not None:
            await accepted.wait()
            if self._vms.get(vm.vm_id) is not vm:
                raise NoSuchVm(vm.vm_id)
        was_down = vm.status.down
        await vm.ending.destroy(graceful_attempts)
        FORGOTTEN.reach()
        if self._vms.get(vm.vm_id) is vm:
            del self._vms[vm.vm_id]
        self._let_go.set()
        vm.abandon()
        self._samples.forget(vm.vm_id)
        self.problems.pop(vm.vm_id, None)
        if was_down:  # somebody may have started it again behind us, and a Down VM hears nothing
            self._external.hear(vm.vm_id)

    def _began(self, vm_id: str) -> None:
        self._samples.watch(vm_id)
        self._sampler.soon()

    def _running(self) -> dict[str, Vm]:
        return {vm_id: vm for vm_id, vm in self._vms.items() if vm.launched and not vm.status.down}

    def _seen(self, vm_id: str, _state: DomainState | None, _reason: str) -> None:
        """libvirt has it in another state than we do, or not at all."""
        if (vm := self._vms.get(vm_id)) is not None:
            vm.look.soon()

    def _found_ours(self, vm_id: str) -> None:
        """A domain of ours runs, and maybe nobody here has it."""
        if vm_id not in self._vms and self._recovered.is_set():
            self._background.spawn(self._recovery.take_in(vm_id), f"take in {vm_id}")

    def _check_recovered(self) -> None:
        if not self._recovered.is_set():
            raise Recovering()

    def _recovered_vm(self, decision: Decision) -> Vm:
        vm_id = decision.record.vm_id
        vm = Vm(self._parts, decision.record, decision.description, lambda: self._began(vm_id))
        self._began(vm_id)
        return vm

    # Events

    def _hear(self, event: HypervisorEvent) -> None:
        if not isinstance(event, Reconnected):
            vm = self._vms.get(event.vm_id)
            if vm is not None:
                vm.hear(event)
            elif self._recovered.is_set():
                self._external.hear(event.vm_id)
            else:
                self._recovery.hear(event)
        elif self._recovered.is_set():
            self._background.spawn(self._look_at_all(), "look at all VMs")

    async def _look_at_all(self) -> None:
        """libvirt was away: what happened meanwhile is seen by looking, and each VM is told again."""
        for vm in list(self._vms.values()):
            vm.look.at_once()
        await asyncio.gather(*(self._look_and_tell(vm) for vm in self._vms.values()))
        await self._external.look_at_all()

    async def _look_and_tell(self, vm: Vm) -> None:
        if await vm.look.fresh() and vm.launched and not vm.status.ending:
            vm.tell()
