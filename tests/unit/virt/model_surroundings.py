# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of the model: what guests, admins and broken parts do to VMs."""

from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import rule

from vdsm.virt.hypervisor import Change, DiskTrouble, DomainState, Watchdog

from .model_ground import Ground, delays, vms
from .model_host import FAULTS, Dom
from .model_xml import CODES, DOMAINS, image_of

FOREIGN = "00000000-0000-0000-0000-0000000000f0"
FAULTY = ("domain", "define", "launch", "pause", "resume", "reset", "terminate", "kill", "undefine", "disk_errors")
FAULTY += ("ask_shutdown", "ask_agent_shutdown", "freeze")
POINTS = ("before_vm_start", "after_vm_start", "before_vm_pause", "after_vm_pause", "before_vm_cont", "after_vm_cont")
POINTS += ("before_vm_destroy", "after_vm_destroy")
SCRIPTS = ("fails", "hangs", "calls pause", "calls cont", "calls destroy", "calls stats", "calls list")


class Surroundings(Ground):
    # Guests

    @rule(vm_id=vms, after_s=delays)
    def the_guest_ends(self, vm_id: str, after_s: float) -> None:
        if self.runs(vm_id):
            self.host.tell(vm_id, Change.SHUTDOWN_GUEST)
            self.host.end(vm_id, "shutdown", Change.STOPPED)
        self.advance(after_s)

    @rule(vm_id=vms, after_s=delays)
    def the_guest_reboots(self, vm_id: str, after_s: float) -> None:
        if self.runs(vm_id):
            self.host.reset(vm_id)
        self.advance(after_s)

    @rule(vm_id=vms, after_s=delays, preserve=st.booleans())
    def the_guest_panics(self, vm_id: str, after_s: float, preserve: bool) -> None:
        if self.runs(vm_id):
            self.host.tell(vm_id, Change.PANICKED)
            if preserve:
                self.host.doms[vm_id].state, self.host.doms[vm_id].reason = DomainState.CRASHED, "panicked"
                self.host.note(vm_id, "stands")
            else:
                self.host.end(vm_id, "crashed", Change.CRASHED)
        self.advance(after_s)

    @rule(
        vm_id=vms,
        reason=st.sampled_from(["enospc", "eio", "eperm", "", "eother"]),
        paused=st.sampled_from([True, True, False]),
        after_s=delays,
    )
    def a_disk_fails(self, vm_id: str, reason: str, paused: bool, after_s: float) -> None:
        if self.runs(vm_id):
            self.host.emit(DiskTrouble(vm_id, "ua-0", f"/rhev/{image_of(vm_id)}", reason, paused), vm_id)
            if paused:
                self.host.doms[vm_id].errors = {"vda": "no space" if reason == "enospc" else "unspecified"}
                self.host.pause(vm_id, "ioerror", Change.SUSPENDED_IOERROR)
                if life := self.watch.lives.get(vm_id):
                    life.reasons |= {14} if life.behaviour in ("kill", "") else set()
                    coarse = {"EOTHER", "ENOSPC" if reason == "enospc" else "EIO"}
                    heard = vm_id not in self.host.late_s and not self.host.away
                    life.codes = {"NOERR", CODES[reason]} | (set() if heard else coarse)
        self.advance(after_s)

    @rule(domain=st.sampled_from(DOMAINS), after_s=delays)
    def storage_is_valid_again(self, domain: str, after_s: float) -> None:
        self.storage.bad.pop(domain, None)
        self.agent.loop.call_soon(self.agent.vms.storage_is_back, domain)
        self.advance(after_s)

    @rule(vm_id=vms, action=st.sampled_from(["pause", "reset", "log"]), after_s=delays)
    def the_watchdog_barks(self, vm_id: str, action: str, after_s: float) -> None:
        if self.runs(vm_id):
            self.host.emit(Watchdog(vm_id, action), vm_id)
            if action == "pause":
                self.host.pause(vm_id, "watchdog", Change.SUSPENDED_WATCHDOG)
            elif action == "reset":
                self.host.reset(vm_id)
        self.advance(after_s)

    @rule(vm_id=vms, connected=st.booleans(), after_s=delays)
    def the_guest_agent(self, vm_id: str, connected: bool, after_s: float) -> None:
        dom = self.host.doms.get(vm_id)
        if dom is not None and self.runs(vm_id) and "guest_agent" in dom.xml:
            old, new = ("disconnected", "connected") if connected else ("'connected", "'disconnected")
            dom.xml = dom.xml.replace(old, new)
            self.host.tell(vm_id, Change.AGENT_CONNECTED if connected else Change.AGENT_DISCONNECTED)
        self.advance(after_s)

    @rule(vm_id=vms, change=st.sampled_from([Change.STOPPED, Change.CRASHED, Change.MIGRATED, Change.SAVED]))
    def an_event_of_an_earlier_run_arrives(self, vm_id: str, change: Change) -> None:
        self.watch.may_end(vm_id, 2, 4, 5)  # where it truly ends before anybody looked
        self.host.tell(vm_id, change)
        self.advance(0.001)

    # Admins

    @rule(
        vm_id=vms, what=st.sampled_from(["suspend", "resume", "destroy", "save", "undefine", "start"]), after_s=delays
    )
    def virsh(self, vm_id: str, what: str, after_s: float) -> None:
        dom, host = self.host.doms.get(vm_id), self.host
        if dom is None or (dom.qemu is not None and dom.qemu.hung):
            return
        vm = self.agent.vms._vms.get(vm_id)
        if what == "start":
            # not what the agent has let go: then it is somebody else's
            if vm is not None and vm.launched and not vm.ending.begun and not dom.active and not host.lives(vm_id):
                self.watch.trouble(vm_id)
                host.launch(vm_id, paused=False)
        elif what == "suspend" and dom.active:
            host.pause(vm_id)
        elif what == "resume" and dom.state is DomainState.PAUSED:
            host.resume(vm_id)
        elif what == "destroy" and dom.active:
            self.watch.may_end(vm_id, 2, 6)
            host.end(vm_id, "destroyed", Change.STOPPED)
        elif what == "save" and dom.active:
            host.end(vm_id, "saved", Change.SAVED)
        elif what == "undefine":
            self.watch.trouble(vm_id)
            self.watch.may_end(vm_id, 9)
            host.undefine(vm_id)
        self.advance(after_s)

    @rule(comes=st.booleans(), after_s=delays)
    def a_foreign_domain(self, comes: bool, after_s: float) -> None:
        if comes and FOREIGN not in self.host.doms:
            xml = f"<domain type='kvm'><name>other</name><uuid>{FOREIGN}</uuid></domain>"
            self.host.doms[FOREIGN] = Dom(FOREIGN, "other", xml, ours=False)
            self.host.launch(FOREIGN, paused=False)
        elif not comes and FOREIGN in self.host.doms:
            self.host.end(FOREIGN, "shutdown", Change.STOPPED)
            self.host.doms.pop(FOREIGN, None)
        self.advance(after_s)

    # Broken parts

    @rule(vm_id=vms, call=st.sampled_from(FAULTY), fault=st.sampled_from(sorted(FAULTS)))
    def a_call_will_fail(self, vm_id: str, call: str, fault: str) -> None:
        if call == "define" and fault == "timeout, done later":
            return  # a definition that nobody waits for: the next create, or the next agent, removes it
        self.watch.trouble(vm_id)
        self.host.faults.setdefault((vm_id, call), deque()).append(FAULTS[fault])

    @rule(vm_id=vms, point=st.sampled_from(POINTS), script=st.sampled_from(SCRIPTS))
    def a_script_will(self, vm_id: str, point: str, script: str) -> None:
        self.watch.trouble(vm_id)
        self.agent.hooks.scripts[vm_id, point] = script

    @rule(vm_id=vms, late_s=st.sampled_from([None, 0.02, 2.0, 30.0, 0.0]), twice=st.booleans())
    def events_will_be(self, vm_id: str, late_s: float | None, twice: bool) -> None:
        self.host.late_s[vm_id] = late_s
        (self.host.twice.add if twice else self.host.twice.discard)(vm_id)

    @rule(how=st.sampled_from(["fails", "hangs"]), for_s=delays)
    def libvirt_is_away(self, how: str, for_s: float) -> None:
        self.watch.trouble()
        if not self.host.away:
            self.host.leave(how)
        self.advance(for_s)

    @rule(after_s=delays)
    def libvirt_is_back(self, after_s: float) -> None:
        self.host.come_back()
        self.advance(after_s)

    @rule(vm_id=vms, forgets=st.booleans())
    def qemu_hangs(self, vm_id: str, forgets: bool) -> None:
        dom = self.host.doms.get(vm_id)
        if dom is not None and dom.qemu is not None:
            self.watch.trouble(vm_id)
            dom.qemu.hung = True
            if forgets:
                self.forgets.add(vm_id)

    @rule(vm_id=vms, after_s=delays)
    def qemu_goes_on(self, vm_id: str, after_s: float) -> None:
        self.free(vm_id)
        self.advance(after_s)

    @rule(vm_id=vms, after_s=delays)
    def qemu_is_killed(self, vm_id: str, after_s: float) -> None:
        if self.runs(vm_id):
            self.host.end(vm_id, "crashed", Change.CRASHED)
        self.advance(after_s)

    @rule(vm_id=vms, after_s=delays)
    def libvirt_loses_a_domain(self, vm_id: str, after_s: float) -> None:
        if vm_id in self.host.doms:
            self.watch.trouble(vm_id)
            self.watch.may_end(vm_id, 9)
            self.host.lose(vm_id)
        self.advance(after_s)

    @rule(domain=st.sampled_from(DOMAINS), how=st.sampled_from(["fails", "hangs"]))
    def storage_breaks(self, domain: str, how: str) -> None:
        self.watch.trouble()
        self.storage.bad[domain] = how

    @rule(bad=st.booleans(), slow=st.booleans(), after_s=delays)
    def the_disk_for_records(self, bad: bool, slow: bool, after_s: float) -> None:
        if bad:
            self.watch.trouble()
        self.disk.bad, self.disk.slow_s = bad, 3.0 if slow else 0.002
        self.watch.disk_was_bad = self.watch.disk_was_bad or bad
        self.advance(after_s)
