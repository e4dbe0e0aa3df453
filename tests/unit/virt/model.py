# SPDX-License-Identifier: GPL-2.0-or-later
"""Agents on the model's host, one after the other, and who watches them: what clients were told, against the truth.

A life of a VM begins when a create is accepted and ends when a destroy is answered. `Watch` knows of each life what
happened to it, so what may be told of it; what must not be is written down with the host (`Host.wrong`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vdsm.common.errors import AgentError
from vdsm.common.paths import Paths
from vdsm.virt import launch_flags, qemu_process, records
from vdsm.virt.errors import DestroyFailed
from vdsm.virt.host_shutdown import HostShutdown
from vdsm.virt.hypervisor import DomainState
from vdsm.virt.lifecycle import Lifecycle
from vdsm.virt.states import DISK_TROUBLE
from vdsm.virt.stats.answers import Answers
from vdsm.virt.stats.samples import Samples
from vdsm.virt.vm import Vm
from vdsm.virt.vms import Vms

from .fakes import FACTS
from .model_edge import Edge, Processes
from .model_host import Hooks, Host, Storage
from .virtual_time import Clock, VirtualLoop

BOUND_S = 1000.0  # of any verb: each of its steps has its deadline
READ_S = 1.0
OVERDUE_S = 100.0  # 80, and until the next round
DURABLE_S = 10.0
# verb -> the state that it must not leave, and what counts how often somebody else brought it about
_WANTED = {"pause": (DomainState.RUNNING, "goes"), "cont": (DomainState.PAUSED, "stands")}


class Disk:
    """/var/lib/vdsm, which may take no writes, or slowly."""

    def __init__(self) -> None:
        self.bad = False
        self.slow_s = 0.002

    def write_atomic(self, path: str, data: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
        self.check()
        temporary = f"{os.path.dirname(path)}/.{os.path.basename(path)}.new"
        with open(temporary, "wb") as file:
            file.write(data)
        os.rename(temporary, path)

    def remove_durably(self, path: str) -> None:
        self.check()
        if os.path.exists(path):
            os.unlink(path)

    def check(self) -> None:
        if self.bad:
            raise OSError(errno.ENOSPC, "No space left on device")


@dataclass(eq=False)
class Life:
    vm_id: str
    behaviour: str
    destroy_on_reboot: bool
    accepted: bool = False
    # exit reasons that are true, for what happened to it
    reasons: set[int] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)  # of its pause by a disk, when it is known
    stuck_s: float | None = None
    troubled: bool = False  # it may fail to start
    asked: bool = False  # to shut down: "Powering down" may be taken back
    destroyed: bool = False  # by its client
    told: list[str] = field(default_factory=list)  # by this agent
    ran: bool = False  # as clients were told
    downs: int = 0
    down_s: float = 0.0
    ending: bool = False


@dataclass(eq=False)
class Call:
    vm_id: str
    verb: str
    began_s: float
    task: asyncio.Task[Any]
    life: Life | None
    goes: int
    stands: int


class Watch:
    def __init__(self, host: Host, disk: Disk) -> None:
        self.host = host
        self.disk = disk
        self.disk_was_bad = False
        self.lives: dict[str, Life] = {}
        self.calls: set[Call] = set()
        self.agent: Agent | None = None
        self.ended = False

    def trouble(self, vm_id: str = "") -> None:
        """From now on a start may fail: of one VM, or of all."""
        for life in self.lives.values():
            life.troubled = life.troubled or vm_id in ("", life.vm_id)

    def may_end(self, vm_id: str, *reasons: int) -> None:
        if (life := self.lives.get(vm_id)) is not None:
            life.reasons.update(reasons)

    def restarted(self) -> None:
        """Clients lost their connections; nothing that was told is told twice without need."""
        self.calls.clear()
        self.trouble()
        for life in self.lives.values():
            life.ending, life.codes, life.stuck_s = False, set(), None
            life.told = life.told[-1:] if life.downs else []

    def told(self, vm_id: str, params: Mapping[str, Any]) -> None:
        if self.ended:
            return
        status, name = params["status"], vm_id[-2:]
        life = self.lives.get(vm_id)
        if life is None:
            if not self.disk_was_bad and vm_id not in self.host.strays:
                self.host.wrong(f"VM {name} is nobody's, and is told as {status}")
                return
            life = self.lives[vm_id] = Life(
                vm_id, "", destroy_on_reboot=False, accepted=True, troubled=True, destroyed=True
            )
            life.reasons.update(range(15))
        before = life.told[-1] if life.told else ""
        allowed = before != "Down" or life.down_s == 0.0 or not self._is_kept(life)
        if not allowed or (before == "Powering down" and not life.asked and status not in ("Powering down", "Down")):
            self.host.wrong(f"VM {name} is told as {status} after {before}")
        if before and before != "WaitForLaunch" and status == "WaitForLaunch":
            self.host.wrong(f"VM {name} is told as {status} after {before}")
        life.told.append(status)
        life.ran = life.ran or status in ("Up", "Powering up", "Paused")
        if status == "Down":
            self._down(life, params)

    def _is_kept(self, life: Life) -> bool:
        """That its end was told is known to every agent to come; and to the one that told it at once."""
        same = len(life.told) > 1 or self.agent is None or self.agent.began_s < life.down_s
        return same or (
            not self.disk_was_bad and self.agent is not None and life.down_s + DURABLE_S < self.agent.began_s
        )

    def _down(self, life: Life, params: Mapping[str, Any]) -> None:
        life.downs, life.down_s = life.downs + 1, self.host.clock.now
        if self.host.lives(life.vm_id):
            self.host.wrong(f"VM {life.vm_id[-2:]} is told as Down, and its QEMU lives")
        reason = params["exitReason"]
        right = set(life.reasons)
        if life.troubled and not (life.ran and self.agent is not None and self.agent.number == 1):
            right.add(1)
        if life.ran and not self.disk_was_bad:
            right.discard(10)
        if self.disk_was_bad:
            right |= {2, 6, 9}
        if reason not in right:
            self.host.wrong(f"VM {life.vm_id[-2:]} is Down for {reason}: it may be for {sorted(right)}")

    # Verbs

    def call(self, vm_id: str, verb: str, work: Coroutine[Any, Any, Any], life: Life | None) -> Call:
        assert self.agent is not None
        agent = self.agent
        task = agent.loop.create_task(work, name=f"client {verb}")
        host = self.host
        call = Call(vm_id, verb, host.clock.now, task, life, host.count(vm_id, "goes"), host.count(vm_id, "stands"))
        self.calls.add(call)
        task.add_done_callback(lambda _task: self._answered(call))
        return call

    def _answered(self, call: Call) -> None:
        if call not in self.calls:
            return
        self.calls.discard(call)
        if call.task.cancelled():
            return
        error = call.task.exception()
        name, host = f"VM.{call.verb} of {call.vm_id[-2:]}", self.host
        if error is not None and not isinstance(error, AgentError):
            host.wrong(f"{name}: {error!r}")
        self._check_time(call)
        if call.verb == "create":
            self._created(call, error)
        elif call.verb == "destroy":
            self._destroyed(call, error)
        elif error is None and call.verb in _WANTED:
            self._check_true(call, *_WANTED[call.verb])

    def _check_true(self, call: Call, opposite: DomainState, began: str) -> None:
        """What was answered as done is so, unless somebody did the opposite meanwhile."""
        dom, host = self.host.doms.get(call.vm_id), self.host
        before = call.goes if began == "goes" else call.stands
        if dom is not None and dom.state is opposite and host.count(call.vm_id, began) == before:
            host.wrong(f"VM.{call.verb} of {call.vm_id[-2:]} is answered, and it is {opposite}")

    def _created(self, call: Call, error: BaseException | None) -> None:
        if call.life is None:
            return
        if error is None:
            call.life.accepted = True
        elif self.lives.get(call.vm_id) is call.life and not call.life.accepted:
            del self.lives[call.vm_id]

    def _destroyed(self, call: Call, error: BaseException | None) -> None:
        assert self.agent is not None
        name = f"VM.destroy of {call.vm_id[-2:]}"
        if isinstance(error, DestroyFailed):
            vm = self.agent.vms._vms.get(call.vm_id)
            if vm is not None and vm.status.reported not in ("Powering down", "Down"):
                self.host.wrong(f"{name} failed, and it is told as {vm.status.reported}")
        if error is None:
            dom = self.host.doms.get(call.vm_id)
            if dom is not None and dom.reason == "saved":  # libvirt did not answer: the next agent tells of it
                self.host.strays.add(call.vm_id)
            if call.life is not None and self.lives.get(call.vm_id) is call.life:
                del self.lives[call.vm_id]
                if not call.life.downs:
                    self.host.wrong(f"{name} is answered, and its end was never told")
            if self.host.lives(call.vm_id) and call.vm_id not in self.lives:
                self.host.wrong(f"{name} is answered, and its QEMU lives")

    def _check_time(self, call: Call) -> None:
        limit_s = READ_S if call.verb == "list" else BOUND_S
        if (took_s := self.host.clock.now - call.began_s) > limit_s:
            self.host.wrong(f"VM.{call.verb} of {call.vm_id[-2:]} takes {took_s:.1f} s")

    def look(self) -> None:
        """Between two steps."""
        assert self.agent is not None
        for call in self.calls:
            self._check_time(call)
        for vm_id, vm in self.agent.vms._vms.items():
            life = self.lives.get(vm_id)
            if vm.status.down and self.host.lives(vm_id):
                self.host.wrong(f"VM {vm_id[-2:]} is Down, and its QEMU lives")
            if life is not None:
                if life.ending and not vm.status.ending:
                    self.host.wrong(f"VM {vm_id[-2:]} was ending, and is {vm.status.stored}")
                life.ending = vm.status.ending
                self._check_overdue(vm, life)

    def _check_overdue(self, vm: Vm, life: Life) -> None:
        """Its lease may be somebody else's after 80 s: it must not stand here for much longer."""
        stuck = vm.status.stored == "Paused" and vm.status.pause_code in DISK_TROUBLE and life.behaviour == "kill"
        if not stuck or life.ending:
            life.stuck_s = None
        elif life.stuck_s is None:
            life.stuck_s = self.host.clock.now
        elif self.host.clock.now - life.stuck_s > OVERDUE_S:
            self.host.wrong(f"VM {vm.vm_id[-2:]} is paused by a disk since {life.stuck_s:.1f}")


