# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner of one VM: it holds the VM's state and its capabilities, and hands on what happens.

    libvirt's event -> event lane -> each capability that names it -> a look -> `sight` -> `Lifecycle.apply` -> told
    verb            -> the capability that has it -> libvirt, in the VM's turn -> a look

Nobody else changes the VM's state, and nothing changes it but a row of the table. Hooks run outside of the turn:
while one runs, the owner serves reads, cont, pause and destroy, because a hook may call back. Two tasks end by
themselves whatever happens to the caller: the start, and the release; the release always comes after the start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from vdsm.common.errors import AgentError
from vdsm.common.owners import Lane
from vdsm.common.xml import parse
from vdsm.virt import audit, report, sight
from vdsm.virt.capability import Capability, Json
from vdsm.virt.claims import Claims
from vdsm.virt.devices import Devices
from vdsm.virt.disks import Disks
from vdsm.virt.domain_xml.description import Description, describe
from vdsm.virt.ending import Ending
from vdsm.virt.errors import StartStopped, VmIsDown, VmStarting
from vdsm.virt.guest_agent import Agent
from vdsm.virt.hypervisor import Domain, DomainState, VmEvent
from vdsm.virt.jobs import VmJobs
from vdsm.virt.lifecycle import POWERING_UP_S, Cause, Change, Lifecycle
from vdsm.virt.look import Look
from vdsm.virt.lost import Lost
from vdsm.virt.mailbox import Mailbox
from vdsm.virt.parts import Parts
from vdsm.virt.ports import HookVm
from vdsm.virt.power import PowerButton
from vdsm.virt.records import Phase, Record
from vdsm.virt.running import Running
from vdsm.virt.startup import Startup, runs_without_us
from vdsm.virt.states import Exit, ExitReason, VmState, exit_for
from vdsm.virt.stops import Stops
from vdsm.virt.trouble import ResumeBehaviour
from vdsm.virt.watchdog import WatchdogDevice

log = logging.getLogger("vdsm.virt")


