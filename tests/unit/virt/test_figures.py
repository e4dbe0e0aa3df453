# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures from samples, in the types that the engine casts to; the vectors are worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm.virt.hypervisor import DomainState, Sampled
from vdsm.virt.libvirt_edge.counters import read
from vdsm.virt.stats import figures
from vdsm.virt.stats.counters import Block, Counters, Nic
from vdsm.virt.stats.samples import Samples, Window

from .fakes import IMAGE, VM, new_id

MAC = "00:11:22:33:44:55"


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def window(*samples: Counters, seconds: float = 10.0) -> Window:
    time = Time()
    kept = Samples(time)
    for counters in samples:
        kept.take(VM, counters)
        time.now += seconds
    found = kept.window(VM)
    assert found is not None
    return found


# What libvirt says

FLAT: dict[str, Any] = {
    "state.state": 3,
    "state.reason": 5,
    "cpu.time": 11,
    "cpu.user": 12,
    "cpu.system": 13,
    "balloon.current": 14,
    "balloon.maximum": 15,
    "balloon.swap_in": 16,
    "balloon.swap_out": 17,
    "balloon.major_fault": 18,
    "balloon.minor_fault": 19,
    "balloon.unused": 20,
    "balloon.available": 21,
    "balloon.disk_caches": 22,
    "balloon.last-update": 0,
    "balloon.rss": 23,
    "vcpu.current": 24,
    "vcpu.0.state": 1,
    "net.count": 1,
    "net.0.name": "vnet7",
    "net.0.rx.bytes": 31,
    "net.0.rx.pkts": 32,
    "net.0.rx.errs": 33,
    "net.0.rx.drop": 34,
    "net.0.tx.bytes": 35,
    "net.0.tx.pkts": 36,
    "net.0.tx.errs": 37,
    "net.0.tx.drop": 38,
    "block.count": 2,
    "block.0.name": "vda",
    "block.0.path": "/rhev/a",
    "block.0.rd.reqs": 41,
    "block.0.rd.bytes": 42,
    "block.0.rd.times": 43,
    "block.0.wr.reqs": 44,
    "block.0.wr.bytes": 45,
    "block.0.wr.times": 46,
    "block.0.fl.reqs": 47,
    "block.0.fl.times": 48,
    "block.0.allocation": 49,
    "block.0.capacity": 50,
    "block.0.physical": 51,
    "block.1.name": "sdc",
}
TYPED = Counters(
    whole=True,
    cpu_time=11,
    cpu_user=12,
    cpu_system=13,
    vcpus=24,
    memory=14,
    memory_maximum=15,
    balloon=True,
    available=21,
    unused=20,
    caches=22,
    swap_in=16,
    swap_out=17,
    major_faults=18,
    minor_faults=19,
    blocks=(
        Block(
            "vda",
            allocation=49,
            physical=51,
            rd_bytes=42,
            rd_reqs=41,
            rd_times=43,
            wr_bytes=45,
            wr_reqs=44,
            wr_times=46,
            fl_reqs=47,
            fl_times=48,
        ),
        Block("sdc"),
    ),
    nics=(Nic("vnet7", rx_bytes=31, rx_errs=33, rx_drop=34, tx_bytes=35, tx_errs=37, tx_drop=38),),
)


def test_each_counter_is_read_from_its_own_name() -> None:
    assert read(FLAT) == Sampled(DomainState.PAUSED, "ioerror", TYPED)


def test_an_entry_that_says_nothing_is_not_known() -> None:
    assert read({}) == Sampled(None, "", Counters())


def test_only_qemus_own_memory_shows_that_qemu_was_asked() -> None:
    assert read({"balloon.rss": 1}).counters == Counters(whole=True)
    assert read({"balloon.current": 1}).counters == Counters(memory=1)


@pytest.mark.parametrize("odd", ["7", 7.0, True, None, -1, [7], {}])
def test_what_is_no_count_is_not_known(odd: object) -> None:
    values = {"cpu.time": odd, "block.count": 1, "block.0.name": "vda", "block.0.rd.reqs": odd, "net.count": odd}
    assert read(values).counters == Counters(blocks=(Block("vda"),))


def test_a_device_without_a_name_costs_no_other_one() -> None:
    values = {"block.count": 3, "block.0.name": 5, "block.1.name": "", "block.2.name": "vdc"}
    assert [block.name for block in read(values).counters.blocks] == ["vdc"]


