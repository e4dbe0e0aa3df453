# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that outlives its agents: libvirt and its QEMUs, images, hooks' scripts and a disk for records.

What is true stands here, and what may be wrong with each edge: calls that are late, lost, refused, or time out and
happen all the same; events that are lost, late or doubled; QEMU that can't be killed; storage and disks that fail.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vdsm.common.errors import AgentError, DeadlineExceeded
from vdsm.virt.errors import DomainMissing, HypervisorError, HypervisorLost
from vdsm.virt.hypervisor import Change, Domain, DomainEvent, DomainState, HypervisorEvent, Reconnected
from vdsm.virt.qemu_process import QemuProcess

from .fakes import FakePrepared
from .virtual_time import Clock

CALL_S, LAUNCH_S, PREPARE_S, HOOK_S = 0.004, 0.04, 0.02, 0.02
HOOK_LIMIT_S = 120.0
STORAGE_LIMIT_S = 30.0
SIGKILL_S = 20.0  # after which libvirt gives up
_OFF = (DomainState.OFF,)


class Broken(AgentError):
    msg = "broken on purpose"


@dataclass(eq=False)
class Qemu:
    vm_id: str
    process: QemuProcess
    xml: str
    alive: bool = True
    hung: bool = False
    killed: bool = False
    gone: list[Callable[[], None]] = field(default_factory=list)


@dataclass(eq=False)
class Dom:
    vm_id: str
    name: str
    xml: str
    ours: bool = True
    state: DomainState = DomainState.OFF
    reason: str = ""
    persistent: bool = True
    qemu: Qemu | None = None
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.state not in _OFF

    def shown(self) -> Domain:
        return Domain(self.vm_id, self.name, self.state, self.reason, self.xml, self.active)


@dataclass
class Fault:
    """Of one call: when its effect is, when its answer (never: at its deadline), and what is answered."""

    effect_s: float | None = 0.0
    answer_s: float | None = 0.0
    error: type[Exception] | None = None


FAULTS = {
    "refused": Fault(None, 0.0, HypervisorError),
    "late answer": Fault(0.0, 3.0),
    "late effect": Fault(3.0, 3.0),
    "lost, done": Fault(0.0, 0.1, HypervisorLost),
    "lost, not done": Fault(None, 0.1, HypervisorLost),
    "timeout, done": Fault(0.0, None),
    "timeout, done later": Fault(200.0, None),
    "timeout, not done": Fault(None, None),
}


# what they make is looked for, whenever it is made
OWN_STRAYS = ("define", "launch")


