# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner of one VM: everything that changes it goes through here.

Changes by libvirt take the VM's lane, one at a time. Hooks run outside of the lane: while one runs, the
owner serves reads, cont, pause and destroy, because a hook may call back. Two tasks end by themselves
whatever happens to the caller: the start, and the release; the release always comes after the start.

A VM goes Down once, after its release, with the first exit that was offered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from vdsm.common.errors import AgentError, DeadlineExceeded
from vdsm.common.owners import Lane
from vdsm.common.xml import parse
from vdsm.virt import report
from vdsm.virt.domain_xml.description import Description, describe
from vdsm.virt.errors import DomainMissing, StartStopped, VirtError, VmIsDown, VmStarting
from vdsm.virt.hypervisor import Domain, DomainState
from vdsm.virt.look import Look
from vdsm.virt.parts import Parts
from vdsm.virt.ports import HookVm
from vdsm.virt.powerdown import Powerdown, PowerdownRequest, ways
from vdsm.virt.records import Phase, Record
from vdsm.virt.release import Release
from vdsm.virt.startup import Startup, runs_without_us
from vdsm.virt.states import Exit, ExitReason, PauseCode, VmState, exit_for, reason_of_off
from vdsm.virt.status import POWERING_DOWN_S, POWERING_UP_S, Status

log = logging.getLogger("vdsm.virt")