def test_a_count_beyond_all_measure_ends() -> None:
    assert read({"block.count": 10**15, "block.0.name": "vda"}).counters.blocks == (Block("vda"),)


@given(
    st.dictionaries(
        st.sampled_from(sorted(FLAT)) | st.text(max_size=8),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
    )
)
def test_whatever_an_entry_holds_it_is_read(values: dict[str, Any]) -> None:
    read(values)


# CPU


def cpu(time: int | None = 0, system: int | None = 0, user: int | None = 0, vcpus: int | None = 2) -> Counters:
    return Counters(cpu_time=time, cpu_system=system, cpu_user=user, vcpus=vcpus)


def test_cpu_is_split_into_guest_and_overhead() -> None:
    found = window(cpu(), cpu(5_000_000_000, 1_000_000_000, 500_000_000))
    assert figures.cpu(found) == {
        "vcpuCount": "2",
        "cpuUsage": "1500000000",
        "cpuSys": "15.00",
        "cpuUser": "35.00",
        "cpuActual": True,
    }


def test_the_guest_never_has_less_than_nothing() -> None:
    told = figures.cpu(window(cpu(), cpu(1_000_000_000, 1_000_000_000, 500_000_000)))
    assert (told["cpuSys"], told["cpuUser"]) == ("15.00", "0.00")


def test_a_counter_that_started_anew_gives_no_rate() -> None:
    told = figures.cpu(window(cpu(9, 9, 1), cpu(1, 1, 1)))
    assert (told["cpuActual"], told["cpuUser"], told["cpuSys"]) == (False, "0.00", "0.00")


def test_one_sample_gives_no_share_of_the_cpu() -> None:
    assert figures.cpu(window(cpu(7, 5, 3, None))) == {
        "vcpuCount": "-1",
        "cpuUsage": "8",
        "cpuUser": "0.00",
        "cpuSys": "0.00",
        "cpuActual": False,
    }


def test_two_samples_of_one_moment_give_no_share_of_the_cpu() -> None:
    assert figures.cpu(window(cpu(), cpu(7, 5, 3), seconds=0))["cpuActual"] is False


@pytest.mark.parametrize("unknown", ["time", "system", "user"])
@pytest.mark.parametrize("first", [True, False])
def test_all_three_counters_of_both_samples_make_a_share_of_the_cpu(unknown: str, first: bool) -> None:
    known, lacking = cpu(1, 1, 1), cpu(**{"time": 1, "system": 1, "user": 1, unknown: None})
    assert figures.cpu(window(known, known))["cpuActual"] is True
    told = figures.cpu(window(lacking, known) if first else window(known, lacking))
    assert told["cpuActual"] is False
    assert told["cpuUsage"] == ("2" if first or unknown == "time" else "0.00")


# Disks


def test_disks_are_text_with_rates_from_two_samples() -> None:
    before = Block("vda", 4096, 7, 0, 10, 1000, 500, 100, 5000, 7, 70)
    after = Block("vda", 8192, 9, 1000, 14, 1401, 1755, 104, 5044, 9, 95)
    assert figures.disks(
        window(Counters(blocks=(before,)), Counters(blocks=(after,))), {"vda": {"imageID": IMAGE}}
    ) == {
        "vda": {
            "imageID": IMAGE,
            "truesize": "8192",
            "apparentsize": "9",
            "readBytes": "1000",
            "writtenBytes": "1755",
            "readOps": "14",
            "writeOps": "104",
            "readRate": "100.0",  # 1000 in 10 s
            "writeRate": "125.5",  # 1255 in 10 s
            "readLatency": "100",  # 401 / 4
            "writeLatency": "11",  # 44 / 4
            "flushLatency": "12",  # 25 / 2
        }
    }


def test_no_operation_takes_no_time() -> None:
    idle = Counters(blocks=(Block("vda", 1, 1, 5, 5, 50, 5, 5, 50, 5, 50),))
    told = figures.disks(window(idle, idle), {})["vda"]
    assert [told[key] for key in ("readLatency", "writeLatency", "flushLatency")] == ["0", "0", "0"]
    assert (told["readRate"], told["writeRate"]) == ("0.0", "0.0")


def test_a_rate_that_nobody_counted_is_no_zero() -> None:
    before = Block("vda", 1, 1, 900, 9, 90, None, 5, 50, 5, None)
    after = Block("vda", 1, 1, 100, 1, 10, 7, None, 60, 6, 60)
    told = figures.disks(window(Counters(blocks=(before,)), Counters(blocks=(after,))), {})["vda"]
    assert set(told) == {"truesize", "apparentsize", "readBytes", "writtenBytes", "readOps", "writeOps"}


