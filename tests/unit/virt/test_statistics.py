# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures from samples, in the types that the engine casts to."""

from __future__ import annotations

import asyncio

import pytest

from vdsm.virt.hypervisor import Stats
from vdsm.virt.stats import figures
from vdsm.virt.stats.samples import Samples, Window

from .fakes import IMAGE, VM, World, disk, new_id, until, xml_of


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def window(first: dict[str, object], last: dict[str, object], seconds: float = 10.0) -> Window:
    time = Time()
    samples = Samples(time)
    samples.put({VM: first}, {VM})
    time.now += seconds
    samples.put({VM: last}, {VM})
    found = samples.window(VM)
    assert found is not None
    return found


def test_cpu_is_split_into_guest_and_overhead() -> None:
    before = {"cpu.time": 0, "cpu.system": 0, "cpu.user": 0, "vcpu.current": 2}
    after = {"cpu.time": 5_000_000_000, "cpu.system": 1_000_000_000, "cpu.user": 500_000_000, "vcpu.current": 2}
    told = figures.cpu(window(before, after))
    assert told == {
        "vcpuCount": "2",
        "cpuUsage": "1500000000",
        "cpuSys": "15.00",
        "cpuUser": "35.00",
        "cpuActual": True,
    }


def test_a_counter_that_started_anew_gives_no_rate() -> None:
    found = window({"cpu.time": 9, "cpu.system": 9, "cpu.user": 1}, {"cpu.time": 1, "cpu.system": 1, "cpu.user": 1})
    told = figures.cpu(found)
    assert (told["cpuActual"], told["cpuUser"], told["cpuSys"]) == (False, "0.00", "0.00")


@pytest.mark.parametrize("missing", ["cpu.time", "cpu.system", "cpu.user"])
def test_all_three_counters_make_a_figure_of_the_cpu(missing: str) -> None:
    counters = {"cpu.time": 1, "cpu.system": 1, "cpu.user": 1}
    known = {key: value for key, value in counters.items() if key != missing}
    assert figures.cpu(window(known, counters))["cpuActual"] is False
    assert figures.cpu(window(counters, counters))["cpuActual"] is True


def test_disks_are_text_with_rates_from_two_samples() -> None:
    block = {"block.count": 1, "block.0.name": "vda", "block.0.physical": 7, "block.0.rd.bytes": 0}
    more = {"block.0.rd.reqs": 0, "block.0.rd.times": 0}
    found = window(block | more, block | {"block.0.rd.bytes": 1000, "block.0.rd.reqs": 4, "block.0.rd.times": 400})
    told = figures.disks(found, {"vda": {"imageID": IMAGE}})["vda"]
    assert all(isinstance(value, str) for value in told.values())
    assert told["imageID"] == IMAGE
    assert (told["readRate"], told["readLatency"], told["apparentsize"]) == ("100.0", "100", "7")


def test_one_sample_gives_totals_only() -> None:
    samples = Samples()
    samples.put({VM: {"block.count": 1, "block.0.name": "vda"}}, {VM})
    found = samples.window(VM)
    assert found is not None
    assert "readRate" not in figures.disks(found, {})["vda"]


def test_a_disk_that_libvirt_does_not_count_is_told_with_zeros() -> None:
    found = figures.disks(window({}, {}), {"sdc": {}, "sda": {"lunGUID": "3600140"}})
    assert set(found) == {"sda", "sdc"}
    assert (found["sda"]["lunGUID"], found["sda"]["truesize"], found["sdc"]["readOps"]) == ("3600140", "0", "0")


def test_memory_is_what_the_guests_balloon_tells() -> None:
    told = {"balloon.current": 800, "balloon.maximum": 1000, "balloon.available": 900, "balloon.unused": 100}
    grown = {"balloon.swap_in": 50, "balloon.swap_out": 0, "balloon.major_fault": 20, "balloon.minor_fault": 30}
    found = window(told | dict.fromkeys(grown, 0), told | grown | {"balloon.disk_caches": 150})
    memory = figures.memory(found)
    assert (memory["mem_total"], memory["mem_unused"], memory["mem_free"]) == ("900", "100", "250")
    assert [memory[key] for key in ("swap_in", "swap_out", "majflt", "minflt", "pageflt")] == [5, 0, 2, 3, 5]
    assert figures.memory_usage_percent(found, memory) == "75"
    assert figures.balloon(found, minimum_kib=7, enabled=True) == {
        "balloon_max": "1000",
        "balloon_min": "7",
        "balloon_cur": "800",
        "balloon_target": "800",
        "ballooning_enabled": True,
    }


