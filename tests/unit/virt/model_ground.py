# SPDX-License-Identifier: GPL-2.0-or-later
"""What every rule of the model stands on: a host, an agent, who watches, and what must be true when all is mended."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from vdsm.virt.hypervisor import DomainState

from .model import Agent, Disk, Life, Now, Watch
from .model_host import Dom, Host, Storage
from .model_xml import VMS
from .virtual_time import Clock

SETTLE_S = 700.0  # the longest deadlines one after the other

vms = st.sampled_from(VMS)
delays = st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.05, 0.3, 1.0, 5.0, 16.0, 65.0, 100.0])
# no file of an example is worth a disk
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
DEFECTS: list[str] = []


class Ground(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="vdsm-model-", dir=_MEMORY))
        (self.folder / "run").mkdir()
        Now.clock, Now.disk = Clock(), Disk()
        Now.host = self.host = Host(Now.clock)
        self.clock, self.disk = Now.clock, Now.disk
        self.storage = Storage(self.host)
        self.watch = Watch(self.host, self.disk)
        self.host.on_end, self.host.on_reboot = self.ended, self.rebooted
        self.forgets: set[str] = set()
        self.number = 0
        self.dropped: list[Agent] = []
        DEFECTS.clear()

    def teardown(self) -> None:
        self.watch.ended = True
        for agent in [*self.dropped, self.agent]:
            agent.loop.bury()
        DEFECTS.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize()
    def begin(self) -> None:
        self.new_agent()

    @invariant()
    def nothing_is_wrong(self) -> None:
        if self.number:
            self.watch.look()
            assert not (self.host.violations or DEFECTS), "\n".join(self.host.violations + DEFECTS)

    def new_agent(self) -> None:
        self.number += 1
        scripts = self.agent.hooks.scripts if self.number > 1 else {}
        self.agent = Agent(self.number, self.watch, self.folder, self.storage, self.forgets)
        self.agent.hooks.scripts = scripts
        self.agent.start()

    def advance(self, seconds: float) -> None:
        self.agent.loop.advance(seconds)

    def runs(self, vm_id: str) -> bool:
        dom = self.host.doms.get(vm_id)
        return dom is not None and dom.state is DomainState.RUNNING and dom.qemu is not None and not dom.qemu.hung

    def free(self, vm_id: str) -> None:
        for qemu in self.host.qemus:
            if qemu.vm_id == vm_id and qemu.hung:
                self.host.unhang(qemu)

    def ended(self, vm_id: str, how: str) -> None:
        life = self.watch.lives.get(vm_id)
        told = {"shutdown": 7, "crashed": 2, "saved": 5, "missing": 9}.get(how)
        if life is not None and told is not None:
            life.reasons.add(told)
        dom = self.host.doms.get(vm_id)
        if life is not None and dom is not None and not dom.persistent:
            life.reasons.add(9)

    def rebooted(self, vm_id: str) -> None:
        life = self.watch.lives.get(vm_id)
        if life is not None and life.destroy_on_reboot:
            life.reasons.add(13)

    def settle(self) -> None:
        """Everything is mended, and time passes."""
        host = self.host
        host.faults.clear()
        self.agent.hooks.scripts.clear()
        host.late_s.clear()
        self.forgets.clear()
        self.disk.bad, self.disk.slow_s = False, 0.002
        self.storage.bad.clear()
        host.come_back()
        for vm_id in VMS:
            self.free(vm_id)
        for qemu in host.qemus:  # of no domain: an admin ends it
            dom = host.doms.get(qemu.vm_id)
            if qemu.alive and (dom is None or dom.qemu is not qemu):
                host.bury(qemu)
        self.advance(SETTLE_S)
        self.nothing_is_wrong()
        self.check_settled()

    def check_settled(self) -> None:
        told = {vm.vm_id: vm for vm in self.agent.vms.all()}
        assert not self.watch.calls, f"never answered: {self.watch.calls}"
        for vm_id in VMS:
            self.check_one(vm_id, self.host.doms.get(vm_id), self.watch.lives.get(vm_id), told)
        files = sorted(path.name for path in (self.folder / "state/vms").iterdir())
        assert files == sorted(f"{vm_id}.json" for vm_id in told), f"records {files}, VMs {sorted(told)}"
        folders = {path.name for path in (self.folder / "run").iterdir()}
        assert folders <= {vm_id for vm_id, vm in told.items() if not vm.status.down}, f"folders {folders}"

    def check_one(self, vm_id: str, dom: Dom | None, life: Life | None, told: dict[str, Any]) -> None:
        name = f"VM {vm_id[-2:]}"
        vm = told.get(vm_id)
        status = "" if vm is None else str(vm.status.reported)
        active = dom is not None and dom.active
        if vm is None:
            assert not active, f"{name} runs, and is not told"
            assert life is None or not life.accepted or (life.destroyed and life.downs), f"{name} is lost"
            self.watch.lives.pop(vm_id, None)
            tasks = [name for name in names(self.agent) if vm_id in name]
            assert not tasks, f"{name} is forgotten, and goes on: {tasks}"
        elif status == "Down":
            known = self.watch.disk_was_bad or (life is not None and life.downs)
            assert known, f"{name} is Down, and nobody was told"
            assert not active, f"{name} is Down, and runs"
        else:
            assert dom is not None and active, f"{name} is {status}, and does not run"
            wanted = "Up" if dom.state is DomainState.RUNNING else "Paused"
            assert status == wanted, f"{name} is {status}, and truly {wanted} ({dom.reason})"
            last = life.told[-1:] if life is not None else []
            assert last and ("Paused" in last) is (wanted == "Paused"), f"{name} is {wanted}, and was told as {last}"
            if dom.reason == "ioerror" and dom.state is DomainState.PAUSED and life is not None:
                assert not life.codes or vm.status.pause_code in life.codes, (
                    f"{name}: {vm.status.pause_code} {life.codes}"
                )
            kills = vm.description.metadata.resume_behaviour == "kill" and vm.status.pause_code not in ("", "NOERR")
            assert not kills, f"{name} is paused by a disk ({vm.status.pause_code}) for ever"
        if vm is None or status == "Down":
            kept = dom is None or dom.reason == "saved" or vm_id in self.host.strays
            assert kept, f"{name} has a domain left"
            assert not self.storage.used_by(vm_id), f"{name} is gone, and has images prepared"


def names(agent: Agent) -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks(agent.loop)]