def test_one_sample_gives_totals_only() -> None:
    told = figures.disks(window(Counters(blocks=(Block("vda", rd_bytes=3),))), {})["vda"]
    assert (told["readBytes"], told["writeOps"]) == ("3", "0")
    assert "readRate" not in told
    assert "readLatency" not in told


def test_a_disk_keeps_its_counters_when_another_is_unplugged_before_it() -> None:
    first = Counters(blocks=(Block("vda", rd_bytes=900), Block("vdb", rd_bytes=100)))
    told = figures.disks(window(first, Counters(blocks=(Block("vdb", rd_bytes=150),))), {})
    assert told["vdb"]["readRate"] == "5.0"
    assert "vda" not in told


def test_a_disk_just_plugged_has_totals_only() -> None:
    told = figures.disks(window(Counters(), Counters(blocks=(Block("vdb", rd_bytes=150),))), {})
    assert told["vdb"]["readBytes"] == "150"
    assert "readRate" not in told["vdb"]


def test_a_lun_has_the_size_of_its_device_however_far_the_guest_has_written() -> None:
    blocks = Counters(blocks=(Block("sda", 4096, 1 << 30), Block("sdb", 0, 1 << 30)))
    told = figures.disks(window(blocks), {"sda": {"lunGUID": "3600140"}, "sdb": {"lunGUID": "3600141"}})
    assert [told[target]["truesize"] for target in ("sda", "sdb")] == [str(1 << 30)] * 2


def test_an_image_that_the_guest_has_not_written_to_is_not_empty() -> None:
    """libvirt tells how far was written since the start."""
    told = figures.disks(window(Counters(blocks=(Block("vda", 0, 200704),))), {"vda": {"imageID": IMAGE}})
    assert told["vda"]["truesize"] == "200704"


def test_a_disk_that_libvirt_does_not_count_is_told_with_totals_of_zero() -> None:
    found = figures.disks(window(Counters(), Counters()), {"sdc": {}, "sda": {"lunGUID": "3600140"}})
    totals = dict.fromkeys(("truesize", "apparentsize", "readBytes", "writtenBytes", "readOps", "writeOps"), "0")
    assert found == {"sda": totals | {"lunGUID": "3600140"}, "sdc": totals}


# Memory


def test_memory_is_what_the_guests_balloon_tells() -> None:
    told = {"balloon": True, "memory": 800, "memory_maximum": 1000, "available": 900, "unused": 100, "caches": 150}
    first = Counters(**told, swap_in=0, swap_out=5, major_faults=1, minor_faults=2)
    found = window(first, Counters(**told, swap_in=50, swap_out=35, major_faults=21, minor_faults=42))
    memory = figures.memory(found)
    assert memory == {
        "mem_total": "900",
        "mem_unused": "100",
        "mem_free": "250",
        "mem_cached": "150",
        "swap_in": 5,
        "swap_out": 3,
        "majflt": 2,
        "minflt": 4,
        "pageflt": 6,
    }
    assert figures.memory_usage_percent(found, memory) == "75"
    assert figures.balloon(found, minimum_kib=7, enabled=True) == {
        "balloon_max": "1000",
        "balloon_min": "7",
        "balloon_cur": "800",
        "balloon_target": "800",
        "ballooning_enabled": True,
    }


def test_rates_of_memory_that_nobody_counted_are_left_out() -> None:
    told = Counters(available=900, unused=100, swap_in=5, major_faults=7, minor_faults=9)
    assert set(figures.memory(window(told))) == {"mem_total", "mem_unused", "mem_free"}
    anew = Counters(available=900, unused=100, swap_in=6, major_faults=1, minor_faults=9)
    assert figures.memory(window(told, anew)) == {
        "mem_total": "900",
        "mem_unused": "100",
        "mem_free": "100",
        "swap_in": 0,
        "minflt": 0,
    }


@pytest.mark.parametrize("known", ["available", "unused"])
def test_half_of_what_a_guest_has_is_no_memory_figure(known: str) -> None:
    assert figures.memory(window(Counters(**{known: 5}))) == {}


@pytest.mark.parametrize(
    "told",
    [
        Counters(),
        Counters(memory=1, memory_maximum=2),  # libvirt says so of a VM without balloon, too
        Counters(balloon=True, memory=1),
        Counters(balloon=True, memory_maximum=2),
    ],
)
def test_a_balloon_that_is_not_there_or_not_known_is_not_made_up(told: Counters) -> None:
    assert figures.balloon(window(told), minimum_kib=0, enabled=True) == {}


