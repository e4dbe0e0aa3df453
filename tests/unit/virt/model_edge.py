# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypervisor that one agent of the model's host sees: each method is a call to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from vdsm.common.xml import parse
from vdsm.virt.errors import DomainMissing, VmCallsHang
from vdsm.virt.hypervisor import Domain, DomainState, HypervisorEvent, Sampled, Stats
from vdsm.virt.libvirt_edge.counters import read
from vdsm.virt.qemu_process import QemuProcess

from .model_host import CALL_S, LAUNCH_S, SIGKILL_S, Dom, Host

_READ_S, _CHANGE_S, _LAUNCH_LIMIT_S = 20.0, 60.0, 180.0
_STATISTICS_S = 15.0
_SAMPLED = {
    DomainState.RUNNING: read({"state.state": 1, "state.reason": 1, "balloon.rss": 1}),
    DomainState.PAUSED: read({"state.state": 3, "state.reason": 1, "balloon.rss": 1}),
    DomainState.CRASHED: read({"state.state": 6, "state.reason": 1, "balloon.rss": 1}),
}


class Edge:
    """Implements `hypervisor.Hypervisor`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        # a QEMU that can't be killed is lost by libvirt
        self.forgets: set[str] = set()

    async def start(self, hear: Callable[[HypervisorEvent], None]) -> None:
        loop = asyncio.get_running_loop()
        self._host.edge = self
        self._host.hear = lambda event: loop.call_soon(hear, event) and None

    async def stop(self) -> None:
        self._host.hear = lambda _event: None

    async def domains(self) -> list[Domain]:
        found: list[Domain] = await self._call("domains", "", lambda: [d.shown() for d in self._host.doms.values()])
        return found

    async def domain(self, vm_id: str) -> Domain:
        found: Domain = await self._call("domain", vm_id, lambda: self._host.dom(vm_id).shown())
        return found

    def check_free(self, vm_id: str) -> None:
        if self._host.pending.get((self, vm_id)):
            raise VmCallsHang(vm_id, "model", 1, "one is done later")

    async def define(self, xml: str) -> None:
        root = parse(xml, what="test")
        vm_id, name = root.findtext("uuid") or "", root.findtext("name") or ""

        def do() -> None:
            dom = self._host.doms.get(vm_id)
            if self._host.edge is not self:
                self._host.strays.add(vm_id)  # the next create, or the next agent, removes it
            if dom is None:
                self._host.doms[vm_id] = Dom(vm_id, name, xml)
            else:
                self._touch(dom, "define")
                dom.xml, dom.persistent = (dom.xml if dom.active else xml), True

        await self._change("define", vm_id, do)

    async def launch(self, vm_id: str, flags: int) -> Domain:
        paused = bool(flags & 1)
        do = self._checked("launch", vm_id, lambda: self._host.launch(vm_id, paused=paused))
        found: Domain = await self._host.call("launch", vm_id, do, _LAUNCH_LIMIT_S, LAUNCH_S)
        return found

    async def pause(self, vm_id: str) -> None:
        await self._monitor("pause", vm_id, lambda: self._host.pause(vm_id))

    async def resume(self, vm_id: str) -> None:
        await self._monitor("resume", vm_id, lambda: self._host.resume(vm_id))

    async def reset(self, vm_id: str) -> None:
        await self._monitor("reset", vm_id, lambda: self._host.reset(vm_id))

    async def ask_shutdown(self, vm_id: str) -> None:
        await self._ask("ask_shutdown", vm_id)

    async def ask_agent_shutdown(self, vm_id: str) -> None:
        await self._ask("ask_agent_shutdown", vm_id)

    async def ask_reboot(self, vm_id: str) -> None:
        await self._ask("ask_reboot", vm_id)

    async def ask_agent_reboot(self, vm_id: str) -> None:
        await self._ask("ask_agent_reboot", vm_id)

    async def freeze(self, vm_id: str) -> int:
        await self._ask("freeze", vm_id)
        return 1

    async def thaw(self, vm_id: str) -> int:
        await self._ask("thaw", vm_id)
        return 1

    async def terminate(self, vm_id: str) -> None:
        await self._stop("terminate", vm_id)

    async def kill(self, vm_id: str) -> None:
        await self._stop("kill", vm_id)

    async def undefine(self, vm_id: str) -> None:
        await self._change("undefine", vm_id, lambda: self._host.undefine(vm_id))

    async def set_metadata(self, vm_id: str, xml: str) -> None:
        await self._change("set_metadata", vm_id, lambda: None)

    async def disk_errors(self, vm_id: str) -> Mapping[str, str]:
        found: Mapping[str, str] = await self._call("disk_errors", vm_id, lambda: dict(self._host.dom(vm_id).errors))
        return found

    async def statistics(self) -> Stats:
        found: Stats = await self._host.call("statistics", "", self._statistics, _STATISTICS_S)
        return found

    async def statistics_of(self, vm_id: str) -> Sampled:
        def do() -> Sampled:
            if vm_id not in (found := self._statistics()):
                raise DomainMissing(vm_id)
            return found[vm_id]

        found: Sampled = await self._call("statistics_of", vm_id, do)
        return found

    async def active_networks(self) -> frozenset[str]:
        return frozenset()

    async def filters(self) -> frozenset[str]:
        return frozenset()

    def _statistics(self) -> dict[str, Sampled]:
        return {vm_id: _SAMPLED[dom.state] for vm_id, dom in self._host.doms.items() if dom.state in _SAMPLED}

    def _touch(self, dom: Dom, what: str) -> None:
        if not dom.ours:
            self._host.wrong(f"{what} of the foreign domain {dom.name}")

    def _checked(self, name: str, vm_id: str, do: Callable[[], Any]) -> Callable[[], Any]:
        def checked() -> Any:
            if (dom := self._host.doms.get(vm_id)) is not None:
                self._touch(dom, name)
            return do()

        return checked

    async def _call(self, name: str, vm_id: str, do: Callable[[], Any]) -> Any:
        return await self._host.call(name, vm_id, do, _READ_S)

    async def _change(self, name: str, vm_id: str, do: Callable[[], Any]) -> Any:
        return await self._host.call(name, vm_id, self._checked(name, vm_id, do), _CHANGE_S)

    async def _monitor(self, name: str, vm_id: str, do: Callable[[], None]) -> None:
        """What QEMU itself must answer: one that hangs does it when it hangs no more."""
        dom = self._host.doms.get(vm_id)
        if dom is not None and dom.qemu is not None and dom.qemu.hung:
            self._host.note(vm_id, "hung call")
            await self._host.call(name, vm_id, lambda: None, _CHANGE_S, 2 * _CHANGE_S)
        await self._change(name, vm_id, do)

    async def _ask(self, name: str, vm_id: str) -> None:
        await self._monitor(name, vm_id, lambda: self._host.running(vm_id, name) and None)

    async def _stop(self, name: str, vm_id: str) -> None:
        dom = self._host.doms.get(vm_id)
        hung = dom is not None and dom.qemu is not None and dom.qemu.hung
        by_force, forgets = name == "kill", vm_id in self.forgets
        do = self._checked(name, vm_id, lambda: self._host.stop(vm_id, by_force=by_force, forgets=forgets))
        await self._host.call(name, vm_id, do, _CHANGE_S, SIGKILL_S if hung else CALL_S)


class Processes:
    """The kernel's word about QEMU processes."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def find_all(self) -> dict[str, QemuProcess]:
        return {qemu.vm_id: qemu.process for qemu in self._host.qemus if qemu.alive}

    def lives(self, process: QemuProcess) -> bool:
        return any(qemu.alive for qemu in self._host.qemus if qemu.process == process)

    def hangs(self, process: QemuProcess) -> bool:
        return any(qemu.alive and qemu.hung and qemu.killed for qemu in self._host.qemus if qemu.process == process)

    async def wait_gone(self, process: QemuProcess, timeout_s: float) -> bool:
        gone = asyncio.Event()
        for qemu in self._host.qemus:
            if qemu.process == process and qemu.alive:
                qemu.gone.append(gone.set)
        if not self.lives(process):
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await gone.wait()
        except TimeoutError:
            pass
        return not self.lives(process)