def test_what_no_balloon_told_is_not_made_up() -> None:
    found = window({}, {"balloon.current": 1})
    assert figures.memory(found) == {}
    assert figures.balloon(found, minimum_kib=0, enabled=True) == {}
    assert figures.memory_usage_percent(found, {}) == "0"


async def test_what_is_not_known_of_a_vm_is_left_out(world: World) -> None:
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: world.vms.stats(VM)["status"] == "Up")
    told = world.vms.stats(VM)
    assert not {"balloonInfo", "memoryStats", "network", "disks"} & set(told)
    world.vms._samples.put({VM: {"cpu.time": 1}}, {VM})
    told = world.vms.stats(VM)
    assert not {"balloonInfo", "memoryStats", "network"} & set(told)
    assert told["disks"]["vda"]["imageID"] == IMAGE


def test_network_shows_known_devices() -> None:
    net = {"net.count": 2, "net.0.name": "vnet0", "net.0.rx.bytes": 5, "net.1.name": "other"}
    told = figures.network(window(net, net), {"vnet0": ("00:11:22:33:44:55", "virtio")})
    assert list(told) == ["vnet0"]
    assert (told["vnet0"]["rx"], told["vnet0"]["speed"]) == ("5", "1000")
    assert isinstance(told["vnet0"]["sampleTime"], float)


def test_a_vm_that_does_not_answer_is_unresponsive_after_a_minute() -> None:
    time = Time()
    samples = Samples(time)
    samples.watch(VM)
    assert samples.responsive(VM)
    time.now += 59
    assert samples.responsive(VM)
    time.now += 2
    assert not samples.responsive(VM)
    samples.put({VM: {}}, {VM})
    assert samples.responsive(VM)


def test_samples_of_domains_that_are_not_ours_or_have_ended_are_dropped() -> None:
    time = Time()
    samples = Samples(time)
    ended, foreign = new_id(), new_id()
    samples.watch(ended)
    samples.put({VM: {}, ended: {}, foreign: {}}, {VM, ended})
    assert samples.window(foreign) is None and samples.window(ended) is not None
    samples.put({VM: {}, ended: {}, foreign: {}}, {VM})
    assert samples.window(ended) is None
    time.now += 100
    assert samples.responsive(ended)  # nothing is known of it any more


async def test_a_sample_that_began_before_a_vm_was_destroyed_keeps_nothing_of_it(world: World) -> None:
    other = new_id()
    for vm_id in (VM, other):
        await world.vms.create(vm_id, xml_of(vm_id))
    await until(lambda: all(stats["status"] == "Up" for stats in world.vms.all_stats()))
    began, go, kept = asyncio.Event(), asyncio.Event(), world.vms._samples

    async def statistics() -> Stats:
        began.set()
        await go.wait()
        return {VM: {"cpu.time": 1}, other: {"cpu.time": 1}}

    world.hypervisor.statistics = statistics  # type: ignore[method-assign]
    await began.wait()
    await world.vms.destroy(VM)
    go.set()
    await until(lambda: kept.window(other) is not None)
    assert kept.window(VM) is None


async def test_one_odd_answer_does_not_end_the_statistics(world: World) -> None:
    await world.vms.create(VM, xml_of())
    answers: list[Stats] = []

    async def statistics() -> Stats:
        if not answers:
            answers.append({VM: {"vcpu.current": 3}})
            raise ValueError("odd")
        return answers[0]

    world.hypervisor.statistics = statistics  # type: ignore[method-assign]
    await until(lambda: world.vms.stats(VM).get("vcpuCount") == "3")
