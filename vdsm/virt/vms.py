# SPDX-License-Identifier: GPL-2.0-or-later
"""All VMs of the host: who is there, accepting new ones, finding them again, and forgetting them.

Timeline of a start of the agent: connect to libvirt; read records and domains; decide (`recovery`); take over
what runs, four at a time; from then on verbs about VMs are served. Until then they answer `Recovering`,
because a list that lacks a VM tells the engine that the VM has ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any

from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError, DeadlineExceeded, InvalidParameter
from vdsm.common.ids import check_uuid
from vdsm.common.paths import Paths
from vdsm.common.xml import InvalidXml, hide_secrets, parse, to_text
from vdsm.virt import report
from vdsm.virt.domain_xml.description import Description, describe
from vdsm.virt.domain_xml.errors import BadDomainXml
from vdsm.virt.domain_xml.placeholders import HostFacts
from vdsm.virt.errors import NoSuchVm, Recovering, VirtError, VmExists, VmIdDiffers
from vdsm.virt.hypervisor import Hypervisor, HypervisorEvent, Reconnected
from vdsm.virt.images import SharedImages
from vdsm.virt.parts import Parts
from vdsm.virt.ports import Hooks, HookVm, Images, Publisher
from vdsm.virt.reactions import react
from vdsm.virt.records import Phase, Record, Records, not_written
from vdsm.virt.recovery import Action, Decision, decide
from vdsm.virt.startup import adapt, run_after_start
from vdsm.virt.states import ExitReason, exit_for
from vdsm.virt.stats.sampler import PERIOD_S, Sampler
from vdsm.virt.stats.samples import Samples
from vdsm.virt.vm import Vm

log = logging.getLogger("vdsm.virt")

RECORDED = crash_point("vm.create.recorded", "the VM is on record, nothing of it was started")
FORGOTTEN = crash_point("vm.destroy.forgotten", "the record is gone, the caller has no answer yet")

_RECOVERY_WAIT_S = 10.0
_RETRY_S = 2.0
_LARGE_XML = 1 << 20  # takes a while to read, and the loop has others to serve


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
        start_slots: int = 4,
        stats_interval_s: float = PERIOD_S,
        host_root: str = "/",
    ) -> None:
        self._vms: dict[str, Vm] = {}
        self._records = Records(os.path.join(paths.state, "vms"))
        self._slots = asyncio.Semaphore(start_slots)
        self._parts = Parts(
            hypervisor, SharedImages(storage), hooks, events, self._records, facts, paths.run, host_root, self._slots
        )
        self._samples = Samples()
        self._sampler = Sampler(hypervisor, self._samples, self._running, period_s=stats_interval_s)
        self._recovered = asyncio.Event()
        self._recovery: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.problems: dict[str, str] = {}

    # Life of the part

    async def start(self) -> None:
        """Begin the recovery. It goes on in the background when libvirt does not answer at once."""
        await self._parts.hypervisor.start(self._hear)
        self._recovery = asyncio.create_task(self._recover_until_done(), name="vm recovery")
        await asyncio.wait([self._recovery], timeout=_RECOVERY_WAIT_S)

    async def stop(self) -> None:
        """VMs run on; starts and releases under way are found again by their records."""
        for task in [t for t in (self._recovery, *self._tasks) if t is not None and not t.done()]:
            task.cancel()
            await asyncio.wait([task])
        for vm in self._vms.values():
            vm.abandon()
        await self._sampler.stop()
        await self._records.stop()
        await self._parts.hypervisor.stop()

    @property
    def recovered(self) -> bool:
        return self._recovered.is_set()

    # Verbs

    async def create(self, vm_id: str, xml: str) -> Vm:
        """Accept a VM: it is on record and WaitForLaunch when this returns; the start goes on by itself.

        `InvalidParameter` (named xml), `VmIdDiffers` and `VmExists` refuse it, with nothing changed.
        """
        self._check_recovered()
        large = len(xml) > _LARGE_XML
        description, kept = await asyncio.to_thread(self._read_xml, xml) if large else self._read_xml(xml)
        if description.vm_id != check_uuid("vmID", vm_id):
            raise VmIdDiffers(vm_id, description.vm_id)
        if vm_id in self._vms:
            raise VmExists(vm_id, str(self._vms[vm_id].status.reported))
        images = tuple(dict.fromkeys(d.image for d in description.drives if d.image is not None))
        record = Record(vm_id=vm_id, name=description.name, phase=Phase.STARTING, xml=kept, images=images)
        vm = self._vms[vm_id] = Vm(self._parts, record, description, lambda: self._began(vm_id))
        try:
            await self._records.save(record)
        except BaseException as e:  # nothing was started: it is as if it had never come
            del self._vms[vm_id]
            if isinstance(e, OSError):
                raise not_written(record, e) from e
            raise
        RECORDED.reach()
        vm.begin(xml)
        return vm

    def _read_xml(self, xml: str) -> tuple[Description, str]:
        """What it describes, and the XML as it may be kept and shown: fitted to this host, without secrets."""
        try:
            root = parse(xml, what="it")
            description = describe(root)
            adapt(root, self._parts.facts)  # refuses what could only fail later
        except (InvalidXml, BadDomainXml, InvalidParameter) as e:
            raise InvalidParameter("xml", f"{len(xml)} characters", str(e)) from e
        hide_secrets(root)
        return description, to_text(root)

    async def destroy(self, vm_id: str, graceful_attempts: int = 1) -> None:
        """End and forget a VM; a Down one is only forgotten. Goes on when the caller leaves."""
        vm = self.get(vm_id)
        await asyncio.shield(self._spawn(self._destroy(vm, graceful_attempts), f"destroy {vm_id}"))

    def get(self, vm_id: str) -> Vm:
        self._check_recovered()
        vm = self._vms.get(vm_id)
        if vm is None:
            raise NoSuchVm(vm_id)
        return vm

    def all(self) -> list[Vm]:
        self._check_recovered()
        return list(self._vms.values())

    def stats(self, vm_id: str) -> dict[str, Any]:
        return report.stats(self.get(vm_id), self._samples)

    def describe(self, vm: Vm) -> dict[str, Any]:
        """As lists show it."""
        return report.brief(vm)

    def all_stats(self) -> list[dict[str, Any]]:
        return [report.stats(vm, self._samples) for vm in self.all()]

    async def _destroy(self, vm: Vm, graceful_attempts: int) -> None:
        await vm.destroy(graceful_attempts)
        FORGOTTEN.reach()
        if self._vms.get(vm.vm_id) is vm:
            del self._vms[vm.vm_id]
        self._samples.forget(vm.vm_id)
        self.problems.pop(vm.vm_id, None)

    def _began(self, vm_id: str) -> None:
        self._samples.watch(vm_id)
        self._sampler.soon()

    def _running(self) -> set[str]:
        return {vm_id for vm_id, vm in self._vms.items() if vm.launched and not vm.status.down}

    def _check_recovered(self) -> None:
        if not self._recovered.is_set():
            raise Recovering()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Events and recovery

    def _hear(self, event: HypervisorEvent) -> None:
        if isinstance(event, Reconnected):
            if self._recovered.is_set():
                self._spawn(self._look_at_all(), "look at all VMs")
            return
        vm = self._vms.get(event.vm_id)
        if vm is not None:
            react(vm, event)

    async def _look_at_all(self) -> None:
        """libvirt was away: what happened meanwhile is seen by looking, and each VM is told again."""
        await asyncio.gather(*(self._look_and_tell(vm) for vm in self._vms.values()))

    async def _look_and_tell(self, vm: Vm) -> None:
        await asyncio.wait([vm.look.soon()])
        if not vm.status.down and not vm.releasing:
            vm.publish()

    async def _recover_until_done(self) -> None:
        while True:
            try:
                await self._recover()
                break
            except (AgentError, OSError) as e:
                log.error("VMs can't be recovered yet: %s", e)
            except Exception:  # whatever it was: without VMs this host answers code 99, so it is tried again
                log.exception("VMs can't be recovered yet")
            await asyncio.sleep(_RETRY_S)
        self._recovered.set()
        self._sampler.start()

    async def _recover(self) -> None:
        records = self._records.load()
        domains = await self._parts.hypervisor.domains()
        decisions = decide(records, self._records.unreadable, domains)
        self.problems = dict(self._records.unreadable)
        left = [decision for decision in decisions if decision.record.vm_id not in self._vms]
        results = await asyncio.gather(*(self._recover_one(decision) for decision in left), return_exceptions=True)
        for result in results:  # the others are there; a further attempt is for these only
            if isinstance(result, BaseException):
                raise result
        await asyncio.gather(*(_look_once(vm) for vm in self._vms.values()))  # what ended since they were listed
        log.info("recovered %d VMs; %d domains are not ours", len(self._vms), len(domains) - len(decisions))

    async def _recover_one(self, decision: Decision) -> None:
        record = decision.record
        vm = Vm(self._parts, record, decision.description, lambda: self._began(record.vm_id))
        if decision.problem:
            self.problems[record.vm_id] = decision.problem
            log.error("VM %s: %s", record.vm_id, decision.problem)
        if decision.action is Action.ADOPT and decision.domain is not None:
            await self._adopt(vm, decision)
        elif decision.action is Action.RELEASE:
            vm.end(decision.exit or exit_for(ExitReason.GENERIC_ERROR))
            if record.forget:
                self._spawn(self._finish_destroy(vm), f"destroy {record.vm_id}")
        else:
            vm.report_down()
        self._vms[record.vm_id] = vm
        log.info("VM %s: %s, reported as %s", record.vm_id, decision.action, vm.status.reported)

    async def _adopt(self, vm: Vm, decision: Decision) -> None:
        if decision.domain is None:
            return
        async with self._slots:
            try:
                await self._parts.images.resume(vm.vm_id, vm.record.images)
            except (AgentError, OSError) as e:
                log.error("VM %s: its images: %s", vm.vm_id, e)
        vm.record.phase = Phase.RUNNING
        if vm.vm_id not in self._records.unreadable:
            await self._records.keep(vm.record)
        vm.adopt(decision.domain)
        vm.publish()
        self._began(vm.vm_id)
        if decision.start_unfinished:
            hook_vm = HookVm(vm.vm_id, dict(vm.description.metadata.custom))
            self._spawn(run_after_start(self._parts, hook_vm, decision.domain.xml), f"after start {vm.vm_id}")

    async def _finish_destroy(self, vm: Vm) -> None:
        """The engine asked for the end before the agent died: forget the VM once it has ended."""
        try:
            await self._destroy(vm, 0)
        except (VirtError, DeadlineExceeded) as e:
            log.error("VM %s: %s", vm.vm_id, e)


async def _look_once(vm: Vm) -> None:
    """Without an answer now, the look goes on by itself."""
    if not await vm.refresh():
        vm.look.soon()
