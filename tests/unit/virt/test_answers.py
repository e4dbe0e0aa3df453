# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics as they go out: encoded once a sample, with what is of the moment."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from vdsm.common import encoded
from vdsm.virt import report
from vdsm.virt.errors import NoSuchVm, Recovering
from vdsm.virt.hypervisor import Change, DomainState
from vdsm.virt.libvirt_edge.counters import read
from vdsm.virt.lifecycle import Cause
from vdsm.virt.states import Exit, ExitReason, PauseCode, exit_for
from vdsm.virt.stats.answers import SLICE_S, Answers
from vdsm.virt.stats.counters import Block, Counters
from vdsm.virt.stats.samples import Samples

from .fakes import IMAGE, VM, FakeDomain, World, disk, new_id, until, xml_of
from .shown import ShownVm, described
from .test_engine_casts import SAMPLE


class Stage:
    """One VM, and what is told of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **xml: Any) -> None:
        self.now = 100.0
        self.samples = Samples(lambda: self.now)
        self.answers = Answers(self.samples)
        self.vm = ShownVm(VM, xml_of(disks=[disk()], **xml))
        self.made = 0
        real = report.lasting

        def lasting(*given: Any) -> dict[str, Any]:
            self.made += 1
            return real(*given)

        monkeypatch.setattr(report, "lasting", lasting)

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.answers.one(self.vm).full)
        return found


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_what_goes_out_is_the_dictionary(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "event_ms", lambda: 7)
    for _ in range(3):
        assert stage.told() == report.stats(stage.vm, stage.samples)
        stage.samples.take(VM, read(SAMPLE).counters)
        stage.now += 10
    stage.vm.status.apply(Cause.STANDS, code=PauseCode.NO_SPACE)
    assert stage.told() == report.stats(stage.vm, stage.samples)
    stage.vm.goes_down(exit_for(ExitReason.GENERIC_ERROR, "broken"))
    assert stage.told() == report.stats(stage.vm, stage.samples)
    assert "disks" not in stage.told()


def test_what_lasts_is_made_once_a_sample(stage: Stage) -> None:
    stage.samples.take(VM, Counters(vcpus=1))
    assert [stage.told()["vcpuCount"] for _ in range(3)] == ["1", "1", "1"]
    assert stage.made == 1
    stage.samples.take(VM, Counters(vcpus=2))
    assert stage.told()["vcpuCount"] == "2"
    assert stage.made == 2


def test_a_look_that_finds_the_same_makes_nothing_anew(stage: Stage) -> None:
    stage.told()
    stage.vm.description = described(stage.vm.xml)
    stage.told()
    assert stage.made == 1


def test_a_look_that_finds_another_disk_is_told_at_once(stage: Stage) -> None:
    stage.samples.take(VM, Counters())
    assert set(stage.told()["disks"]) == {"vda"}
    stage.vm.description = described(xml_of(disks=[disk(), disk("vdb", new_id())]))
    assert set(stage.told()["disks"]) == {"vda", "vdb"}


def test_what_is_of_the_moment_is_never_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.samples.take(VM, Counters(vcpus=1))
    stage.vm.started_at_s = 1000.0
    clock, wall = [5], [1010.0]
    monkeypatch.setattr(report, "event_ms", lambda: clock[0])
    monkeypatch.setattr(report.time, "time", lambda: wall[0])
    first = stage.told()
    assert [first[key] for key in ("status", "statusTime", "elapsedTime", "monitorResponse", "timeOffset")] == [
        "Up",
        "5",
        "10",
        "0",
        "0",
    ]
    assert "pauseCode" not in first
    clock[0], wall[0], stage.vm.time_offset_s = 6, 1072.5, -3600
    stage.now += 61
    stage.vm.status.apply(Cause.STANDS, code=PauseCode.NO_SPACE)
    second = stage.told()
    assert [second[key] for key in ("status", "statusTime", "elapsedTime", "monitorResponse", "timeOffset")] == [
        "Paused",
        "6",
        "72",
        "-1",
        "-3600",
    ]
    assert second["pauseCode"] == "ENOSPC"
    assert stage.made == 1


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_an_odd_start_time_costs_no_answer(stage: Stage, odd: float) -> None:
    stage.vm.started_at_s = odd
    assert stage.told()["elapsedTime"] == "0"


async def test_a_vm_whose_figures_can_not_be_made_is_told_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    samples = Samples()
    answers, odd, other = Answers(samples), ShownVm(VM), ShownVm(new_id())
    for vm in (odd, other):
        samples.take(vm.vm_id, Counters(vcpus=1))
    samples.take(VM, Counters(blocks=(Block("vda", rd_bytes="odd"),)))  # type: ignore[arg-type]
    samples.take(VM, Counters(blocks=(Block("vda", rd_bytes=2),)))
    for _ in range(2):
        first, second = (json.loads(told.full) for told in await answers.all([odd, other]))
        assert (first["vmId"], first["status"], first["vmName"]) == (VM, "Up", odd.description.name)
        assert "vcpuCount" not in first
        assert second["vcpuCount"] == "1"
        odd.description = described(xml_of(devices="<graphics type='vnc'/>"))  # made anew
    (record,) = caplog.records
    assert record.message.startswith(f"VM {VM}: no figures: ")


async def test_the_loop_serves_others_while_many_are_encoded() -> None:
    now, turns = 0.0, 0

    def clock() -> float:
        nonlocal now
        now += SLICE_S / 10
        return now

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    vms = [ShownVm(new_id()) for _ in range(100)]
    task = asyncio.create_task(other())
    await Answers(Samples(), clock=clock).prepare(vms)
    task.cancel()
    assert 9 <= turns <= 11  # after each tenth


async def test_states_of_one_answer_are_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    vms = [ShownVm(new_id()) for _ in range(20)]
    answers = Answers(Samples(), clock=iter(range(10**6)).__next__)  # each VM takes longer than a slice

    async def all_pause() -> None:
        await asyncio.sleep(0)
        for vm in vms:
            vm.status.apply(Cause.STANDS, code=PauseCode.NO_ERROR)

    task = asyncio.create_task(all_pause())
    told = [json.loads(one.full) for one in await answers.all(vms)]
    await task
    assert [vm["status"] for vm in told] == ["Paused"] * 20
    assert [vm["vmId"] for vm in told] == [vm.vm_id for vm in vms]


async def test_a_vm_that_has_ended_needs_no_figures(stage: Stage) -> None:
    stage.vm.goes_down(exit_for(ExitReason.ADMIN_SHUTDOWN))
    await stage.answers.prepare([stage.vm])
    assert stage.made == 0


async def test_verbs_answer_with_the_dictionaries(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "event_ms", lambda: 7)
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: world.vms.stats(VM)["status"] == "Up")
    assert not {"balloonInfo", "memoryStats", "network", "disks"} & set(world.vms.stats(VM))
    world.vms._samples.take(VM, Counters(whole=True))
    told = world.vms.stats(VM)
    assert not {"balloonInfo", "memoryStats", "network"} & set(told)
    assert told["disks"]["vda"]["imageID"] == IMAGE
    assert json.loads(world.vms.encoded_stats(VM).full) == [told]
    assert json.loads((await world.vms.all_encoded_stats()).full) == [told]
    vm = world.vms.get(VM)
    assert not set(report.now(vm, world.vms._samples)) & set(report.lasting(vm.description, None))


async def test_domains_that_are_not_ours_are_told_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "event_ms", lambda: 7)
    foreign = new_id()
    xml = f"<domain type='kvm'><name>theirs</name><uuid>{foreign}</uuid></domain>"
    world.hypervisor.found[foreign] = FakeDomain(xml, DomainState.RUNNING)
    await world.vms.create(VM, xml_of())
    world.hypervisor.tell(foreign, Change.STARTED)
    await until(lambda: len(world.vms.all_stats()) == 2)
    await until(lambda: world.vms.stats(VM)["status"] == "Up")
    assert json.loads((await world.vms.all_encoded_stats()).full) == world.vms.all_stats()
    assert json.loads(world.vms.encoded_stats(foreign).full) == [world.vms.stats(foreign)]
    with pytest.raises(NoSuchVm):
        world.vms.encoded_stats(new_id())


async def test_no_vm_is_told_until_all_are_found(world: World) -> None:
    world.vms._recovered.clear()
    with pytest.raises(Recovering):
        world.vms.encoded_stats(VM)
    with pytest.raises(Recovering):
        await world.vms.all_encoded_stats()


# Secrets


SECRET = "passwd='hunter22'"


def test_what_has_nothing_to_hide_has_one_form(stage: Stage) -> None:
    told = stage.answers.one(stage.vm)
    assert told.masked is told.full


def test_a_secret_in_what_lasts_is_for_admins_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, devices=f'<graphics type="{SECRET}"/>')
    told = stage.answers.one(stage.vm)
    assert b"hunter22" in told.full
    assert b"hunter22" not in told.masked
    assert json.loads(told.masked)["displayInfo"][0]["type"] == "passwd='*****'"
    listed = encoded.as_list([told, stage.answers.one(ShownVm(new_id()))])
    assert b"hunter22" in listed.full
    assert b"hunter22" not in listed.masked


def test_a_secret_in_what_is_of_the_moment_is_for_admins_only(stage: Stage) -> None:
    stage.vm.goes_down(Exit(1, 1, f"QEMU said {SECRET}"))
    told = stage.answers.one(stage.vm)
    assert b"hunter22" in told.full
    assert json.loads(told.masked)["exitMessage"] == "QEMU said passwd='*****'"
