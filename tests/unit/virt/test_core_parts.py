# SPDX-License-Identifier: GPL-2.0-or-later
"""Small parts of the core by themselves: lanes, slots, claims, what was given, foreign domains."""

from __future__ import annotations

import asyncio
import logging

import pytest

from vdsm.common.xml import parse
from vdsm.virt import audit, mailbox
from vdsm.virt.claims import Answer, Claim, Claims, answer
from vdsm.virt.domain_xml.description import describe
from vdsm.virt.errors import ClaimedByJob, ForeignDomain, NoSuchVm
from vdsm.virt.hypervisor import Change, ClockShift, DeviceAdded, DomainState, Watchdog
from vdsm.virt.mailbox import Mailbox
from vdsm.virt.slots import Slots, fitting

from .fakes import VM, FakeDomain, World, disk, new_id, settle, until, xml_of

# Lanes


async def test_events_are_worked_off_in_order_and_a_failure_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    box, done = Mailbox(VM, asyncio.Semaphore(1)), []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        if number == 1:
            raise ValueError("odd")
        done.append(number)

    for number in range(4):
        assert box.event(str(number), lambda number=number: work(number))  # type: ignore[misc]
    await settle()
    assert done == [0, 2, 3]
    assert "odd" in caplog.text


async def test_the_event_lane_is_bounded() -> None:
    box = Mailbox(VM, asyncio.Semaphore(1))

    async def hangs() -> None:
        await asyncio.Event().wait()

    assert [box.event("x", hangs) for _ in range(mailbox.EVENTS_LIMIT)] == [True] * mailbox.EVENTS_LIMIT
    await settle()
    assert box.event("x", hangs)  # one is being worked off
    assert not box.event("x", hangs)
    box.close()


async def test_hooks_of_all_vms_share_the_hosts_limit_and_those_of_one_keep_their_order() -> None:
    slots, go, begun = asyncio.Semaphore(2), asyncio.Event(), []
    boxes = [Mailbox(str(number), slots) for number in range(3)]

    async def hook(name: str) -> None:
        begun.append(name)
        await go.wait()

    for number, box in enumerate(boxes):
        for nth in (1, 2):
            box.hook("x", lambda number=number, nth=nth: hook(f"{number}.{nth}"))  # type: ignore[misc]
    await settle()
    assert begun == ["0.1", "1.1"]
    go.set()
    await settle()
    assert begun.index("2.1") < begun.index("2.2")
    assert len(begun) == 6


async def test_a_flood_of_events_ends_in_a_look(world: World) -> None:
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.reported == "Up")
    world.hypervisor.found[VM].state = DomainState.PAUSED
    for number in range(2 * mailbox.EVENTS_LIMIT):
        world.hypervisor.hear(ClockShift(VM, number))
    await until(lambda: vm.status.reported == "Paused")


# Slots


@pytest.mark.parametrize(
    ("cores", "gib", "count"), [(1, 64, 4), (2, 64, 4), (8, 64, 16), (8, 24, 6), (64, 1024, 32), (8, 4, 4)]
)
def test_slots_follow_cores_and_memory(cores: int, gib: int, count: int) -> None:
    assert fitting(cores, gib << 30) == count


async def test_slots_are_served_in_order_of_arrival() -> None:
    slots, served = Slots(1), []
    first = await slots.take()

    async def start(number: int) -> None:
        slot = await slots.take()
        served.append(number)
        slot.give_back()

    waiting = [asyncio.create_task(start(number)) for number in range(5)]
    await settle()
    assert served == []
    first.give_back()
    await asyncio.wait(waiting)
    assert served == [0, 1, 2, 3, 4]


async def test_a_slot_that_is_held_too_long_goes_to_the_next_once() -> None:
    slots = Slots(1, held_s=0.01)
    first = await slots.take()
    async with asyncio.timeout(1):
        second = await slots.take()
    first.give_back()
    third = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    assert not third.done()
    second.give_back()
    (await third).give_back()


