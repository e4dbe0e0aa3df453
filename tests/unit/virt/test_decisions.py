# SPDX-License-Identifier: GPL-2.0-or-later
"""What a new agent decides about each VM: records against libvirt's domains, by the table of `recovery`."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.hypervisor import Domain, DomainState
from vdsm.virt.records import Phase, Record
from vdsm.virt.recovery import Action, Decision, decide, is_foreign
from vdsm.virt.states import Exit, ExitReason, exit_for

from .fakes import DOMAIN, IMAGE, POOL, VM, VOLUME, disk, new_id, xml_of

OURS = xml_of(disks=[disk()])
FOREIGN = f"<domain><name>other</name><uuid>{VM}</uuid></domain>"
ENDED = exit_for(ExitReason.USER_SHUTDOWN)


def record(phase: Phase, xml: str = OURS, exit_: Exit | None = None, heard: ExitReason | None = None) -> Record:
    return Record(vm_id=VM, name="recorded", phase=phase, xml=xml, exit=exit_, heard=heard)


def runs(xml: str = OURS) -> Domain:
    return Domain(VM, "listed", DomainState.RUNNING, "booted", xml, active=True)


def off(reason: str = "shutdown", xml: str = OURS) -> Domain:
    return Domain(VM, "listed", DomainState.OFF, reason, xml, active=False)


def one(known: Record | None, found: Domain | None, unreadable: Mapping[str, str] | None = None) -> Decision:
    (decision,) = decide([known] if known else [], unreadable or {}, [found] if found else [])
    return decision


@pytest.mark.parametrize(
    ("phase", "when_it_runs", "off_or_gone"),
    [
        (Phase.STARTING, Action.ADOPT, Action.RELEASE),
        (Phase.LAUNCHING, Action.ADOPT, Action.RELEASE),
        (Phase.RUNNING, Action.ADOPT, Action.RELEASE),
        (Phase.RELEASING, Action.RELEASE, Action.RELEASE),
        (Phase.DOWN, Action.ADOPT, Action.REPORT_DOWN),
        (Phase.LEFT, Action.ADOPT, Action.CLEAN),
    ],
)
def test_each_phase_meets_what_libvirt_has(phase: Phase, when_it_runs: Action, off_or_gone: Action) -> None:
    assert one(record(phase), runs()).action is when_it_runs
    assert one(record(phase), off()).action is off_or_gone
    assert one(record(phase), None).action is off_or_gone


def test_an_interrupted_end_and_a_down_vm_keep_their_exit() -> None:
    for phase in (Phase.RELEASING, Phase.DOWN):
        assert one(record(phase, exit_=ENDED), None).exit == ENDED
    assert one(record(Phase.RELEASING, exit_=ENDED), runs()).exit == ENDED


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.LAUNCHING])
def test_a_start_that_was_interrupted_says_so(phase: Phase) -> None:
    found = one(record(phase), off("destroyed"))
    assert found.exit is not None
    assert (found.exit.code, found.exit.reason) == (1, 1)
    assert found.exit.message == "The agent ended while it was starting the VM"


@pytest.mark.parametrize(
    ("known", "found", "reason"),
    [
        (record(Phase.RUNNING), off("shutdown"), 7),
        (record(Phase.RUNNING), off("crashed"), 2),
        (record(Phase.RUNNING), off("destroyed"), 6),
        (record(Phase.RUNNING, heard=ExitReason.HOST_SHUTDOWN), off("destroyed"), 11),
        (record(Phase.RUNNING), None, 9),
        (record(Phase.RUNNING, heard=ExitReason.USER_SHUTDOWN), None, 7),
    ],
)
def test_a_vm_that_ended_meanwhile_has_the_reason_of_its_end(known: Record, found: Domain | None, reason: int) -> None:
    exit_ = one(known, found).exit
    assert exit_ is not None and exit_.reason == reason


def test_only_a_start_that_reached_qemu_has_its_hook_left_to_run() -> None:
    assert {phase: one(record(phase), runs()).start_unfinished for phase in Phase if phase is not Phase.RELEASING} == {
        Phase.STARTING: False,
        Phase.LAUNCHING: True,
        Phase.RUNNING: False,
        Phase.DOWN: False,
        Phase.LEFT: False,
    }


def test_a_foreign_domain_with_the_uuid_of_a_recorded_vm_is_told_and_not_taken() -> None:
    found = one(record(Phase.RUNNING), runs(FOREIGN))
    assert (found.action, found.domain) == (Action.RELEASE, None)
    assert "foreign domain 'listed'" in found.problem


@pytest.mark.parametrize(("live", "recorded", "name"), [(OURS, "<", "vm-0063"), ("<", OURS, "vm-0063")])
def test_what_can_be_read_describes_the_vm(live: str, recorded: str, name: str) -> None:
    found = one(record(Phase.RUNNING, recorded), runs(live))
    assert found.description.name == name
    assert [drive.target for drive in found.description.drives] == ["vda"]
    assert bool(found.problem) is (live == "<")


def test_a_vm_of_which_nothing_can_be_read_has_its_name_and_its_problem() -> None:
    found = one(record(Phase.RUNNING, "<"), runs("<also"))
    assert (found.action, found.description.vm_id, found.description.name) == (Action.ADOPT, VM, "recorded")
    assert found.description.drives == () and not found.description.acpi and not found.description.agent_channel
    assert f"the XML of VM {VM}" in found.problem
    assert not is_foreign(runs("<also"))  # what can't be read is the recorded VM


# Without a record


def test_a_domain_of_ours_that_nobody_recorded_is_taken_over_with_its_images_and_its_start() -> None:
    xml = xml_of(disks=[disk()], metadata="<ovirt-vm:startTime type='float'>12.5</ovirt-vm:startTime>")
    found = one(None, runs(xml))
    assert (found.action, found.problem, found.exit, found.start_unfinished) == (Action.ADOPT, "", None, False)
    assert found.record == Record(
        vm_id=VM,
        name="listed",
        phase=Phase.RUNNING,
        xml=xml,
        images=(ImageId(POOL, DOMAIN, IMAGE, VOLUME),),
        started_at_s=12.5,
    )


def test_a_domain_of_ours_that_is_off_and_nobody_recorded_is_down_as_gone() -> None:
    found = one(None, off())
    assert (found.action, found.record.phase) == (Action.RELEASE, Phase.DOWN)
    assert found.exit == found.record.exit == exit_for(ExitReason.DOMAIN_MISSING)
    assert found.record.images == (ImageId(POOL, DOMAIN, IMAGE, VOLUME),)


@pytest.mark.parametrize("found", [runs(FOREIGN), off(xml=FOREIGN), off(xml="<")])
def test_what_is_not_ours_or_off_and_not_to_be_read_is_left_alone(found: Domain) -> None:
    assert decide([], {}, [found]) == []


def test_a_running_domain_that_can_not_be_read_is_taken_over_by_its_name() -> None:
    found = one(None, runs("<"))
    assert (found.action, found.record.phase, found.description.name) == (Action.ADOPT, Phase.RUNNING, "listed")
    assert VM in found.problem


def test_a_record_that_can_not_be_read_is_the_problem_that_is_told() -> None:
    unreadable = {VM: "/x.json: broken"}
    assert one(None, runs(), unreadable).problem == "/x.json: broken"
    assert one(None, runs("<"), unreadable).problem == "/x.json: broken"


def test_each_vm_has_one_decision_in_the_order_of_ids() -> None:
    ids = sorted(new_id() for _ in range(5))
    records = [Record(vm_id=vm_id, name="x", phase=Phase.RUNNING, xml="") for vm_id in (ids[3], ids[0])]
    domains = [
        Domain(vm_id, "x", DomainState.RUNNING, "", xml_of(vm_id), active=True) for vm_id in (ids[4], ids[3], ids[1])
    ]
    assert [found.record.vm_id for found in decide(records, {}, domains)] == [ids[0], ids[1], ids[3], ids[4]]
