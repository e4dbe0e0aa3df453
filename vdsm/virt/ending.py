# SPDX-License-Identifier: GPL-2.0-or-later
"""How one VM goes away: the owner's side of `release`.

Everything that wants to end a VM calls `begin` with an exit; the first exit stands. The start is over before the
release begins: it is told to stop, and QEMU is killed under a start that libvirt hangs in. A release that failed
(QEMU hangs in the kernel) leaves the VM "Powering down" with all that it has; the next destroy and the reconciler try
again.

`destroy` is single: who calls it while it runs waits for the same end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from vdsm.common.errors import AgentError
from vdsm.virt import qemu_process
from vdsm.virt.capability import Handle
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.lifecycle import Cause
from vdsm.virt.parts import Parts
from vdsm.virt.records import Phase
from vdsm.virt.release import Release, remove_saved
from vdsm.virt.states import Exit, ExitReason, exit_for

log = logging.getLogger("vdsm.virt")

_START_HANGS_S = 2.0
RETRY_FIRST_S, RETRY_LAST_S = 15.0, 240.0
GRACE_MOST = 5  # attempts: libvirt gives QEMU some 15 s in each, and a destroy that waits for them can't be hurried


class Ending:
    def __init__(self, vm: Handle, parts: Parts, stopped: Callable[[], None]) -> None:
        """``stopped`` is called once, when the end begins: nothing of the VM goes on that the release does not do."""
        self._vm = vm
        self._parts = parts
        self._stopped = stopped
        self._exit: Exit | None = None
        self._graceful_attempts = 0
        self._pause_s = RETRY_FIRST_S
        self._next_try_s = 0.0
        self._start: asyncio.Task[None] | None = None
        self._release: asyncio.Task[None] | None = None
        self._destroying: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        return self._exit is not None

    @property
    def failed(self) -> bool:
        """It was tried, and something of the VM still runs."""
        return self.begun and not self._vm.status.down and (self._release is None or self._release.done())

    def after(self, start: asyncio.Task[None]) -> None:
        """The release waits for this start."""
        self._start = start

    def begin(self, exit_: Exit, graceful_attempts: int = 0) -> asyncio.Task[None]:
        """Begin the release unless it runs; the task ends when the VM is Down. The first exit stands."""
        if self._exit is None:
            self._exit = exit_
            self._stopped()
        self._graceful_attempts = min(graceful_attempts, GRACE_MOST)
        if self._release is None or (self._release.done() and not self._vm.status.down):
            self._release = asyncio.create_task(self._run(), name=f"end {self._vm.vm_id}")
            self._release.add_done_callback(_retrieved)
        return self._release

    def begin_with_hook(self, exit_: Exit) -> None:
        """The agent ends it by itself as a destroy would: a forced power-down, a reboot it must not go through."""
        if self.begun:
            return
        self._exit = exit_
        self._stopped()
        self._release = asyncio.create_task(self._run_with_hook(), name=f"end {self._vm.vm_id}")
        self._release.add_done_callback(_retrieved)

    def retry(self) -> None:
        """Try a release that failed once more: when QEMU has ended at last, or it is time to kill it again."""
        if not self.failed or self._exit is None:
            return
        process = self._vm.record.process
        gone = process is not None and not qemu_process.lives(process)
        if gone or time.monotonic() >= self._next_try_s:
            log.info("VM %s: its release is tried again", self._vm.vm_id)
            self._pause_s = min(2 * self._pause_s, RETRY_LAST_S)
            self.begin(self._exit)

    async def destroy(self, graceful_attempts: int) -> None:
        """End it and forget it; done when this returns, and goes on when the caller leaves.

        `DestroyFailed` when QEMU can't be stopped: then nothing was torn down.
        """
        if self._destroying is None or self._destroying.done():
            self._destroying = asyncio.create_task(self._destroy(graceful_attempts), name=f"destroy {self._vm.vm_id}")
            self._destroying.add_done_callback(_retrieved)
        await asyncio.shield(self._destroying)

    def abandon(self) -> None:
        """The agent ends: leave the end as it is, for the next agent to find by the record."""
        for task in (self._start, self._release, self._destroying):
            if task is not None:
                task.cancel()

    async def _destroy(self, graceful_attempts: int) -> None:
        vm = self._vm
        if not self.begun and not vm.status.down:
            self._stopped()
        await self._run_before_destroy()  # whatever became of the VM before: hooks.md 2.2
        if not vm.status.down:
            await vm.change(forget=True)
            launched = vm.record.phase not in (Phase.STARTING, Phase.LAUNCHING)
            reason = ExitReason.ADMIN_SHUTDOWN if launched else ExitReason.DESTROYED_ON_STARTUP
            try:
                await asyncio.shield(self.begin(exit_for(reason), graceful_attempts))
            except AgentError:  # who asked hears it: when it ends later it is told, and is there until asked again
                await vm.change(forget=False)
                raise
        await self._forget()

    async def _forget(self) -> None:
        """Nothing is reported any more. What is still prepared keeps its record, for the reconciler."""
        vm = self._vm
        left = await self._parts.images.release(vm.vm_id, vm.record.images)
        if vm.status.exit == exit_for(ExitReason.SAVED):
            await remove_saved(self._parts, vm.vm_id)
        if left:
            await vm.change(phase=Phase.LEFT, images=tuple(left))
        else:
            await self._parts.records.forget(vm.vm_id)

    async def _run_before_destroy(self) -> None:
        try:
            await self._parts.hooks.run_xml("before_vm_destroy", self._vm.xml, vm=self._vm.hook_vm)
        except AgentError as e:
            log.error("VM %s: before_vm_destroy: %s", self._vm.vm_id, e)

    async def _run_with_hook(self) -> None:
        await self._run_before_destroy()
        await self._run()

    async def _run(self) -> None:
        vm = self._vm
        await self._start_ended()
        change = vm.status.apply(Cause.ENDS)
        if change is not None and change.news:
            vm.tell()
        await self._look_behind_the_guest()
        assert self._exit is not None
        try:
            release = Release(self._parts, vm.record, vm.hook_vm)
            left = await release.run(self._exit, vm.xml, self._graceful_attempts)
        except Exception as e:  # whatever it was, it is tried again
            log.error("VM %s is not released: %s", vm.vm_id, e, exc_info=not isinstance(e, AgentError))
            self._next_try_s = time.monotonic() + self._pause_s
            raise
        await self._down(self._exit, left)

    async def _look_behind_the_guest(self) -> None:
        """A guest that seems to have ended by itself was asked to when the host goes down."""
        if self._exit == exit_for(ExitReason.USER_SHUTDOWN) and await self._parts.host_shutdown.goes_down():
            self._exit = exit_for(ExitReason.HOST_SHUTDOWN)

    async def _down(self, exit_: Exit, left: list[ImageId]) -> None:
        vm = self._vm
        let_go = vm.record.forget
        if not let_go:
            await vm.change(phase=Phase.DOWN, images=tuple(left))
        told = vm.status.apply(Cause.GONE, exit_=exit_) is not None
        if told:
            vm.tell()
        if let_go:  # a new agent has nothing to tell of it any more
            await vm.change(phase=Phase.LEFT, images=tuple(left))
        elif told:
            await vm.change(told=True)

    async def _start_ended(self) -> None:
        """The start stops by itself between its steps; in libvirt it is stopped by the end of its QEMU."""
        start = self._start
        while start is not None and not start.done():
            await asyncio.wait([start], timeout=_START_HANGS_S)
            if start.done() or self._vm.record.phase is not Phase.LAUNCHING:
                continue
            try:
                await self._parts.hypervisor.kill(self._vm.vm_id)
            except AgentError as e:  # it has no QEMU yet, or none any more
                log.info("VM %s is still being started: %s", self._vm.vm_id, e)


def _retrieved(task: asyncio.Task[None]) -> None:
    """The failure was logged where it happened; asyncio need not tell it again."""
    if not task.cancelled():
        task.exception()
