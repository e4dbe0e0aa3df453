# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the guest's CPUs run: pause, resume and reset, with their hooks.

A hook script may call back while it runs, from a connection of its own. So no lock is held over a hook: what is asked
for is numbered, and when the hook has ended, the newest of the opposite wins. Pause beats a resume that still waits for
its hooks, and the other way round; who is overtaken hears it (`Superseded`), never "done". The same verb again while
its own hooks run is refused at once (`CalledBack`): it would wait for itself.

libvirt's own calls take the VM's turn, one at a time.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from vdsm.virt.capability import Capability, Handle
from vdsm.virt.errors import CalledBack, HypervisorError, Superseded, VmBusy
from vdsm.virt.hypervisor import Lifecycle
from vdsm.virt.ports import Hooks
from vdsm.virt.records import Trouble
from vdsm.virt.states import DISK_TROUBLE, PauseCode, VmState

_PAUSE, _CONT = "pause", "resume"
_NOT_NOW = frozenset({VmState.SAVING, VmState.RESTORING, VmState.MIGRATION_DESTINATION, VmState.MIGRATION_SOURCE})

Turn = Callable[[str], AbstractAsyncContextManager[Any]]


class Running(Capability):
    def __init__(self, vm: Handle, hypervisor: Lifecycle, hooks: Hooks, turn: Turn) -> None:
        self._vm = vm
        self._hypervisor = hypervisor
        self._hooks = hooks
        self._turn = turn
        self._asked = 0
        # the newest wish of each kind; what waits for its hooks; what libvirt was asked for and is not seen yet
        self._wishes = {_PAUSE: 0, _CONT: 0}
        self._in_hook: set[str] = set()
        self._doing: set[str] = set()

    async def pause(self) -> None:
        """Stop the CPUs, and see that they stand. A paused one stays so, also when its disk is well again."""
        self._vm.check_running(_PAUSE)
        self._check_not_called_back(_PAUSE)
        number = self._wish(_PAUSE)
        if await self._stands(_PAUSE) is True and await self._stays():
            return
        before = self._hooks.run_xml("before_vm_pause", self._vm.xml, vm=self._vm.hook_vm)
        await self._after_hook(_PAUSE, number, before, self._hypervisor.pause)
        await self._stays()

    async def cont(self) -> None:
        """Let the CPUs run, and see it. Where they run nothing is done."""
        self._check_cont()
        await self._resume(self._wish(_CONT), self._hypervisor.resume)

    async def go_on(self, check: Callable[[], None]) -> None:
        """As `cont`, but nobody wishes it: a pause wins, also one that was asked for before and is not answered yet.

        ``check`` raises when the VM must not go on any more; it is asked last, when the hooks have ended.
        """
        self._check_cont()

        async def resume(vm_id: str) -> None:
            check()
            await self._hypervisor.resume(vm_id)

        await self._resume(self._asked, resume)

    async def reset(self) -> None:
        """Press the reset button."""
        self._vm.check_running("reset")
        async with self._turn("reset"):
            await self._hypervisor.reset(self._vm.vm_id)
        self._vm.look.soon()

    async def _stays(self) -> bool:
        """It stands because somebody wants it now, whatever had stopped it. False: it goes on meanwhile."""
        if self._vm.status.pause_code in DISK_TROUBLE:
            await self._vm.change(trouble=Trouble(PauseCode.NO_ERROR, time.monotonic()))
            await self._vm.look.fresh()
        return self._vm.stands and _CONT not in self._doing

    def _check_cont(self) -> None:
        self._vm.check_running(_CONT)
        if self._vm.status.stored in _NOT_NOW:
            raise VmBusy(self._vm.vm_id, _CONT, str(self._vm.status.stored))
        self._check_not_called_back(_CONT)

    async def _resume(self, number: int, call: Callable[[str], Awaitable[None]]) -> None:
        if await self._stands(_CONT) is False and _PAUSE not in self._doing:
            return
        before = self._hooks.run_xml("before_vm_cont", self._vm.xml, vm=self._vm.hook_vm)
        await self._after_hook(_CONT, number, before, call)

    async def _stands(self, action: str) -> bool | None:
        """Whether the CPUs stand, as libvirt says now: events may be late or lost. None when it does not answer."""
        known = await self._vm.look.fresh()
        self._vm.check_running(action)
        return self._vm.stands if known else None

    def _wish(self, action: str) -> int:
        self._asked += 1
        self._wishes[action] = self._asked
        return self._asked

    def _check_not_called_back(self, action: str) -> None:
        if action in self._in_hook:
            raise CalledBack(self._vm.vm_id, action)

    async def _after_hook(
        self, action: str, number: int, before: Awaitable[str], call: Callable[[str], Awaitable[None]]
    ) -> None:
        self._in_hook.add(action)
        try:
            await before
        finally:
            self._in_hook.discard(action)
        async with self._turn(action):
            self._vm.check_running(action)
            self._check_newest(action, number)
            self._doing.add(action)
            try:
                await self._ask(action, call)
                await self._vm.look.fresh()
            finally:
                self._doing.discard(action)

    async def _ask(self, action: str, call: Callable[[str], Awaitable[None]]) -> None:
        """libvirt refuses to resume what runs: somebody else's resume was faster, a storage domain's or virsh's."""
        try:
            await call(self._vm.vm_id)
        except HypervisorError:
            if not await self._vm.look.fresh() or self._vm.stands is not (action == _PAUSE):
                raise

    def _check_newest(self, action: str, number: int) -> None:
        other = _CONT if action == _PAUSE else _PAUSE
        if self._wishes[other] > number:
            raise Superseded(self._vm.vm_id, action, other)