@pytest.mark.parametrize(
    ("maximum", "free", "used"), [(1000, "250", "75"), (1000, "1500", "0"), (None, "250", "0"), (0, "250", "0")]
)
def test_memory_used_is_a_share_of_what_the_vm_was_started_with(maximum: int | None, free: str, used: str) -> None:
    found = window(Counters(memory_maximum=maximum))
    assert figures.memory_usage_percent(found, {"mem_free": free}) == used
    assert figures.memory_usage_percent(found, {}) == "0"


# Network


def test_network_shows_known_devices() -> None:
    ours = Nic("vnet0", rx_bytes=1, rx_errs=2, rx_drop=3, tx_bytes=4, tx_errs=5, tx_drop=6)
    told = figures.network(window(Counters(nics=(ours, Nic("other", 1, 2, 3, 4, 5, 6)))), {"vnet0": (MAC, "virtio")})
    assert told == {
        "vnet0": {
            "name": "vnet0",
            "macAddr": MAC,
            "speed": "1000",
            "state": "unknown",
            "rx": "1",
            "rxErrors": "2",
            "rxDropped": "3",
            "tx": "4",
            "txErrors": "5",
            "txDropped": "6",
            "sampleTime": 100.0,
        }
    }


@pytest.mark.parametrize(("model", "speed"), [("e1000", "1000"), ("e1000e", "1000"), ("rtl8139", "100"), ("", "100")])
def test_the_speed_of_a_nic_is_its_models(model: str, speed: str) -> None:
    told = figures.network(window(Counters(nics=(Nic("vnet0", 1, 1, 1, 1, 1, 1),))), {"vnet0": (MAC, model)})
    assert told["vnet0"]["speed"] == speed


@pytest.mark.parametrize("unknown", ["rx_bytes", "rx_drop", "tx_bytes", "tx_drop"])
def test_a_nic_whose_traffic_is_not_known_is_left_out(unknown: str) -> None:
    counts = {"rx_bytes": 1, "rx_drop": 1, "tx_bytes": 1, "tx_drop": 1, unknown: None}
    assert figures.network(window(Counters(nics=(Nic("vnet0", **counts),))), {"vnet0": (MAC, "virtio")}) == {}


def test_errors_of_a_nic_that_nobody_counted_are_left_out() -> None:
    nic = Nic("vnet0", rx_bytes=1, rx_drop=1, tx_bytes=1, tx_drop=1)
    told = figures.network(window(Counters(nics=(nic,))), {"vnet0": (MAC, "virtio")})["vnet0"]
    assert not {"rxErrors", "txErrors"} & set(told)


# Samples


def test_a_vm_that_does_not_answer_is_unresponsive_after_a_minute() -> None:
    time = Time()
    samples = Samples(time)
    samples.watch(VM)
    assert samples.responsive(VM)
    time.now += 60
    assert samples.responsive(VM)
    time.now += 1
    assert not samples.responsive(VM)
    samples.take(VM, Counters())
    assert samples.responsive(VM)


def test_a_sample_without_qemu_is_no_answer_of_a_vm_that_was_told_wholly() -> None:
    time = Time()
    samples = Samples(time)
    whole = Counters(whole=True, cpu_time=1)
    samples.take(VM, whole)
    time.now += 61
    samples.take(VM, Counters(cpu_time=2))
    found = samples.window(VM)
    assert found is not None
    assert found.last.counters is whole
    assert not samples.responsive(VM)
    samples.take(VM, Counters(whole=True, cpu_time=3))
    assert samples.responsive(VM)


def test_a_sample_without_qemu_is_an_answer_of_a_vm_that_was_never_told_wholly() -> None:
    time = Time()
    samples = Samples(time)
    samples.take(VM, Counters(cpu_time=1))
    time.now += 61
    samples.take(VM, Counters(cpu_time=2))
    assert samples.responsive(VM)


def test_samples_of_vms_that_run_no_more_are_dropped() -> None:
    time = Time()
    samples = Samples(time)
    ended = new_id()
    samples.watch(ended)
    for vm_id in (VM, ended):
        samples.take(vm_id, Counters())
    samples.keep_only({VM})
    assert samples.window(VM) is not None
    assert samples.window(ended) is None
    time.now += 100
    assert samples.responsive(ended)  # nothing is known of it any more
    assert not samples.responsive(VM)