class Vm:
    def __init__(
        self, parts: Parts, record: Record, description: Description, changed: Callable[[], None] = lambda: None
    ) -> None:
        """``changed`` is called when the VM began to run: fresh statistics are wanted."""
        self.record = record
        self.description = description
        self.xml = record.xml
        self.status = Status(VmState.WAIT_FOR_LAUNCH)
        self.time_offset_s = 0
        self.powered_down = asyncio.Event()
        # what the next stop of the domain means: what was asked for, and what events told of the last one
        self.shutdown_reason: ExitReason | None = None
        self.stop_reason: ExitReason | None = None
        self.look = Look(record.vm_id, self.refresh)
        self.pause_reason = PauseCode.NO_ERROR
        self._parts = parts
        self._changed = changed
        self._lane = Lane(f"VM {record.vm_id}")
        self._stop = asyncio.Event()
        self._launched = False
        self._start: asyncio.Task[None] | None = None
        self._release: asyncio.Task[None] | None = None
        self._resuming = False
        self._powerdown = Powerdown(record.vm_id, self.powered_down, self._end_by_force)

    @property
    def vm_id(self) -> str:
        return self.record.vm_id

    @property
    def started_at_s(self) -> float | None:
        """Seconds since the epoch; a reboot is a start."""
        return self.record.started_at_s

    @property
    def launched(self) -> bool:
        """QEMU was started; from then on libvirt is the truth."""
        return self._launched

    @property
    def releasing(self) -> bool:
        return self._release is not None

    # Coming into being

    def begin(self, xml: str) -> None:
        """Start it from the engine's ``xml``, secrets included: only the start has them. The record is on disk."""
        self._start = asyncio.create_task(self._run_start(xml), name=f"start {self.vm_id}")

    def adopt(self, domain: Domain) -> None:
        """It runs already: take it over as it is."""
        self._launched = True
        self._see(domain)

    def report_down(self) -> None:
        """It is Down from before: report its exit, without an event."""
        self.status.go_down(self.record.exit or exit_for(ExitReason.GENERIC_ERROR, "The reason was not recorded"))

    async def _run_start(self, xml: str) -> None:
        try:
            await Startup(self._parts, self.record, self.description, self._stop, self._on_launched).run(xml)
        except StartStopped:
            self.end(exit_for(ExitReason.DESTROYED_ON_STARTUP))
        except AgentError as e:
            if await runs_without_us(self._parts.hypervisor, self.record):
                await self._take_over(e)
                return
            log.error("VM %s can't be started: %s", self.vm_id, e)
            self.end(exit_for(ExitReason.GENERIC_ERROR, str(e)))
        except Exception as e:  # whatever it was: what did not start must not stay half started, what runs runs on
            log.exception("VM %s: its start failed", self.vm_id)
            if self._launched:
                self.look.soon()
                return
            self.end(exit_for(ExitReason.GENERIC_ERROR, f"{type(e).__name__}: {e}"))

    async def _take_over(self, why: AgentError) -> None:
        """Somebody else started this VM of ours: to release the start would end a VM that runs."""
        log.error("VM %s is taken over as it is: %s", self.vm_id, why)
        self.record.phase = Phase.RUNNING
        await self._parts.records.keep(self.record)
        self._launched = True
        self.look.soon()
        self._changed()

    def _on_launched(self, domain: Domain) -> None:
        self._launched = True
        self.look.soon()  # what events told before now was not for a VM that runs
        if not domain.active:
            return
        self._see(domain)
        if self.description.agent_channel and not self.description.agent_connected:
            self.status.expect_guest(VmState.POWERING_UP, POWERING_UP_S)
        self.publish()
        self._changed()

    def abandon(self) -> None:
        """The agent ends: leave a start or an end as it is, for the next agent to find by the record."""
        self._powerdown.cancel()
        self.look.cancel()
        for task in (self._start, self._release):
            if task is not None:
                task.cancel()

    # What libvirt knows

    async def refresh(self) -> bool:
        """Look at the domain and take over what changed; one that does not run ends the VM. False: no answer."""
        if self._ends():
            return True
        told = self.stop_reason
        try:
            domain = await self._parts.hypervisor.domain(self.vm_id)
        except DomainMissing:
            domain = None
        except (VirtError, DeadlineExceeded) as e:
            log.warning("VM %s: %s", self.vm_id, e)
            return False
        if self._ends():  # meanwhile: what libvirt saw before is no news
            return True
        if domain is None or not domain.active:
            self.end(exit_for(_why_off(domain, self.stop_reason, self.shutdown_reason)))
            return True
        if self.stop_reason is told and domain.state is not DomainState.SHUTTING_DOWN:
            self.stop_reason = None  # of an earlier run, of a migration to here, of a reboot: it runs
        if self._see(domain):
            self.publish()
        return True

    def _ends(self) -> bool:
        return not self._launched or self.releasing or self.status.down

    def _see(self, domain: Domain) -> bool:
        """Take over XML and state. True when the state is news."""
        self.xml = domain.xml
        try:
            self.description = describe(parse(domain.xml, what=f"libvirt's XML of VM {self.vm_id}"))
        except AgentError as e:
            log.error("VM %s: %s; what was known before stays", self.vm_id, e)
        if domain.state is DomainState.PAUSED:
            paused_by_disk = self.pause_reason if self.pause_reason is not PauseCode.NO_ERROR else PauseCode.OTHER
            return self.status.pause(paused_by_disk if domain.reason == "ioerror" else PauseCode.NO_ERROR)
        return self.status.run()

    def publish(self) -> None:
        self._parts.events.publish("virt", "VM_status", self.vm_id, {self.vm_id: report.event(self)})

    # Verbs

    async def pause(self) -> None:
        self._check_running("pause")
        async with self._lane("pause"):
            if self.status.stored is not VmState.PAUSED:
                await self._parts.hypervisor.pause(self.vm_id)
        await self.refresh()

    async def cont(self) -> None:
        """Resume. While another resume of this VM waits for its hooks, that one does it."""
        self._check_running("resume")
        if self.status.stored is not VmState.PAUSED or self._resuming:
            return
        self._resuming = True
        try:
            await self._parts.hooks.run_xml("before_vm_cont", self.xml, vm=self._hook_vm())
            self._check_running("resume")
            async with self._lane("resume"):
                self.pause_reason = PauseCode.NO_ERROR
                await self._parts.hypervisor.resume(self.vm_id)
        finally:
            self._resuming = False
        await self.refresh()

    def shut_down(self, request: PowerdownRequest) -> None:
        """Begin the chain of `powerdown`; raises `NoPowerdownWay`."""
        self._check_running("shut down")
        description = self.description
        chosen = ways(self._parts.hypervisor, request, agent=description.agent_connected, acpi=description.acpi)
        self._powerdown.begin(chosen, request)
        if not request.reboot:
            self.shutdown_reason = ExitReason.ADMIN_SHUTDOWN
            self.status.expect_guest(VmState.POWERING_DOWN, POWERING_DOWN_S)
            self.publish()

    async def destroy(self, graceful_attempts: int = 1) -> None:
        """End it and forget it; done when this returns, and goes on when the caller leaves.

        `DestroyFailed` when QEMU can't be stopped: then nothing was torn down.
        """
        if not self.status.down:
            if not self.releasing:
                self._stop.set()
                await self._run_before_destroy()
            self.record.forget = True
            reason = ExitReason.ADMIN_SHUTDOWN if self._launched else ExitReason.DESTROYED_ON_STARTUP
            await asyncio.shield(self.end(exit_for(reason), graceful_attempts))
        await self._parts.images.release(self.vm_id, self.record.images)  # what could not be torn down before
        await self._parts.records.forget(self.vm_id)

    async def _end_by_force(self, request: PowerdownRequest) -> None:
        if request.reboot:
            async with self._lane("reset"):
                await self._parts.hypervisor.reset(self.vm_id)
        else:
            await asyncio.shield(self.end(exit_for(ExitReason.ADMIN_SHUTDOWN)))

    async def _run_before_destroy(self) -> None:
        try:
            await self._parts.hooks.run_xml("before_vm_destroy", self.xml, vm=self._hook_vm())
        except AgentError as e:
            log.error("VM %s: before_vm_destroy: %s", self.vm_id, e)

    # Going away

    def end(self, exit_: Exit, graceful_attempts: int = 0) -> asyncio.Task[None]:
        """Begin the release unless it runs; the task ends when the VM is Down. The first exit stands."""
        if self._release is None:
            self._stop.set()
            self.powered_down.set()
            self._release = asyncio.create_task(self._run_release(exit_, graceful_attempts), name=f"end {self.vm_id}")
            self._release.add_done_callback(_retrieved)
        return self._release

    async def _run_release(self, exit_: Exit, graceful_attempts: int) -> None:
        if self._start is not None:
            await asyncio.wait([self._start])
        if self.status.end():
            self.publish()
        try:
            async with self._lane("release"):
                release = Release(self._parts, self.record, self._hook_vm())
                await release.run(exit_, self.xml, graceful_attempts)
        except Exception as e:  # whatever it was, the next destroy or stop event tries again
            log.error("VM %s is not released: %s", self.vm_id, e, exc_info=not isinstance(e, AgentError))
            self._release = None
            raise
        if not self.record.forget:
            self.record.phase = Phase.DOWN
            await self._parts.records.keep(self.record)
        if self.status.go_down(exit_):
            self.publish()

    def _hook_vm(self) -> HookVm:
        return HookVm(self.vm_id, dict(self.description.metadata.custom))

    def _check_running(self, action: str) -> None:
        if self.status.down or self.releasing:
            raise VmIsDown(self.vm_id, action)
        if not self._launched:
            raise VmStarting(self.vm_id, action)


def _why_off(domain: Domain | None, told: ExitReason | None, asked: ExitReason | None) -> ExitReason:
    """``told``: by the last event of its end; ``asked``: what somebody wanted before."""
    if told is not None:
        return told
    if domain is not None and domain.reason in ("crashed", "migrated", "saved"):
        return reason_of_off(domain.reason)
    if asked is not None:
        return asked
    return ExitReason.DOMAIN_MISSING if domain is None else reason_of_off(domain.reason)


def _retrieved(task: asyncio.Task[None]) -> None:
    """The failure was logged where it happened; asyncio need not tell it again."""
    if not task.cancelled():
        task.exception()