class Vm:
    """Implements `capability.Handle`."""

    def __init__(
        self, parts: Parts, record: Record, description: Description, began: Callable[[], None] = lambda: None
    ) -> None:
        """``began`` is called when the VM began to run: fresh statistics are wanted."""
        self.vm_id = record.vm_id
        self.description = description
        self.xml = record.xml
        self.status = Lifecycle()
        self.claims = Claims(record.vm_id)
        self.look = Look(record.vm_id, self._look_up, self._take)
        self.stopping = asyncio.Event()
        self._parts = parts
        self._last = record
        self._began = began
        self._turn = Lane(f"VM {record.vm_id}")
        self._mailbox = Mailbox(record.vm_id, parts.hook_slots)
        self.stands = False
        self.lost = Lost(self)
        self._launched = False
        self._start: asyncio.Task[None] | None = None
        # after_vm_start runs: the VM takes verbs, and is told as Up when that hook has ended
        self._starting = False
        self._given: audit.Given = {}
        self.ending = Ending(self, parts, self._stop)
        self.end_with_hook = self.ending.begin_with_hook
        self.running = Running(self, parts.hypervisor, parts.hooks, self._turn)
        self.disks = Disks(self, parts.images, parts.hypervisor)
        self.agent = Agent(self, parts.hypervisor)
        self.power = PowerButton(self, parts.hypervisor, self.agent, self.running, self._turn)
        self.stops = Stops(self)
        self.resume_behaviour = ResumeBehaviour(self, self.running, parts.hook_slots)
        # in the order in which they hear, recover and report
        self._capabilities: tuple[Capability, ...] = (
            self.disks,
            self.stops,
            self.agent,
            self.power,
            self.running,
            self.resume_behaviour,
            WatchdogDevice(self),
            Devices(self),
            VmJobs(self, {}),
        )

    # What others see

    @property
    def record(self) -> Record:
        """As it was last: also after it was forgotten."""
        self._last = self._parts.records.get(self.vm_id) or self._last
        return self._last

    @property
    def hook_vm(self) -> HookVm:
        return HookVm(self.vm_id, dict(self.description.metadata.custom))

    @property
    def started_at_s(self) -> float | None:
        """Seconds since the epoch; a reboot is a start."""
        return self.record.started_at_s

    @property
    def time_offset_s(self) -> int:
        """The guest's clock against the host's, as the next start is to have it."""
        offset_s = self.record.time_offset_s
        return self.description.clock_offset_s if offset_s is None else offset_s

    @property
    def launched(self) -> bool:
        """QEMU was started; from then on libvirt is the truth."""
        return self._launched

    def report(self) -> Json:
        """What the capabilities report, for the VM's statistics."""
        return {key: value for capability in self._capabilities for key, value in capability.report().items()}

    def check_running(self, action: str) -> None:
        if self.stopping.is_set() or self.status.ending:
            raise VmIsDown(self.vm_id, action)
        if not self._launched:
            raise VmStarting(self.vm_id, action)

    async def change(self, **fields: Any) -> None:
        """Change the record; a VM that was forgotten meanwhile stays so."""
        if self._parts.records.get(self.vm_id) is not None:
            self._last = await self._parts.records.change(self.vm_id, **fields)

    def tell(self) -> None:
        """Publish the state as it is now."""
        told = report.event(self) | self.disks.told()
        self._parts.events.publish("virt", "VM_status", self.vm_id, {self.vm_id: told})

    def end(self, exit_: Exit, graceful_attempts: int = 0) -> asyncio.Task[None]:
        return self.ending.begin(exit_, graceful_attempts)

    # Coming into being

    def begin(self, xml: str) -> None:
        """Start it from the engine's ``xml``, secrets included: only the start has them. The record is on disk."""
        if self.stopping.is_set():
            return
        self._start = asyncio.create_task(self._run_start(xml), name=f"start {self.vm_id}")
        self.ending.after(self._start)

    async def adopt(self, domain: Domain) -> None:
        """It runs already, as ``domain`` and the description say: take it over before any verb is answered."""
        self._launched = True
        self._given = audit.of(self.description)  # it ran before we came: no news
        self.xml = domain.xml
        self._read(domain)
        for capability in self._capabilities:
            await capability.recover(domain)
        self._apply(sight.judge(domain, self.disks.trouble, self.status.stored, self.claims))

    async def reach_storage(self) -> None:
        """The second phase of recovery; raises what it must be tried again for."""
        for capability in self._capabilities:
            await capability.reach_storage()

    def adopt_lost(self) -> None:
        """It runs, and libvirt does not know it: it is shown, and looked for."""
        self._launched = self.lost.now = True
        self.status.apply(Cause.RUNS)

    def report_down(self) -> None:
        """It is Down from before: report its exit."""
        self.status.apply(Cause.ENDS)
        exit_ = self.record.exit or exit_for(ExitReason.GENERIC_ERROR, "The reason was not recorded")
        self.status.apply(Cause.GONE, exit_=exit_)

    def abandon(self) -> None:
        """The agent ends: leave a start or an end as it is, for the next agent to find by the record."""
        self.look.close()
        self._mailbox.close()
        self.ending.abandon()
        for capability in self._capabilities:
            capability.close()

    async def _run_start(self, xml: str) -> None:
        try:
            startup = Startup(self._parts, self.record, self.description, self.stopping, self._on_launched)
            await startup.run(xml)
        except StartStopped:
            self.end(exit_for(ExitReason.DESTROYED_ON_STARTUP))
        except AgentError as e:
            if await runs_without_us(self._parts.hypervisor, self.record):
                log.error("VM %s is taken over as it is, somebody else started it: %s", self.vm_id, e)
                await self.change(phase=Phase.RUNNING)
                self._launched = True
            else:
                log.error("VM %s can't be started: %s", self.vm_id, e)
                self.end(exit_for(ExitReason.GENERIC_ERROR, str(e)))
        except Exception as e:  # whatever it was: what did not start must not stay half started, what runs runs on
            log.exception("VM %s: its start failed", self.vm_id)
            if not self._launched:
                self.end(exit_for(ExitReason.GENERIC_ERROR, f"{type(e).__name__}: {e}"))
        self._starting = False
        if self._launched:
            self.look.soon()

    def _on_launched(self, domain: Domain) -> None:
        self._launched = self._starting = True
        if domain.active:
            self._read(domain)
        self.look.soon()  # what events told before now was not for a VM that runs
        self._began()

    # What happens to it

    def hear(self, event: VmEvent) -> None:
        """An event of libvirt: it says that something happened; what is, a look finds."""
        if self.ending.begun:
            return
        reactions = [hears[type(event)] for c in self._capabilities if type(event) in (hears := c.hears())]

        async def react() -> None:
            for reaction in reactions:
                await reaction(event)

        if not self._mailbox.event(type(event).__name__, react):
            log.error("VM %s: too many events: %s is left out", self.vm_id, event)
            self.look.soon()

    async def _look_up(self, vm_id: str) -> Domain:
        return await self._parts.hypervisor.domain(vm_id)

    def _take(self, domain: Domain | None, number: int) -> None:
        """What a look found."""
        if not self._launched or self.ending.begun:
            return
        seen = sight.judge(domain, self.disks.trouble, self.status.stored, self.claims)
        if self.lost.check(domain):
            return
        if seen.ended or domain is None:
            self.end(sight.exit_of(domain, self.record))
            return
        self._read(domain)
        if seen.cause is not None:
            self._mailbox.event("it is there", lambda: self.stops.runs(number))
        if seen.cause is Cause.RUNS:
            self._mailbox.event("it runs", lambda: self.disks.runs(number))
        elif domain.reason == "ioerror":
            self._mailbox.event("a disk has paused it", self.disks.unheard)
        if self._starting:
            return
        change = self._apply(seen)
        if change is not None and change.news:
            self.tell()

    def _apply(self, seen: sight.Sight) -> Change | None:
        if seen.cause is None:
            return None
        change = self.status.apply(seen.cause, code=seen.code)
        if change is None:
            return None
        if change.before is VmState.WAIT_FOR_LAUNCH and self.description.agent_channel and not self.agent.connected:
            self.status.expect_guest(VmState.POWERING_UP, POWERING_UP_S)
        if (change.before, change.after) == (VmState.UP, VmState.PAUSED):
            self._mailbox.hook("after_vm_pause", self._after_pause)
        elif (change.before, change.after) == (VmState.PAUSED, VmState.UP):
            self._mailbox.hook("after_vm_cont", self._after_cont)
        return change

    def _read(self, domain: Domain) -> None:
        self.stands = domain.state is not DomainState.RUNNING
        if domain.xml == self.xml:
            return
        self.xml = domain.xml
        try:
            self.description = describe(parse(domain.xml, what=f"libvirt's XML of VM {self.vm_id}"))
        except AgentError as e:
            log.error("VM %s: %s; what was known before stays", self.vm_id, e)
            return
        self._given = audit.record(self.vm_id, self._given, self.description)

    async def _after_pause(self) -> None:
        await self._parts.hooks.run_xml("after_vm_pause", self.xml, vm=self.hook_vm)

    async def _after_cont(self) -> None:
        await self._parts.hooks.run_xml("after_vm_cont", self.xml, vm=self.hook_vm)

    def _stop(self) -> None:
        """Its end begins: no more verbs, and nothing of it goes on but the release."""
        self.stopping.set()
        for capability in self._capabilities:
            capability.close()
