# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a VM, however it came: QEMU gone, domain undefined, images torn down, hook run.

    record `releasing` with the exit -> QEMU stopped, its process proven gone -> undefined -> images torn down
    -> after_vm_destroy -> record `down`, or no record when the engine asked for the end

Each step is harmless when it was done before, so an interrupted release is run again from its start. Only
QEMU that can't be stopped fails a release: tearing images down under a running guest would destroy data. QEMU that we
started is ours whatever somebody did to the XML of its domain; a definition without our metadata is left alone. A
domain whose memory somebody saved with libvirt's own tools is not undefined before the engine has let the VM go: that
deletes the saved state, and to restore it later, when the VM ran elsewhere, would ruin its disks.
"""

from __future__ import annotations

import asyncio
import logging

from vdsm.common.clocks import Clock
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError, DeadlineExceeded
from vdsm.virt import qemu_process
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.errors import DestroyFailed, DomainMissing, HypervisorError, VirtError
from vdsm.virt.hypervisor import Domain
from vdsm.virt.launch_flags import LaunchFlags
from vdsm.virt.parts import Parts
from vdsm.virt.ports import HookVm
from vdsm.virt.records import Phase, Record
from vdsm.virt.recovery import is_foreign
from vdsm.virt.states import Exit

log = logging.getLogger("vdsm.virt")

RECORDED = crash_point("vm.destroy.recorded", "the end is recorded, QEMU still runs")
STOPPED = crash_point("vm.destroy.stopped", "QEMU is gone, its domain is still defined")
UNDEFINED = crash_point("vm.destroy.undefined", "libvirt has forgotten the VM, its images are prepared")
TORN_DOWN = crash_point("vm.destroy.torn_down", "images are torn down, the record still says releasing")
ENDED = crash_point("vm.destroy.ended", "all is done but the record's last word")

GONE_S = 10.0  # for a process that libvirt has let go
_LOOKS = 4


async def remove_saved(parts: Parts, vm_id: str) -> None:
    """The engine has let the VM go: the definition goes that was kept for its saved memory."""
    try:
        domain = await parts.hypervisor.domain(vm_id)
        if not domain.active and domain.reason == "saved" and not is_foreign(domain):
            await parts.hypervisor.undefine(vm_id)
    except DomainMissing:
        return
    except (VirtError, DeadlineExceeded) as e:  # the next agent reports it as Down, and is told to destroy it
        log.error("VM %s: its definition with the saved memory stays: %s", vm_id, e)


class Release:
    def __init__(self, parts: Parts, record: Record, hook_vm: HookVm) -> None:
        """``record`` is the VM's as the release begins."""
        self._parts = parts
        self._record = record
        self._vm_id = record.vm_id
        self._hook_vm = hook_vm

    async def run(self, exit_: Exit, xml: str, graceful_attempts: int) -> list[ImageId]:
        """The images that could not be torn down; all else is done, or logged and gone past.

        Raises `DestroyFailed` when QEMU can't be stopped: then nothing was torn down.
        """
        records = self._parts.records
        with Clock("VM.release", self._vm_id) as clock:
            await records.change(self._vm_id, phase=Phase.RELEASING, exit=exit_)
            RECORDED.reach()
            with clock.step("qemu"):
                await self._remove_domain(graceful_attempts)
            with clock.step("teardown"):
                left = await self._parts.images.release(self._vm_id, self._record.images)
            TORN_DOWN.reach()
            with clock.step("after_vm_destroy"):
                await self._after_destroy(xml)
            await asyncio.to_thread(LaunchFlags(self._parts.run_folder, self._vm_id).remove_folder)
            ENDED.reach()
            return left

    async def _remove_domain(self, graceful_attempts: int) -> None:
        """Stop and undefine the domain, if there is one and it is ours.

        libvirt may still be busy with a start that a killed agent asked for: so look until nothing is left.
        """
        hypervisor = self._parts.hypervisor
        try:
            for _ in range(_LOOKS):
                domain = await hypervisor.domain(self._vm_id)
                if is_foreign(domain) and not self._runs_as(domain):
                    log.error("VM %s: domain %r has its uuid but is not ours: left alone", self._vm_id, domain.name)
                    if not domain.active:
                        await self._prove_gone()
                    return
                if domain.active:
                    await self._stop(graceful_attempts)
                await self._prove_gone()
                STOPPED.reach()
                if is_foreign(domain):
                    continue  # its definition may be somebody else's
                if domain.reason == "saved" and not domain.active and not self._forget():
                    log.warning("VM %s: libvirt saved its memory: its definition and that state stay", self._vm_id)
                    return
                await hypervisor.undefine(self._vm_id)
        except DomainMissing:
            await self._prove_gone()
            UNDEFINED.reach()
        except DestroyFailed:
            raise
        except (VirtError, DeadlineExceeded) as e:
            raise DestroyFailed(self._vm_id, str(e)) from e
        else:
            raise DestroyFailed(self._vm_id, "libvirt still has the domain")

    def _runs_as(self, domain: Domain) -> bool:
        """Whether that domain is the QEMU that we started, whatever became of our metadata in its XML."""
        return domain.active and self._record.process is not None and qemu_process.lives(self._record.process)

    def _forget(self) -> bool:
        record = self._parts.records.get(self._vm_id)
        return record is not None and record.forget

    async def _prove_gone(self) -> None:
        """Neither the process that we know nor one that somebody started behind us is there."""
        known, found = self._record.process, await self._parts.process_of(self._vm_id)
        for process in dict.fromkeys(one for one in (known, found) if one is not None):
            if await qemu_process.wait_gone(process, GONE_S):
                continue
            if qemu_process.hangs(process):
                reason = f"its QEMU, process {process.pid}, hangs in the kernel and has its disks open"
            else:
                reason = f"libvirt has lost it, and its QEMU runs on: end process {process.pid}"
            raise DestroyFailed(self._vm_id, reason)

    async def _stop(self, graceful_attempts: int) -> None:
        hypervisor, vm_id = self._parts.hypervisor, self._vm_id
        for _ in range(graceful_attempts):
            try:
                await hypervisor.terminate(vm_id)
                return
            except (HypervisorError, DeadlineExceeded) as e:
                if not (await hypervisor.domain(vm_id)).active:
                    return
                log.warning("VM %s: QEMU did not end by SIGTERM: %s", vm_id, e)
        try:
            await hypervisor.kill(vm_id)
        except HypervisorError:
            if (await hypervisor.domain(vm_id)).active:
                raise

    async def _after_destroy(self, xml: str) -> None:
        try:
            await self._parts.hooks.run_xml("after_vm_destroy", xml, vm=self._hook_vm)
        except AgentError as e:
            log.error("VM %s: after_vm_destroy: %s", self._vm_id, e)