class Agent:
    """One life of the agent."""

    def __init__(self, number: int, watch: Watch, folder: Path, storage: Storage, forgets: set[str]) -> None:
        host = watch.host
        self.number = number
        self._watch = watch
        self.began_s = host.clock.now
        self.loop = VirtualLoop(host.clock, host.wrong, lambda: watch.disk.slow_s)
        storage.restarted()
        self.hooks = Hooks(self._scripted)
        self.edge = Edge(host)
        self.edge.forgets = forgets
        self.paths = Paths(run=str(folder / "run"), state=str(folder / "state"))
        self.vms = Vms(
            paths=self.paths,
            storage=storage,
            hooks=self.hooks,
            events=SimpleNamespace(publish=lambda _c, _o, vm_id, params: watch.told(vm_id, params[vm_id])),
            hypervisor=self.edge,
            facts=FACTS,
            processes=Processes(host).find_all,
            start_slots=2,
            host_goes_down=_stays_up,
            host_root=str(folder),
        )
        watch.agent = self

    def start(self) -> None:
        self.loop.run(self.vms.start())

    def _scripted(self, vm_id: str, verb: str) -> asyncio.Task[None]:
        """A hook's script is a client as well."""
        life = self._watch.lives.get(vm_id)
        if life is not None and verb == "destroy":
            life.destroyed = True
            life.reasons |= {6, 10}
        return self._watch.call(vm_id, verb, self.verb(vm_id, verb), life).task

    async def verb(self, vm_id: str, verb: str) -> None:
        if verb == "list":
            await self.vms.all_encoded_stats()
        elif verb == "destroy":
            await self.vms.destroy(vm_id, 0)
        elif verb == "stats":
            self.vms.stats(vm_id)
        else:
            vm = self.vms.get(vm_id)
            await {
                "pause": vm.running.pause,
                "cont": vm.running.cont,
                "reset": vm.running.reset,
                "freeze": vm.agent.freeze,
                "thaw": vm.agent.thaw,
                "setDestroyOnReboot": vm.power.destroy_on_reboot,
            }[verb]()