class Host:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.violations: list[str] = []
        self.doms: dict[str, Dom] = {}
        self.qemus: list[Qemu] = []
        self._pids = itertools.count(100)
        # the agent's that lives, and domains that an earlier agent's call defined later
        self.edge: object = None
        self.strays: set[str] = set()
        self.hear: Callable[[HypervisorEvent], None] = lambda _event: None
        # per VM: seconds until an event arrives (None: never), and whether it arrives twice
        self.late_s: dict[str, float | None] = {}
        self.twice: set[str] = set()
        self._last_event: dict[str, float] = {}
        self.faults: dict[tuple[str, str], deque[Fault]] = {}
        # how many calls of an agent about a VM have nobody who waits, and an effect to come
        self.pending: Counter[tuple[object, str]] = Counter()
        self.away: str = ""  # "fails" or "hangs": libvirt as a whole
        self._waiting: list[Callable[[], None]] = []
        self._under_way: dict[asyncio.Future[Any], str] = {}
        # what watchers want to know: (vm, what) -> how often
        self.happened: dict[tuple[str, str], int] = {}
        self.on_end: Callable[[str, str], None] = lambda _vm_id, _how: None
        self.on_reboot: Callable[[str], None] = lambda _vm_id: None

    def wrong(self, what: str) -> None:
        self.violations.append(f"{self.clock.now:.3f}: {what}")

    def count(self, vm_id: str, what: str) -> int:
        return self.happened.get((vm_id, what), 0)

    def note(self, vm_id: str, what: str) -> None:
        self.happened[vm_id, what] = self.count(vm_id, what) + 1

    # Events

    def emit(self, event: HypervisorEvent, vm_id: str) -> None:
        if self.away or self.late_s.get(vm_id, 0.0) is None:
            self.note(vm_id, "lost")
            return
        late_s = self.late_s.get(vm_id) or 0.001
        when = max(self.clock.now + late_s, self._last_event.get(vm_id, 0.0))  # of one domain in their order
        self._last_event[vm_id] = when
        for _ in range(2 if vm_id in self.twice else 1):
            self.clock.at(when - self.clock.now, lambda: self.hear(event))

    def tell(self, vm_id: str, *changes: Change) -> None:
        for change in changes:
            self.emit(DomainEvent(vm_id, change), vm_id)

    # libvirt comes and goes

    def leave(self, how: str) -> None:
        self.away = how
        for future, call in list(self._under_way.items()):
            _answer(future, HypervisorLost(call))
        self._under_way.clear()

    def come_back(self) -> None:
        if not self.away:
            return
        self.away = ""
        waiting, self._waiting = self._waiting, []
        for go in waiting:
            go()
        self.hear(Reconnected())

    async def call(self, name: str, vm_id: str, do: Callable[[], Any], limit_s: float, takes_s: float = CALL_S) -> Any:
        """A call of the agent: its effect comes at one moment between the question and the answer."""
        future = asyncio.get_running_loop().create_future()
        self.clock.at(limit_s, lambda: _answer(future, DeadlineExceeded(f"libvirt: {name}", limit_s)))
        queued = self.faults.get((vm_id, name))
        fault = queued.popleft() if queued else Fault()
        late = (self.edge, vm_id) if fault is FAULTS["timeout, done later"] and name not in OWN_STRAYS else None

        def go() -> None:
            if future.done():
                return
            self._under_way[future] = name
            if late is not None:
                self.pending[late] += 1
            if fault.effect_s is not None:
                self.clock.at(takes_s / 2 + fault.effect_s, effect)
            if fault.error is not None:
                error = fault.error(name, 1, "refused") if fault.error is HypervisorError else fault.error(name)
                self.clock.at(takes_s + (fault.answer_s or 0.0), lambda: _answer(future, error))

        def effect() -> None:
            if late is not None:
                self.pending[late] -= 1
                if late[0] is not self.edge:
                    return  # libvirt drops what an agent that is gone asked for and it has not begun
            try:
                result = do()
            except (AgentError, OSError) as e:
                result = e
            if fault.answer_s is not None and not self.away:
                self.clock.at(takes_s / 2 + fault.answer_s - (fault.effect_s or 0.0), lambda: _answer(future, result))

        if self.away == "fails":
            self.clock.at(0.001, lambda: _answer(future, HypervisorLost(name)))
        elif self.away:
            self._waiting.append(go)
        else:
            go()
        try:
            return await future
        finally:
            self._under_way.pop(future, None)

    # The truth about a domain

    def dom(self, vm_id: str) -> Dom:
        if vm_id not in self.doms:
            raise DomainMissing(vm_id)
        return self.doms[vm_id]

    def running(self, vm_id: str, call: str) -> Dom:
        dom = self.dom(vm_id)
        if not dom.active:
            raise HypervisorError(call, 55, "domain is not running")
        return dom

    def lives(self, vm_id: str) -> bool:
        return any(qemu.alive for qemu in self.qemus if qemu.vm_id == vm_id)

    def uses(self, vm_id: str, image_id: str) -> bool:
        return any(qemu.alive and image_id in qemu.xml for qemu in self.qemus if qemu.vm_id == vm_id)

    def launch(self, vm_id: str, *, paused: bool) -> Domain:
        dom = self.dom(vm_id)
        if dom.active:
            raise HypervisorError("launch", 55, "domain is already running")
        pid = next(self._pids)
        dom.qemu = Qemu(vm_id, QemuProcess(pid, pid), dom.xml)
        self.qemus.append(dom.qemu)
        dom.state, dom.reason, dom.errors = DomainState.RUNNING, "booted", {}
        self.note(vm_id, "launched")
        self.tell(vm_id, Change.STARTED)
        if paused:
            dom.state, dom.reason = DomainState.PAUSED, "user"
            self.tell(vm_id, Change.SUSPENDED)
        else:
            self.note(vm_id, "goes")
        return dom.shown()

    def pause(self, vm_id: str, reason: str = "user", *changes: Change) -> None:
        dom = self.running(vm_id, "pause")
        if dom.state is DomainState.RUNNING:
            dom.state, dom.reason = DomainState.PAUSED, reason
            self.note(vm_id, "stands")
            self.tell(vm_id, *(changes or (Change.SUSPENDED,)))

    def resume(self, vm_id: str) -> None:
        dom = self.running(vm_id, "resume")
        if dom.state is DomainState.CRASHED:
            raise HypervisorError("resume", 55, "domain is crashed")
        if dom.state is DomainState.RUNNING:
            raise HypervisorError("resume", 55, "domain is already running")
        if dom.state is DomainState.PAUSED:
            dom.state, dom.reason, dom.errors = DomainState.RUNNING, "unpaused", {}
            self.note(vm_id, "goes")
            self.tell(vm_id, Change.RESUMED)

    def reset(self, vm_id: str) -> None:
        self.running(vm_id, "reset")
        self.on_reboot(vm_id)
        self.tell(vm_id, Change.REBOOTED)

    def end(self, vm_id: str, reason: str, *changes: Change) -> None:
        """Its QEMU ends, and libvirt knows why."""
        dom = self.running(vm_id, "end")
        qemu, dom.qemu = dom.qemu, None
        dom.state, dom.reason = DomainState.OFF, reason
        if qemu is not None and not qemu.hung:
            self.bury(qemu)
        self.on_end(vm_id, reason)
        self.tell(vm_id, *changes)
        if not dom.persistent:
            del self.doms[vm_id]

    def bury(self, qemu: Qemu) -> None:
        qemu.alive = False
        for tell in qemu.gone:
            tell()

    def stop(self, vm_id: str, *, by_force: bool, forgets: bool) -> None:
        """virDomainDestroy: of a QEMU that hangs it fails, or libvirt loses it."""
        dom = self.running(vm_id, "kill")
        if dom.qemu is not None and dom.qemu.hung:
            dom.qemu.killed = dom.qemu.killed or by_force
            if not (by_force and forgets):
                raise HypervisorError("kill", 38, "Failed to terminate process: Device or resource busy")
        self.end(vm_id, "destroyed", Change.STOPPED)

    def unhang(self, qemu: Qemu) -> None:
        qemu.hung = False
        dom = self.doms.get(qemu.vm_id)
        if not qemu.alive or (dom is not None and dom.qemu is qemu and not qemu.killed):
            return
        if dom is not None and dom.qemu is qemu:
            self.end(qemu.vm_id, "destroyed", Change.STOPPED)
        else:
            self.bury(qemu)

    def lose(self, vm_id: str) -> None:
        """libvirt knows nothing of it any more; its QEMU lives."""
        dom = self.doms.pop(vm_id)
        if dom.qemu is not None:
            self.on_end(vm_id, "missing")

    def undefine(self, vm_id: str) -> None:
        dom = self.dom(vm_id)
        dom.persistent = False
        if not dom.active:
            del self.doms[vm_id]


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    if future.done() or future.get_loop().is_closed():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


