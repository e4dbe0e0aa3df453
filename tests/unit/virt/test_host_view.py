# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host tells of all its VMs: lists, foreign domains, reconnects, its own end; and pauses as engines see them."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from vdsm.common import commands
from vdsm.common.clocks import BASE_MS
from vdsm.common.owners import LaneBusy
from vdsm.virt import external, host_shutdown, report
from vdsm.virt.errors import ForeignDomain, HypervisorLost, Superseded, VmBusy
from vdsm.virt.host_shutdown import HostShutdown
from vdsm.virt.hypervisor import Change, Domain, DomainState, Reconnected, Watchdog
from vdsm.virt.lifecycle import Cause
from vdsm.virt.stats.counters import Counters
from vdsm.virt.stats.samples import Samples
from vdsm.virt.vm import Vm

from .fakes import VM, FakeDomain, World, disk, new_id, refuse, settle, until, xml_of
from .shown import ShownVm

FOREIGN = "<domain type='{kind}'><name>{name}</name><uuid>{vm_id}</uuid><devices/></domain>"


async def up(world: World, vm_id: str = VM, **xml: Any) -> Vm:
    vm = await world.vms.create(vm_id, xml_of(vm_id, **xml))
    await until(lambda: vm.status.stored == "Up")
    await settle()
    return vm


def foreign(world: World, *, name: str = "theirs", kind: str = "kvm", state: DomainState = DomainState.RUNNING) -> str:
    vm_id = new_id()
    world.hypervisor.found[vm_id] = FakeDomain(FOREIGN.format(vm_id=vm_id, name=name, kind=kind), state)
    return vm_id


# Foreign domains


async def test_an_id_that_an_external_vm_has_is_refused_at_once_and_it_is_shown_on(world: World) -> None:
    vm_id = foreign(world)
    await world.restart()
    with pytest.raises(ForeignDomain, match="'theirs'"):
        await world.vms.create(vm_id, xml_of(vm_id))
    assert [(vm["vmId"], vm["status"]) for vm in world.vms.brief()] == [(vm_id, "Up")]
    assert world.events.downs() == []


@pytest.mark.parametrize(("kind", "kvm"), [("kvm", "true"), ("qemu", "false")])
async def test_a_foreign_domain_is_told_as_an_external_vm(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str, kvm: str
) -> None:
    monkeypatch.setattr(report, "event_ms", lambda: 7)
    vm_id = foreign(world, kind=kind)
    await world.restart()
    (brief,) = world.vms.brief()
    assert brief == {"vmId": vm_id, "status": "Up", "statusTime": "7", "hash": brief["hash"]}
    assert len(brief["hash"]) == 16
    more = {"vmName": "theirs", "vmType": "kvm", "kvmEnable": kvm, "vmJobs": {}}
    assert world.vms.all_stats() == [brief | more] == [world.vms.stats(vm_id)]
    world.hypervisor.found[vm_id].state = DomainState.PAUSED
    world.hypervisor.tell(vm_id, Change.SUSPENDED)
    await settle()
    assert world.vms.brief() == [brief | {"status": "Paused", "pauseCode": "NOERR"}]


