# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures from samples, in the types that the engine casts to."""

from __future__ import annotations

import asyncio

from vdsm.virt.hypervisor import Stats
from vdsm.virt.stats import figures
from vdsm.virt.stats.samples import Samples, Window

from .fakes import IMAGE, VM, World, new_id, until, xml_of


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
        "cpuUsage": "5000000000",
        "cpuSys": "15.00",
        "cpuUser": "35.00",
        "cpuActual": "True",
    }


def test_a_counter_that_started_anew_gives_no_rate() -> None:
    found = window({"cpu.time": 9, "cpu.system": 9}, {"cpu.time": 1, "cpu.system": 1})
    assert figures.cpu(found)["cpuActual"] == "False"


def test_disks_are_text_with_rates_from_two_samples() -> None:
    block = {"block.count": 1, "block.0.name": "vda", "block.0.physical": 7, "block.0.rd.bytes": 0}
    more = {"block.0.rd.reqs": 0, "block.0.rd.times": 0}
    found = window(block | more, block | {"block.0.rd.bytes": 1000, "block.0.rd.reqs": 4, "block.0.rd.times": 400})
    disk = figures.disks(found, {"vda": IMAGE})["vda"]
    assert all(isinstance(value, str) for value in disk.values())
    assert disk["imageID"] == IMAGE
    assert (disk["readRate"], disk["readLatency"], disk["apparentsize"]) == ("100.0", "100", "7")


def test_one_sample_gives_totals_only() -> None:
    samples = Samples()
    samples.put({VM: {"block.count": 1, "block.0.name": "vda"}}, {VM})
    found = samples.window(VM)
    assert found is not None
    assert "readRate" not in figures.disks(found, {})["vda"]


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
