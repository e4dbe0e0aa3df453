# SPDX-License-Identifier: GPL-2.0-or-later
"""From an accepted domain XML to a running QEMU, step by step.

    record `starting` -> images prepared -> before_vm_start -> the host has what the XML names -> slot
    -> record `launching` -> defined -> QEMU started -> record `running` -> after_vm_start -> the VM is Up

From the moment that QEMU runs the VM takes pause, resume and destroy: after_vm_start may call back.
Someone may destroy the VM meanwhile: that is looked at between the steps, and a running hook is killed.
A step itself is never interrupted. Nothing is undone here: whatever fails, the owner releases the VM,
and the record says what there is to release.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

from lxml import etree

from vdsm.common.clocks import Clock
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError, DeadlineExceeded
from vdsm.common.xml import parse, to_text
from vdsm.virt import host_objects, qemu_process
from vdsm.virt.domain_xml.description import Description, is_ours, read_vm_id
from vdsm.virt.domain_xml.drives import Source, set_source
from vdsm.virt.domain_xml.errors import BadDomainXml
from vdsm.virt.domain_xml.machine import fit_to_emulation, keep_through_reboot
from vdsm.virt.domain_xml.metadata import write_value
from vdsm.virt.domain_xml.named import read_named
from vdsm.virt.domain_xml.placeholders import HostFacts, fill_placeholders
from vdsm.virt.errors import DomainMissing, ForeignDomain, StartStopped, StillRuns, VirtError, VmExists
from vdsm.virt.hypervisor import Domain, Hypervisor
from vdsm.virt.launch_flags import START_PAUSED, LaunchFlags
from vdsm.virt.parts import Parts
from vdsm.virt.ports import HookVm
from vdsm.virt.records import Phase, Record
from vdsm.virt.recovery import is_foreign

log = logging.getLogger("vdsm.virt")

T = TypeVar("T")

DRIVE_PREPARED = crash_point("vm.create.drive", "an image is prepared, the others are not")
PREPARED = crash_point("vm.create.prepared", "all images are prepared, no hook has run")
HOOKED = crash_point("vm.create.hooked", "before_vm_start has run, the record still says starting")
LAUNCHING = crash_point("vm.create.launching", "the record says launching, libvirt has no domain")
DEFINED = crash_point("vm.create.defined", "the domain is defined, QEMU was not started")
LAUNCHED = crash_point("vm.create.launched", "QEMU runs, the record still says launching")
RUNNING = crash_point("vm.create.running", "the record says running, after_vm_start has not run")


def adapt(root: etree._Element, facts: HostFacts) -> None:
    """Make the engine's XML this host's: placeholders, domain type, what a reboot means."""
    fill_placeholders(root, facts)
    if not facts.kvm:
        fit_to_emulation(root)
    if keep_through_reboot(root):
        write_value(root, "destroy_on_reboot", True)


async def run_after_start(parts: Parts, hook_vm: HookVm, xml: str) -> None:
    """The hook after a start; its failure is told but changes nothing (hooks.md §2.2)."""
    try:
        await parts.hooks.run_xml("after_vm_start", xml, vm=hook_vm)
    except AgentError as e:
        log.error("VM %s: after_vm_start: %s", hook_vm.vm_id, e)
    LaunchFlags(parts.run_folder, hook_vm.vm_id).remove()


class Startup:
    def __init__(
        self,
        parts: Parts,
        record: Record,
        description: Description,
        stop: asyncio.Event,
        launched: Callable[[Domain], None],
    ) -> None:
        """``stop`` is set when the VM must not start any more; ``launched`` is told when QEMU runs."""
        self._launched = launched
        self._parts = parts
        self._record = record
        self._description = description
        self._stop = stop
        self._flags = LaunchFlags(parts.run_folder, record.vm_id)
        self._hook_vm = HookVm(record.vm_id, dict(description.metadata.custom))

    async def run(self, xml: str) -> None:
        """``xml`` is the engine's. Raises `StartStopped` when the VM was destroyed meanwhile."""
        with Clock("VM.create", self._record.vm_id) as clock:
            await self._run(xml, clock)

    async def _run(self, xml: str, clock: Clock) -> None:
        root = parse(xml, what=f"the domain XML of VM {self._record.vm_id}")
        adapt(root, self._parts.facts)
        with clock.step("prepare"):
            await self._prepare(root)
        PREPARED.reach()
        with clock.step("before_vm_start"):
            xml = await self._before_start(root)
        HOOKED.reach()
        self._check_not_stopped()
        domain = await self._in_slot(xml, clock)
        self._launched(domain)
        with clock.step("after_vm_start"):
            await self._unless_stopped(run_after_start(self._parts, self._hook_vm, domain.xml))

    async def _in_slot(self, xml: str, clock: Clock) -> Domain:
        with clock.step("slot"):
            slot = await self._unless_stopped(self._parts.slots.take())
        try:
            with clock.step("libvirt"):
                return await self._launch(xml)
        finally:
            slot.give_back()

    async def _prepare(self, root: etree._Element) -> None:
        for drive in self._description.drives:
            if drive.image is None:
                continue
            self._check_not_stopped()
            prepared = await self._parts.images.prepare(self._record.vm_id, drive.image)
            set_source(root, drive.target, Source(prepared.path, prepared.kind, prepared.format))
            DRIVE_PREPARED.reach()

    async def _before_start(self, root: etree._Element) -> str:
        write_value(root, "startTime", time.time())
        self._flags.write(START_PAUSED if self._description.metadata.launch_paused else 0)
        before = to_text(root)
        hooks = self._parts.hooks
        xml = await self._unless_stopped(hooks.run_xml("before_vm_start", before, vm=self._hook_vm))
        if xml != before:
            self._check_rewritten(xml)
        return xml

    def _check_rewritten(self, xml: str) -> None:
        root = parse(xml, what="the domain XML that the before_vm_start hooks left")
        if read_vm_id(root) != self._record.vm_id:
            raise BadDomainXml("uuid", "a before_vm_start hook changed it")
        if not is_ours(root):
            raise BadDomainXml("metadata", "a before_vm_start hook removed the VM's metadata")

    async def _launch(self, xml: str) -> Domain:
        hypervisor, vm_id = self._parts.hypervisor, self._record.vm_id
        flags = self._flags.read()
        named = read_named(parse(xml, what=f"the domain XML of VM {vm_id}"))
        await host_objects.check(hypervisor, named, root=self._parts.host_root)
        await self._make_way()
        # without it a new agent would take what runs for a start that never got so far, and end it
        await self._parts.records.commit(vm_id, phase=Phase.LAUNCHING)
        LAUNCHING.reach()
        await hypervisor.define(xml)
        DEFINED.reach()
        self._check_not_stopped()
        domain = await hypervisor.launch(vm_id, flags)
        LAUNCHED.reach()
        process = await self._parts.process_of(vm_id)
        await self._parts.records.change(vm_id, phase=Phase.RUNNING, started_at_s=time.time(), process=process)
        RUNNING.reach()
        return domain

    async def _make_way(self) -> None:
        """Remove a stale definition of ours; refuse what runs and what is not ours."""
        vm_id = self._record.vm_id
        try:
            old = await self._parts.hypervisor.domain(vm_id)
        except DomainMissing:
            await self._check_no_process()
            return
        if not is_ours(parse(old.xml, what=f"libvirt's XML of domain {vm_id}")):
            raise ForeignDomain(vm_id, old.name)
        if old.active:
            raise VmExists(vm_id, str(old.state))
        await self._check_no_process()
        await self._parts.hypervisor.undefine(vm_id)

    async def _check_no_process(self) -> None:
        """A QEMU that libvirt has lost, or could not kill, has the disks open as well."""
        process = await self._parts.process_of(self._record.vm_id)
        if process is not None and qemu_process.lives(process):
            raise StillRuns(self._record.vm_id, process.pid)

    def _check_not_stopped(self) -> None:
        if self._stop.is_set():
            raise StartStopped(self._record.vm_id)

    async def _unless_stopped(self, work: Coroutine[object, object, T]) -> T:
        """Await ``work``; when the VM is destroyed first, cancel it and raise `StartStopped`."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
                raise StartStopped(self._record.vm_id)
            return task.result()
        finally:
            stopped.cancel()
            task.cancel()


async def runs_without_us(hypervisor: Hypervisor, record: Record) -> bool:
    """A start that failed before libvirt was asked started nothing: what runs is somebody else's."""
    if record.phase is not Phase.STARTING:
        return False
    try:
        domain = await hypervisor.domain(record.vm_id)
    except (VirtError, DeadlineExceeded):  # a release looks again
        return False
    return domain.active and not is_foreign(domain)