class Storage:
    """Images with their users. Calls of one image come one after the other."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.users: dict[str, set[str]] = {}
        # storage domain -> "fails" or "hangs"
        self.bad: dict[str, str] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    def restarted(self) -> None:
        self._turns = {}

    def used_by(self, vm_id: str) -> set[str]:
        return {image for image, users in self.users.items() if f"vm:{vm_id}" in users}

    async def prepare_image(
        self, pool_id: str, domain_id: str, image_id: str, volume_id: str, *, consumer: str
    ) -> FakePrepared:
        async with self._turns.setdefault(image_id, asyncio.Lock()):
            await self._reach(domain_id, "prepare")
            self.users.setdefault(image_id, set()).add(consumer)
        return FakePrepared(f"/rhev/{image_id}/{volume_id}")

    async def teardown_image(self, pool_id: str, domain_id: str, image_id: str, *, consumer: str) -> None:
        async with self._turns.setdefault(image_id, asyncio.Lock()):
            await self._reach(domain_id, "teardown")
            vm_id = consumer.removeprefix("vm:")
            if self._host.uses(vm_id, image_id):  # what an earlier life left may go under a later one without it
                self._host.wrong(f"image {image_id[-2:]} is torn down under the QEMU of VM {vm_id[-2:]}")
            self.users.get(image_id, set()).discard(consumer)

    async def resume_prepared(
        self, images: Sequence[tuple[str, str, str, str]], *, consumer: str
    ) -> list[tuple[str, str, str, str]]:
        lost = [image for image in images if consumer not in self.users.get(image[2], ())]
        for _, _, image_id, _ in images:
            self.users.setdefault(image_id, set()).add(consumer)
        return lost

    async def _reach(self, domain_id: str, what: str) -> None:
        await asyncio.sleep(PREPARE_S)
        bad = self.bad.get(domain_id, "")
        if bad == "hangs":
            await asyncio.sleep(STORAGE_LIMIT_S)
            raise DeadlineExceeded(what, STORAGE_LIMIT_S)
        if bad:
            raise Broken()


class Hooks:
    """Scripts by VM and point: what each does the next time. ``call``: a client that a script is."""

    def __init__(self, call: Callable[[str, str], asyncio.Task[Any]]) -> None:
        self.scripts: dict[tuple[str, str], str] = {}
        self._call = call

    async def run_xml(
        self, point: str, xml: str | None, *, vm: Any = None, env: Mapping[str, str] | None = None
    ) -> str:
        script = self.scripts.pop((vm.vm_id, point), "")
        await asyncio.sleep(HOOK_S)
        if script == "fails":
            raise Broken()
        if script == "hangs":
            await asyncio.sleep(HOOK_LIMIT_S)
            raise DeadlineExceeded(point, HOOK_LIMIT_S)
        if script.startswith("calls "):
            await asyncio.wait([self._call(vm.vm_id, script.removeprefix("calls "))], timeout=HOOK_LIMIT_S)
        return xml or ""

    async def run_empty(self, point: str, *, vm: Any = None, env: Mapping[str, str] | None = None) -> None:
        await self.run_xml(point, None, vm=vm)