async def _stays_up() -> bool:
    return False


class Now:
    """The clock of the example that runs."""

    clock = Clock()
    disk = Disk()
    host: Host


def use_virtual_time(monkeypatch: pytest.MonkeyPatch, failed: Callable[[str], None]) -> None:
    """From here on the core's time, disk and processes are those of `Now`; ``failed`` hears of logged defects."""

    def monotonic() -> float:
        return Now.clock.now

    own = SimpleNamespace(monotonic=monotonic, time=lambda: 1e9 + Now.clock.now, perf_counter=time.perf_counter)
    for name, module in list(sys.modules.items()):
        if name.startswith("vdsm.virt.") and getattr(module, "time", None) is time:
            monkeypatch.setattr(module, "time", own)
    monkeypatch.setattr(Lifecycle.__init__, "__defaults__", (monotonic,))
    monkeypatch.setattr(Samples.__init__, "__defaults__", (monotonic,))
    monkeypatch.setattr(Answers.__init__, "__kwdefaults__", {"clock": monotonic})
    monkeypatch.setattr(HostShutdown.__init__, "__defaults__", (_stays_up, monotonic))
    monkeypatch.setattr(records, "write_atomic", lambda *a, **k: Now.disk.write_atomic(*a, **k))
    monkeypatch.setattr(records, "remove_durably", lambda path: Now.disk.remove_durably(path))
    monkeypatch.setattr(launch_flags, "write_atomic", lambda path, data: Path(path).write_bytes(data))
    monkeypatch.setattr(qemu_process, "lives", lambda process: Processes(Now.host).lives(process))
    monkeypatch.setattr(qemu_process, "hangs", lambda process: Processes(Now.host).hangs(process))
    monkeypatch.setattr(qemu_process, "wait_gone", lambda process, s: Processes(Now.host).wait_gone(process, s))

    class Defects(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[0] is not None:
                failed(f"{record.getMessage()}: {record.exc_info[1]!r}")

    logger = logging.getLogger("vdsm")
    monkeypatch.setattr(logger, "handlers", [Defects()])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.ERROR)  # every test ends with the levels that it began with