async def test_a_foreign_domain_that_can_not_be_read_is_told_in_the_log_only(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt")
    vm_id = foreign(world)
    world.hypervisor.found[vm_id].xml = f"<domain><uuid>{vm_id}</uuid></domain>"
    await world.restart()
    assert world.vms.brief() == []
    assert "the foreign domain  is not shown: The domain XML is invalid at name" in caplog.text


async def test_only_foreign_domains_that_run_are_shown(world: World) -> None:
    foreign(world, state=DomainState.OFF)
    foreign(world, name="guestfs-abc")
    shown = foreign(world, name="my-guestfs-abc")
    await world.restart()
    assert [vm["vmId"] for vm in world.vms.brief()] == [shown]


async def test_foreign_domains_are_looked_at_again_when_libvirt_comes_back(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = foreign(world)
    await world.restart()
    del world.hypervisor.found[first]
    second = foreign(world)
    world.hypervisor.hear(Reconnected())
    await until(lambda: [vm["vmId"] for vm in world.vms.brief()] == [second])

    async def away() -> list[object]:
        raise HypervisorLost("list domains")

    monkeypatch.setattr(world.hypervisor, "domains", away)
    world.hypervisor.hear(Reconnected())
    await until(lambda: "the domains that are not ours: " in caplog.text)
    assert [vm["vmId"] for vm in world.vms.brief()] == [second]


class SlowList:
    """libvirt's list of all domains is what there was when it was asked for, and is told once it is let go."""

    def __init__(self, world: World) -> None:
        self._real = world.hypervisor.domains
        self.made, self.go = asyncio.Event(), asyncio.Event()
        world.hypervisor.domains = self._domains  # type: ignore[method-assign]

    async def _domains(self) -> list[Domain]:
        found = await self._real()
        self.made.set()
        await self.go.wait()
        return found


async def test_a_list_of_domains_that_is_late_takes_nothing_back(world: World) -> None:
    gone = foreign(world)
    await world.restart()
    await settle()
    missed = foreign(world)
    listed = SlowList(world)
    world.hypervisor.hear(Reconnected())
    await listed.made.wait()
    came = foreign(world)
    world.hypervisor.tell(came, Change.STARTED)
    del world.hypervisor.found[gone]
    world.hypervisor.tell(gone, Change.STOPPED)
    await settle()
    listed.go.set()
    await until(lambda: world.vms._external.get(missed))
    assert {vm["vmId"] for vm in world.vms.brief()} == {missed, came}


async def test_a_vm_that_was_destroyed_while_a_list_was_made_does_not_come_back(world: World) -> None:
    await up(world)
    listed = SlowList(world)
    world.hypervisor.hear(Reconnected())
    await listed.made.wait()
    await world.vms.destroy(VM)
    listed.go.set()
    await world.vms._external.look_at_all()
    await settle()
    assert (world.vms.all(), world.records()) == ([], [])
    assert world.events.statuses()[-1] == "Down"


async def test_the_xml_of_many_domains_is_read_beside_the_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await up(world)
    real, threads = external.is_foreign, []

    def where(domain: Domain) -> bool:
        threads.append(threading.current_thread())
        return real(domain)

    monkeypatch.setattr(external, "is_foreign", where)
    await world.vms._external.look_at_all()
    assert len(threads) == 1 and threads[0] is not threading.main_thread()


async def test_a_foreign_domain_that_ended_while_vms_were_found_is_not_shown_and_one_that_came_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await up(world, disks=[disk()])
    gone, came = foreign(world), ""
    real = world.storage.resume_prepared

    async def meanwhile(images: Any, *, consumer: str) -> Any:
        nonlocal came
        if not came:
            came = foreign(world)
            world.hypervisor.tell(came, Change.STARTED)
            del world.hypervisor.found[gone]
            world.hypervisor.tell(gone, Change.STOPPED)
        return await real(images, consumer=consumer)

    monkeypatch.setattr(world.storage, "resume_prepared", meanwhile)
    await world.restart()
    await until(lambda: [vm["vmId"] for vm in world.vms.brief()] == [VM, came])


async def test_a_foreign_domain_that_takes_no_verb_is_left_to_its_owner(world: World) -> None:
    vm_id = foreign(world)
    await world.restart()
    world.hypervisor.hear(Watchdog(vm_id, "reset"))
    await settle()
    assert world.hypervisor.calls == []


async def test_a_foreign_domain_with_the_id_of_a_vm_of_ours_is_not_told_beside_it(world: World) -> None:
    await up(world)
    xml = FOREIGN.format(vm_id=VM, name="theirs", kind="kvm")
    world.hypervisor.found[VM] = FakeDomain(xml, DomainState.RUNNING)
    world.hypervisor.hear(Reconnected())
    await until(lambda: world.vms._external.get(VM))
    assert [vm["vmId"] for vm in world.vms.brief()] == [VM]
    assert [vm["vmId"] for vm in world.vms.all_stats()] == [VM]
    assert [vm["vmId"] for vm in json.loads((await world.vms.all_encoded_stats()).full)] == [VM]
    await world.vms.destroy(VM)
    assert world.vms.stats(VM)["vmName"] == "theirs"


# When libvirt comes back


async def test_each_vm_is_told_once_when_libvirt_comes_back_and_none_that_ends(world: World) -> None:
    other = new_id()
    await up(world)
    await up(world, other)
    world.hypervisor.guest_ends(other)
    await until(lambda: world.vms.get(other).status.down)
    await settle()
    world.events.told.clear()
    world.hypervisor.hear(Reconnected())
    await settle()
    assert (world.events.statuses(VM), world.events.statuses(other)) == (["Up"], [])


async def test_a_vm_of_which_libvirt_says_nothing_is_not_told(world: World) -> None:
    vm = await up(world)
    world.events.told.clear()

    async def lost(_vm_id: str) -> None:
        raise HypervisorLost("look")

    world.hypervisor.domain = lost  # type: ignore[method-assign]
    world.hypervisor.hear(Reconnected())
    await settle()
    assert world.events.told == []
    assert vm.status.reported == "Up"


# Events that engines get


async def test_an_event_has_the_state_its_time_and_the_devices(world: World) -> None:
    vm = await up(world)
    ((name, told),) = world.events.told
    assert name == f"|virt|VM_status|{VM}"
    assert told == {
        "vmId": VM,
        "status": "Up",
        "statusTime": told["statusTime"],
        "hash": vm.description.devices_digest,
    }
    assert int(told["statusTime"]) > BASE_MS


async def test_the_event_of_an_end_says_how_and_the_statistics_say_the_same(world: World) -> None:
    await up(world, disks=[disk()])
    world.hypervisor.guest_ends(VM)
    await until(lambda: world.vms.get(VM).status.down)
    (down,) = world.events.downs()
    ended = {
        "exitCode": 0,
        "exitReason": 7,
        "exitMessage": "User shut down from within the guest",
        "timeOffset": "0",
    }
    assert down == ended | {key: down[key] for key in ("vmId", "status", "statusTime", "hash")}
    told = world.vms.stats(VM)
    assert told == down | {
        "statusTime": told["statusTime"],
        "vmName": "vm-0063",
        "vmType": "kvm",
        "kvmEnable": "false",
        "acpiEnable": "true",
    }


def test_a_vm_that_just_began_has_run_no_time_and_never_less() -> None:
    vm = ShownVm(VM)
    assert report.now(vm, Samples())["elapsedTime"] == "0"
    vm.started_at_s = time.time() + 100
    assert report.now(vm, Samples())["elapsedTime"] == "0"
    vm.started_at_s = time.time() - 61.5
    assert report.now(vm, Samples())["elapsedTime"] == "61"


def test_a_vm_without_a_sample_uses_no_memory_that_is_known() -> None:
    told = report.stats(ShownVm(VM), Samples())
    assert (told["memUsage"], told["clientIp"], told["displayInfo"]) == ("0", "", [])


def test_a_disk_is_told_with_its_lun_and_an_empty_one_with_neither() -> None:
    lun = "<ovirt-vm:device devtype='disk' name='sda'><ovirt-vm:GUID>3600</ovirt-vm:GUID></ovirt-vm:device>"
    disks = [("<disk><target dev='sda'/></disk>", lun), ("<disk device='cdrom'><target dev='sdc'/></disk>", "")]
    vm, samples = ShownVm(VM, xml_of(disks=disks)), Samples()
    samples.take(VM, Counters())
    told = report.stats(vm, samples)["disks"]
    assert told["sda"]["lunGUID"] == "3600"
    assert not {"imageID", "lunGUID"} & set(told["sdc"])


def test_a_balloon_whose_guest_is_guaranteed_nothing_may_shrink_to_nothing() -> None:
    vm, samples = ShownVm(VM), Samples()
    samples.take(VM, Counters(balloon=True, memory=1, memory_maximum=2))
    balloon = report.stats(vm, samples)["balloonInfo"]
    assert (balloon["balloon_min"], balloon["ballooning_enabled"]) == ("0", True)
    off = ShownVm(VM, xml_of(metadata="<ovirt-vm:ballooningEnabled>false</ovirt-vm:ballooningEnabled>"))
    assert report.stats(off, samples)["balloonInfo"]["ballooning_enabled"] is False


# Watchdog


async def test_a_watchdog_is_told_with_its_time_and_is_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await up(world)
    before = time.time()
    world.hypervisor.hear(Watchdog(VM, "pause"))
    await settle()
    told = world.vms.stats(VM)["watchdogEvent"]
    assert told["action"] == "pause" and before <= told["time"] <= time.time()
    assert f"VM {VM}: its watchdog was not served in time: pause" in caplog.text


async def test_a_watchdog_that_paused_the_guest_is_seen_without_another_event(world: World) -> None:
    vm = await up(world)
    world.hypervisor.found[VM].state, world.hypervisor.found[VM].reason = DomainState.PAUSED, "watchdog"
    world.hypervisor.hear(Watchdog(VM, "pause"))
    await until(lambda: vm.status.reported == "Paused")
    assert vm.status.pause_code == "NOERR"


# Pause and resume


async def test_hooks_before_and_after_get_the_running_vms_xml(world: World) -> None:
    given: dict[str, str] = {}

    def keep(point: str) -> Any:
        async def script(xml: str) -> str:
            given[point] = xml
            return xml

        return script

    points = ("before_vm_pause", "after_vm_pause", "before_vm_cont", "after_vm_cont")
    world.hooks.scripts |= {point: keep(point) for point in points}
    vm = await up(world)
    live = world.hypervisor.found[VM].xml
    await vm.running.pause()
    await vm.running.cont()
    await until(lambda: len(given) == 4)
    assert given == dict.fromkeys(points, live)
    assert {vm.vm_id for vm in world.hooks.vms} == {VM}


async def test_a_resume_of_what_runs_does_nothing(world: World) -> None:
    vm = await up(world)
    await vm.running.cont()
    assert "before_vm_cont" not in world.hooks.ran
    assert "resume" not in world.hypervisor.calls


@pytest.mark.parametrize(("cause", "status"), [(Cause.LEAVES, "Migration Source"), (Cause.SAVES, "Saving State")])
async def test_a_vm_that_is_on_its_way_is_not_resumed_and_its_status_says_why(
    world: World, cause: Cause, status: str
) -> None:
    vm = await up(world)
    vm.status.apply(cause)
    with pytest.raises(VmBusy, match=f"Can't resume VM {VM} now: its status is {status}"):
        await vm.running.cont()


@pytest.mark.parametrize(("call", "state"), [("pause", "Up"), ("resume", "Paused")])
async def test_a_refusal_of_libvirt_is_told_and_nothing_is_changed(world: World, call: str, state: str) -> None:
    vm = await up(world)
    if call == "resume":
        await vm.running.pause()
    world.hypervisor.before[call] = refuse("no lock")
    with pytest.raises(Exception, match="no lock"):
        await (vm.running.pause() if call == "pause" else vm.running.cont())
    await settle()
    assert vm.status.reported == state
    world.hypervisor.before.clear()
    await (vm.running.pause() if call == "pause" else vm.running.cont())
    assert vm.status.reported == ("Paused" if call == "pause" else "Up")


async def test_who_was_overtaken_may_ask_again(world: World) -> None:
    vm = await up(world)
    go = asyncio.Event()

    async def script(xml: str) -> str:
        await go.wait()
        return xml

    world.hooks.scripts["before_vm_pause"] = script
    pausing = asyncio.create_task(vm.running.pause())
    await settle()
    await vm.running.cont()
    go.set()
    with pytest.raises(Superseded) as told:
        await pausing
    assert (told.value.vm_id, told.value.action, told.value.by) == (VM, "pause", "resume")
    await vm.running.pause()
    assert vm.status.reported == "Paused"


async def test_who_does_not_get_his_turn_hears_which_vm_is_busy_and_with_what(world: World) -> None:
    vm = await up(world)
    async with vm._turn("pause"):
        with pytest.raises(LaneBusy, match=f"VM {VM} is busy with pause for .*: reset did not get its turn"):
            async with vm._turn("reset", wait_s=0.01):
                pass


async def test_a_reset_is_one_call_and_no_news(world: World) -> None:
    vm = await up(world)
    await vm.running.reset()
    await settle()
    assert world.hypervisor.calls[-1] == "reset"
    assert world.events.statuses() == ["Up"]


# The end of the host


async def test_a_host_that_goes_down_tells_how_long_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def yes() -> bool:
        return True

    caplog.set_level(logging.INFO, "vdsm.virt")
    assert host_shutdown.FAREWELL_S == 15.0
    world = World(tmp_path, host_goes_down=yes)
    await world.vms.start()
    await world.vms.farewell()
    assert "goes down" not in caplog.text  # without VMs there is nothing to wait for
    await up(world)
    monkeypatch.setattr(host_shutdown, "FAREWELL_S", 0.01)
    await world.vms.farewell()
    assert "the host goes down: the engine has 0 s to see how 1 VMs ended" in caplog.text
    await world.vms.stop()


async def test_systemd_is_asked_for_its_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[list[str], float]] = []

    class Said:
        out = b"12 shutdown.target start waiting\n"

    async def run(argv: list[str], *, timeout_s: float) -> Said:
        asked.append((argv, timeout_s))
        return Said()

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(host_shutdown, "_SYSTEMD", str(tmp_path))
    assert await host_shutdown.ask()
    assert asked == [(["systemctl", "list-jobs", "--no-legend", "--plain"], 3.0)]
    Said.out = b"\xff\n"
    assert not await host_shutdown.ask()
    monkeypatch.setattr(host_shutdown, "_SYSTEMD", str(tmp_path / "none"))
    asked.clear()
    assert not await host_shutdown.ask()
    assert asked == []


async def test_a_host_is_asked_again_after_two_seconds_and_not_before() -> None:
    now, asked = [10.0], []

    async def ask() -> bool:
        asked.append(now[0])
        return False

    host = HostShutdown(ask, lambda: now[0])
    for at in (10.0, 12.0, 12.1):
        now[0] = at
        await host.goes_down()
    assert asked == [10.0, 12.1]