# Claims: held, wanted, answer; by hand from the table in the docstring and virt.md §12
REFUSED = (
    "MIGRATION:PLUG SAVE:PLUG SAVE:MIGRATION MIGRATION:SNAPSHOT MERGE:COPY COPY:RESIZE SNAPSHOT:SNAPSHOT BACKUP:MERGE"
)
WAITS = "MERGE:EXTEND COPY:EXTEND PLUG:PLUG EXTEND:EXTEND TUNING:TUNING MEDIA:MEDIA"
FREE = "MIGRATION:EXTEND MIGRATION:TUNING MERGE:PLUG BACKUP:PLUG SNAPSHOT:PLUG EXTEND:MERGE"


@pytest.mark.parametrize(
    ("pair", "said"),
    [(pair, Answer.REFUSE) for pair in REFUSED.split()]
    + [(pair, Answer.WAIT) for pair in WAITS.split()]
    + [(pair, None) for pair in FREE.split()],
)
def test_the_table_of_claims(pair: str, said: Answer | None) -> None:
    held, _, wanted = pair.partition(":")
    assert answer(Claim[held], Claim[wanted]) is said


async def test_a_claim_is_refused_by_name_while_another_is_held() -> None:
    claims = Claims(VM)
    async with claims.take(Claim.MERGE, "vda"):
        assert claims.holds(Claim.MERGE) and not claims.holds(Claim.COPY)
        with pytest.raises(ClaimedByJob, match="a copy of a disk can't begin, a merge goes on"):
            async with claims.take(Claim.COPY, "vda"):
                pass
        async with claims.take(Claim.COPY, "vdb"):
            pass
    assert not claims.holds(Claim.MERGE)


async def test_a_claim_that_waits_gets_its_turn_when_the_other_is_given_back() -> None:
    claims, got = Claims(VM), asyncio.Event()

    async def extend() -> None:
        async with claims.take(Claim.EXTEND, "vda"):
            got.set()

    async with claims.take(Claim.MERGE, "vda"):
        waiting = asyncio.create_task(extend())
        await settle()
        assert not got.is_set()
    await waiting
    assert got.is_set()


async def test_a_claim_is_given_back_however_the_work_ends() -> None:
    claims = Claims(VM)
    with pytest.raises(ValueError, match="odd"):
        async with claims.take(Claim.SNAPSHOT):
            raise ValueError("odd")
    assert not claims.holds(Claim.SNAPSHOT)


# What was given


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage().partition(": ")[2] for r in caplog.records if r.name == "vdsm.audit.vm"]


def described(*, memory: str = "<memory unit='MiB'>64</memory>", devices: str = "") -> audit.Description:
    text = xml_of(disks=[disk()], devices=devices).replace("<memory>65536</memory>", f"{memory}<vcpu>2</vcpu>")
    return describe(parse(text, what="test"))


NIC = "<interface type='bridge'><mac address='56:6f:00:00:00:01'/><source bridge='{}'/></interface>"
PCI = "<hostdev type='pci'><source><address bus='0x3' domain='0x0' function='0x0' slot='0x0'/></source></hostdev>"


def test_what_a_vm_was_given_is_logged_and_later_what_changed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    given = audit.record(VM, {}, described(devices=NIC.format("red") + PCI))
    assert lines(caplog) == [
        "given memory 65536 KiB",
        "given processors 2",
        "given disk vda nothing",
        "given interface 56:6f:00:00:00:01 red",
        "given host device pci bus=0x3 domain=0x0 function=0x0 slot=0x0",
    ]
    caplog.clear()
    audit.record(VM, given, described(memory="<memory unit='GiB'>1</memory>", devices=NIC.format("blue")))
    assert lines(caplog) == [
        "memory changed from 65536 KiB to 1048576 KiB",
        "interface 56:6f:00:00:00:01 changed from red to blue",
        "taken host device pci bus=0x3 domain=0x0 function=0x0 slot=0x0",
    ]


async def test_a_start_is_audited_once_and_a_restart_is_no_news(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="vdsm.audit.vm")
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up")
    await settle()
    assert len([line for line in lines(caplog) if "given disk vda" in line]) == 1
    caplog.clear()
    await world.restart()
    await settle()
    assert lines(caplog) == []


async def test_a_device_that_somebody_plugged_is_seen(world: World) -> None:
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.reported == "Up")
    before = world.vms.stats(VM)["hash"]
    world.hypervisor.found[VM].xml = xml_of(devices=NIC.format("red"))
    world.hypervisor.hear(DeviceAdded(VM, "net0"))
    await until(lambda: world.vms.stats(VM)["hash"] != before)


