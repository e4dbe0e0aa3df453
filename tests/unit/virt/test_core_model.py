# SPDX-License-Identifier: GPL-2.0-or-later
"""The core of VMs against a host on which anything may go wrong, in any order, with time that costs nothing.

Rules do what engines, hooks, guests, admins and broken parts do; after each of them, and when all faults are mended
and time has passed, what clients were told is compared with what is true on the host (`model`).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from tests.soak import SOAK
from vdsm.virt.ending import Ending
from vdsm.virt.hypervisor import Change, DomainEvent, DomainState
from vdsm.virt.power import PowerdownRequest
from vdsm.virt.release import Release
from vdsm.virt.states import ExitReason, exit_for
from vdsm.virt.stops import Stops

from . import model
from .model import Life
from .model_ground import DEFECTS, delays, names, vms
from .model_surroundings import Surroundings
from .model_walks import walk
from .model_xml import VMS, xml_of

FOUND_WITHIN = 150  # walks
# walks that have found something
FOUND_SOMETHING = (1249, 2949511341, 2359920786)
EXAMPLES = int(os.environ.get("VDSM_MODEL_EXAMPLES", "10000" if SOAK else "300"))


class Machine(Surroundings):
    # Engines

    @rule(
        vm_id=vms,
        disks=st.booleans(),
        paused=st.sampled_from([False, False, True]),
        behaviour=st.sampled_from(["auto_resume", "leave_paused", "kill"]),
        destroy_on_reboot=st.sampled_from([False, False, True]),
        agent=st.booleans(),
        after_s=delays,
    )
    def create(self, vm_id: str, disks: bool, after_s: float, **how: Any) -> None:
        xml = xml_of(vm_id, disks=disks, **how)
        life = None
        last = self.watch.lives.get(vm_id)
        gone = self.agent.vms.recovered and vm_id not in self.agent.vms._vms
        gone = gone and not any(call.vm_id == vm_id and call.verb == "create" for call in self.watch.calls)
        if last is None or (gone and (last.destroyed or not last.accepted)):
            life = Life(vm_id, how["behaviour"], how["destroy_on_reboot"])
            life.troubled = bool(self.host.away or self.disk.bad or self.storage.bad or self.host.lives(vm_id))
            life.troubled = life.troubled or any(about == vm_id for about, _ in self.host.faults)
            life.troubled = life.troubled or any(about == vm_id for about, _ in self.agent.hooks.scripts)
            life.troubled = life.troubled or vm_id in self.host.doms
            self.watch.lives[vm_id] = life
        self.watch.call(vm_id, "create", self.agent.vms.create(vm_id, xml), life)
        self.advance(after_s)

    @rule(vm_id=vms, attempts=st.sampled_from([0, 1, 2]), after_s=delays)
    def destroy(self, vm_id: str, attempts: int, after_s: float) -> None:
        life = self.watch.lives.get(vm_id)
        if life is not None:
            life.destroyed = True
            life.reasons |= {6, 10}
        self.watch.call(vm_id, "destroy", self.agent.vms.destroy(vm_id, attempts), life)
        self.advance(after_s)

    @rule(
        vm_id=vms,
        verb=st.sampled_from(
            ["pause", "pause", "cont", "cont", "reset", "freeze", "thaw", "setDestroyOnReboot", "list"]
        ),
        after_s=delays,
    )
    def verb(self, vm_id: str, verb: str, after_s: float) -> None:
        if verb == "setDestroyOnReboot" and (life := self.watch.lives.get(vm_id)):
            life.destroy_on_reboot = True
            life.reasons.add(13)
        self.watch.call(vm_id, verb, self.agent.verb(vm_id, verb), self.watch.lives.get(vm_id))
        self.advance(after_s)

    @rule(vm_id=vms, reboot=st.booleans(), force=st.booleans(), timeout_s=st.sampled_from([0.05, 10.0]), after_s=delays)
    def shut_down(self, vm_id: str, reboot: bool, force: bool, timeout_s: float, after_s: float) -> None:
        request = PowerdownRequest(0, timeout_s, reboot, force)

        async def ask() -> None:
            await self.agent.vms.get(vm_id).power.shut_down(request)

        if (life := self.watch.lives.get(vm_id)) is not None and not reboot:
            life.asked = True
            life.reasons.add(6)
        self.watch.call(vm_id, "shutdown", ask(), life)
        self.advance(after_s)

    @rule(after_s=delays)
    def a_client_leaves(self, after_s: float) -> None:
        calls = sorted(self.watch.calls, key=lambda call: (call.began_s, call.verb, call.vm_id))
        for call in [call for call in calls if call.verb != "create"][:1]:
            call.task.cancel()
        self.advance(after_s)

    @rule(vm_id=vms)
    def whoever_has_no_trouble_waits_for_nobody(self, vm_id: str) -> None:
        """A pause and a resume of a VM without trouble, and a read, are answered at once whatever others suffer."""
        dom, life = self.host.doms.get(vm_id), self.watch.lives.get(vm_id)
        vm = self.agent.vms._vms.get(vm_id)
        calm = not self.host.away and not self.disk.bad and self.disk.slow_s < 0.1 and vm_id not in self.host.late_s
        calm = calm and not any(about == vm_id for about, _ in [*self.host.faults, *self.agent.hooks.scripts])
        calm = calm and life is not None and not life.troubled and dom is not None and dom.qemu is not None
        calm = calm and vm is not None and vm.status.reported == "Up" and not vm.stopping.is_set()
        calm = calm and not any(call.vm_id == vm_id for call in self.watch.calls)
        if not calm or dom is None or dom.qemu is None or dom.qemu.hung or dom.state is not DomainState.RUNNING:
            return
        others = [self.watch.call(vm_id, "list", self.agent.verb(vm_id, "list"), life)]
        for verb in ("pause", "cont"):
            call = self.watch.call(vm_id, verb, self.agent.verb(vm_id, verb), life)
            self.advance(model.READ_S)
            for one in [call, *others]:
                assert one.task.done() and not one.task.exception(), f"{one.verb} is delayed: {one.task}"

    # Agents

    @rule(after_s=delays)
    def the_agent_is_killed(self, after_s: float) -> None:
        for vm_id in VMS[:1]:
            state = self.folder / "state" / "vms"
            if state.is_dir():
                (state / f".{vm_id}.json.cut").write_bytes(b"{")
        self.dropped.append(self.agent)
        self.host.hear = lambda _event: None
        self.watch.restarted()
        self.clock.step(0.0)
        self.new_agent()
        self.advance(after_s)

    @rule(after_s=delays)
    def the_agent_stops_in_order(self, after_s: float) -> None:
        calls = list(self.watch.calls)
        self.watch.restarted()
        for call in calls:
            call.task.cancel()
        stopping = self.agent.loop.create_task(self.agent.vms.stop())
        self.advance(30.0)
        assert stopping.done(), f"the agent does not end: {names(self.agent)}"
        stopping.result()
        assert not (left := names(self.agent)), f"after its end the agent goes on: {left}"
        self.dropped.append(self.agent)
        self.new_agent()
        self.advance(after_s)

    @precondition(lambda self: self.number)
    @rule()
    def all_is_mended(self) -> None:
        self.settle()


def run(examples: int, steps: int = 30) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=not SOAK,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )


@pytest.mark.timeout(20 * 3600 if EXAMPLES > 1000 else 120)
def test_clients_are_told_the_truth_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    model.use_virtual_time(monkeypatch, DEFECTS.append)
    run(EXAMPLES)


@pytest.mark.timeout(20 * 3600 if EXAMPLES > 1000 else 120)
def test_walks_over_few_rules_find_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    model.use_virtual_time(monkeypatch, DEFECTS.append)
    first = random.randrange(1 << 32) if SOAK else 0  # the same walks each time, but where time is no matter
    _walks([*FOUND_SOMETHING, *range(first, first + EXAMPLES // 2)])


def _walks(seeds: Iterable[int]) -> None:
    for seed in seeds:
        try:
            walk(Machine, seed)
        except BaseException as e:
            e.add_note(f"walk(Machine, {seed}) shows it again")
            raise


async def _stop_events_are_believed(self: Stops, event: DomainEvent) -> None:
    if event.change in (Change.STOPPED, Change.CRASHED, Change.MIGRATED, Change.SAVED):
        self._vm.end(exit_for(ExitReason.LOST_QEMU))
    else:
        self._vm.look.soon()


async def _nothing_is_proven(_self: Release) -> None:
    return


def _nothing_is_tried_again(_self: Ending) -> None:
    return


@pytest.mark.parametrize(
    ("where", "name", "rule_before", "found"),
    [
        (Stops, "_changed", _stop_events_are_believed, "is Down for 2"),
        (Release, "_prove_gone", _nothing_is_proven, "its QEMU lives|under the QEMU"),
        (Ending, "retry", _nothing_is_tried_again, "is Powering down, and does not run"),
    ],
)
def test_the_model_finds_a_rule_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, where: type, name: str, rule_before: Any, found: str
) -> None:
    model.use_virtual_time(monkeypatch, DEFECTS.append)
    monkeypatch.setattr(where, name, rule_before)
    with pytest.raises(AssertionError, match=found):
        _walks(range(FOUND_WITHIN))