async def test_what_the_watchdog_did_is_in_the_statistics(world: World) -> None:
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.reported == "Up")
    assert "watchdogEvent" not in world.vms.stats(VM)
    world.hypervisor.hear(Watchdog(VM, "reset"))
    await settle()
    assert world.vms.stats(VM)["watchdogEvent"]["action"] == "reset"


async def test_the_guests_clock_is_that_of_the_xml_and_outlives_agent_and_domain(world: World) -> None:
    xml = xml_of(more="<clock offset='variable' adjustment='-7200'/>")
    vm = await world.vms.create(VM, xml)
    await until(lambda: vm.status.reported == "Up")
    assert world.vms.stats(VM)["timeOffset"] == "-7200"
    world.hypervisor.hear(ClockShift(VM, 60))
    await settle()
    await world.restart()
    assert world.vms.stats(VM)["timeOffset"] == "60"
    world.hypervisor.guest_ends(VM)
    await until(lambda: world.vms.get(VM).status.down)
    await world.restart()
    assert world.vms.stats(VM)["timeOffset"] == "60"


# Foreign domains

FOREIGN = "<domain type='qemu'><name>theirs</name><uuid>{}</uuid><devices/></domain>"


async def test_a_foreign_domain_is_listed_while_it_runs_and_left_alone(world: World) -> None:
    foreign = new_id()
    world.hypervisor.found[foreign] = FakeDomain(FOREIGN.format(foreign), DomainState.RUNNING)
    await world.restart()
    assert [(vm["vmId"], vm["status"]) for vm in world.vms.brief()] == [(foreign, "Up")]
    assert world.vms.stats(foreign)["vmName"] == "theirs"
    with pytest.raises(ForeignDomain, match="theirs"):
        await world.vms.destroy(foreign)
    world.hypervisor.found[foreign].state = DomainState.PAUSED
    world.hypervisor.tell(foreign, Change.SUSPENDED)
    await settle()
    assert world.vms.all_stats()[0]["status"] == "Paused"
    world.hypervisor.found[foreign].state = DomainState.OFF
    world.hypervisor.tell(foreign, Change.STOPPED)
    await settle()
    assert world.vms.all_stats() == []
    with pytest.raises(NoSuchVm):
        world.vms.get(foreign)
    assert world.hypervisor.calls == []


async def test_a_foreign_domain_that_comes_later_is_seen(world: World) -> None:
    foreign, appliance = new_id(), new_id()
    world.hypervisor.found[foreign] = FakeDomain(FOREIGN.format(foreign), DomainState.RUNNING)
    xml = FOREIGN.format(appliance).replace("theirs", "guestfs-xyz")
    world.hypervisor.found[appliance] = FakeDomain(xml, DomainState.RUNNING)
    for vm_id in (foreign, appliance):
        world.hypervisor.tell(vm_id, Change.STARTED)
    await settle()
    assert [vm["vmId"] for vm in world.vms.brief()] == [foreign]
    del world.hypervisor.found[foreign]
    world.hypervisor.tell(foreign, Change.STOPPED)
    await settle()
    assert world.vms.brief() == []


async def test_a_vm_of_ours_that_somebody_starts_again_after_it_was_let_go_is_taken_over(world: World) -> None:
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Up")
    again = FakeDomain(world.hypervisor.found[VM].xml, DomainState.RUNNING)
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    world.hypervisor.found[VM] = again
    world.hypervisor.tell(VM, Change.STARTED)
    await settle()
    assert vm.status.reported == "Down"
    await world.vms.destroy(VM)
    await until(lambda: [vm.status.reported for vm in world.vms.all()] == ["Up"])
    assert again.state is DomainState.RUNNING
    assert world.storage.prepared
    await world.vms.destroy(VM)
    assert (world.vms.all(), world.records(), world.storage.prepared) == ([], [], set())


async def test_a_vm_of_ours_that_somebody_starts_from_nothing_is_taken_over(world: World) -> None:
    world.hypervisor.found[VM] = FakeDomain(xml_of(disks=[disk()]), DomainState.RUNNING)
    world.hypervisor.tell(VM, Change.STARTED)
    await until(lambda: [vm.status.reported for vm in world.vms.all()] == ["Up"])
    assert world.events.statuses() == ["Up"]
