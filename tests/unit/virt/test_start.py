# SPDX-License-Identifier: GPL-2.0-or-later
"""A start step by step: what a hook may change, what refuses it, in which order, and what is on record meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.xml import parse
from vdsm.virt import accept
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.errors import ForeignDomain, NoSuchVm, VmExists, VmIdDiffers, VmIsDown
from vdsm.virt.hypervisor import DomainState
from vdsm.virt.records import Phase, Record
from vdsm.virt.vm import Vm

from .fakes import (
    DOMAIN,
    FACTS,
    IMAGE,
    POOL,
    VM,
    VOLUME,
    FakeDomain,
    World,
    disk,
    new_id,
    refuse,
    settle,
    until,
    xml_of,
)


class Broken(AgentError):
    msg = "broken on purpose"


async def ended(world: World, **xml: object) -> str:
    """The message of a start that fails."""
    vm = await world.vms.create(VM, xml_of(**({"disks": [disk()]} | xml)))  # type: ignore[arg-type]
    await until(lambda: vm.status.down)
    (down,) = world.events.downs()
    assert (down["exitCode"], down["exitReason"]) == (1, 1)
    assert world.storage.prepared == set()
    return str(down["exitMessage"])


async def up(world: World, **xml: object) -> Vm:
    vm = await world.vms.create(VM, xml_of(**({"disks": [disk()]} | xml)))  # type: ignore[arg-type]
    await until(lambda: vm.status.stored == "Up")
    await settle()
    return vm


def rewrites(world: World, old: str, new: str) -> None:
    async def script(xml: str) -> str:
        assert old in xml
        return xml.replace(old, new)

    world.hooks.scripts["before_vm_start"] = script


# What a hook may change


async def test_a_hook_may_not_change_the_vms_id(world: World) -> None:
    rewrites(world, VM, new_id())
    assert "uuid: a before_vm_start hook changed it" in await ended(world)


async def test_a_hook_may_not_remove_the_metadata(world: World) -> None:
    async def script(xml: str) -> str:
        start, _, rest = xml.partition("<metadata>")
        return start + rest.partition("</metadata>")[2]

    world.hooks.scripts["before_vm_start"] = script
    assert "metadata: a before_vm_start hook removed the VM's metadata" in await ended(world)
    assert world.hypervisor.calls == []


async def test_what_a_hook_left_that_is_no_xml_is_told_as_the_hooks(world: World) -> None:
    rewrites(world, "</domain>", "")
    assert (await ended(world)).startswith("the domain XML that the before_vm_start hooks left is not valid XML")


async def test_a_flag_that_a_hook_broke_is_told_with_its_file(world: World) -> None:
    async def script(xml: str) -> str:
        Path(world.paths.run, VM, "launchflags").write_text("paused")
        return xml

    world.hooks.scripts["before_vm_start"] = script
    assert await ended(world) == (
        f"A hook left 'paused' in {world.paths.run}/{VM}/launchflags: expected one decimal number"
    )
    assert world.hypervisor.calls == []


async def test_hooks_get_the_xml_with_the_images_of_this_host_and_the_time_of_the_start(world: World) -> None:
    given: list[str] = []

    async def script(xml: str) -> str:
        given.append(xml)
        return xml

    world.hooks.scripts["before_vm_start"] = script
    before = time.time()
    await up(world, metadata="<ovirt-vm:custom><ovirt-vm:color>blue</ovirt-vm:color></ovirt-vm:custom>")
    assert f'file="/rhev/{IMAGE}/{VOLUME}"' in given[0]
    root = parse(given[0], what="it")
    (started,) = [e for e in root.iter() if isinstance(e.tag, str) and e.tag.endswith("startTime")]
    assert before <= float(started.text or "") <= time.time()
    assert started.get("type") == "float"
    assert [(vm.vm_id, dict(vm.custom)) for vm in world.hooks.vms] == [(VM, {"color": "blue"})] * 2


async def test_a_reboot_that_destroys_is_written_into_the_metadata(world: World) -> None:
    vm = await up(world, more="<on_reboot>destroy</on_reboot>")
    assert "on_reboot>destroy" not in world.hypervisor.found[VM].xml
    assert vm.description.metadata.destroy_on_reboot


async def test_a_hook_after_the_start_that_fails_is_told_and_its_flags_go(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(_xml: str) -> str:
        raise Broken()

    world.hooks.scripts["after_vm_start"] = script
    vm = await up(world)
    assert f"VM {VM}: after_vm_start: broken on purpose" in caplog.text
    assert vm.status.reported == "Up"
    assert list(Path(world.paths.run, VM).iterdir()) == []


# What refuses it


async def test_a_domain_of_ours_that_began_to_run_meanwhile_is_not_started_twice(world: World) -> None:
    async def script(xml: str) -> str:
        world.hypervisor.found[VM] = FakeDomain(xml, DomainState.PAUSED)
        return xml

    world.hooks.scripts["before_vm_start"] = script
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.reported == "Paused")
    assert world.hypervisor.calls == []


async def test_a_definition_that_stays_is_told_in_libvirts_words(world: World) -> None:
    world.hypervisor.found[VM] = FakeDomain(xml_of(), DomainState.OFF)
    world.hypervisor.before["undefine"] = refuse("it is used")
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.ending.failed)
    assert "define" not in world.hypervisor.calls
    assert "launch" not in world.hypervisor.calls


async def test_a_foreign_domain_is_named(world: World) -> None:
    world.hypervisor.found[VM] = FakeDomain(f"<domain><name>theirs</name><uuid>{VM}</uuid></domain>", DomainState.OFF)
    assert await ended(world) == (
        f"libvirt has a domain 'theirs' with the uuid {VM} that is not the agent's: it is left alone"
    )


async def test_a_destroy_between_definition_and_launch_launches_nothing(world: World) -> None:
    defined, go = asyncio.Event(), asyncio.Event()

    async def hang(_vm_id: str) -> None:
        defined.set()
        await go.wait()

    world.hypervisor.before["define"] = hang
    await world.vms.create(VM, xml_of(disks=[disk()]))
    await defined.wait()
    destroying = asyncio.create_task(world.vms.destroy(VM))
    await settle()
    go.set()
    await destroying
    assert "launch" not in world.hypervisor.calls
    assert world.hypervisor.found == {}


async def test_a_destroy_between_two_images_prepares_no_more(world: World) -> None:
    second, prepared, go = new_id(), asyncio.Event(), asyncio.Event()
    real = world.storage.prepare_image

    async def slow(*ids: str, consumer: str):  # type: ignore[no-untyped-def]
        prepared.set()
        await go.wait()
        return await real(*ids, consumer=consumer)

    world.storage.prepare_image = slow  # type: ignore[method-assign]
    await world.vms.create(VM, xml_of(disks=[disk("vda"), disk("vdb", second)]))
    await prepared.wait()
    destroying = asyncio.create_task(world.vms.destroy(VM))
    await settle()
    go.set()
    await destroying
    assert f"prepare {second}" not in world.storage.calls
    assert world.storage.prepared == set()
    assert world.hooks.ran == ["before_vm_destroy", "after_vm_destroy"]


async def test_who_is_destroyed_while_it_waits_for_a_slot_never_takes_one(tmp_path: Path) -> None:
    world = World(tmp_path, start_slots=1)
    await world.vms.start()
    go, other = asyncio.Event(), new_id()

    async def hang(vm_id: str) -> None:
        if vm_id == VM:
            await go.wait()

    world.hypervisor.before["launch"] = hang
    await world.vms.create(VM, xml_of())
    await until(lambda: "launch" in world.hypervisor.calls)
    await world.vms.create(other, xml_of(other))
    await until(lambda: world.hooks.ran.count("before_vm_start") == 2)
    async with asyncio.timeout(1):
        await world.vms.destroy(other)
    go.set()
    third = new_id()
    vm = await world.vms.create(third, xml_of(third))
    await until(lambda: vm.status.reported == "Up")
    await world.vms.stop()


# Order and records


async def test_the_record_says_how_far_it_is(world: World) -> None:
    phases: dict[str, Phase | None] = {}

    def phase() -> Phase | None:
        record = world.vms._parts.records.get(VM)
        return record.phase if record else None

    async def keep(point: str) -> None:
        phases[point] = phase()

    async def script(xml: str) -> str:
        await keep("before_vm_start")
        return xml

    async def after(xml: str) -> str:
        await keep("after_vm_start")
        return xml

    world.hooks.scripts |= {"before_vm_start": script, "after_vm_start": after}
    for call in ("define", "launch"):
        world.hypervisor.before[call] = lambda _vm_id, call=call: keep(call)  # type: ignore[misc]
    before = time.time()
    vm = await up(world)
    assert phases == {
        "before_vm_start": Phase.STARTING,
        "define": Phase.LAUNCHING,
        "launch": Phase.LAUNCHING,
        "after_vm_start": Phase.RUNNING,
    }
    assert vm.record.started_at_s is not None and before <= vm.record.started_at_s <= time.time()


async def test_the_steps_of_a_start_are_in_the_log_with_their_times(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vdsm.clock")
    await up(world)
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith(f"VM.create {VM} ")]
    steps = ["prepare", "before_vm_start", "slot", "libvirt", "after_vm_start"]
    assert [word for word in line.split() if word in steps] == steps


async def test_a_start_that_fails_is_in_the_log_with_the_reason(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.hypervisor.before["launch"] = refuse("no such machine")
    assert await ended(world) == "libvirt failed to do it: no such machine"
    assert f"VM {VM} can't be started: libvirt failed to do it: no such machine" in caplog.text


async def test_a_defect_in_a_start_is_an_end_with_its_kind(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def script(_xml: str) -> str:
        raise KeyError("odd")

    world.hooks.scripts["before_vm_start"] = script
    assert await ended(world) == "KeyError: 'odd'"
    (told,) = [r for r in caplog.records if r.getMessage() == f"VM {VM}: its start failed"]
    assert told.exc_info


async def test_a_start_that_somebody_else_made_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.hypervisor.found[VM] = FakeDomain(xml_of(), DomainState.RUNNING)
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.reported == "Up")
    assert f"VM {VM} is taken over as it is, somebody else started it: " in caplog.text
    assert "already on this host, its status is running" in caplog.text
    assert vm.record.phase is Phase.RUNNING


# Accepting


async def test_what_is_kept_has_no_secret_and_fits_this_host() -> None:
    xml = xml_of(devices="<graphics type='vnc' passwd='hunter22'/>", more="<on_reboot>destroy</on_reboot>")
    description, kept = await accept.read(xml, FACTS)
    assert description.vm_id == VM
    assert "hunter22" not in kept
    assert 'type="qemu"' in kept and "on_reboot>destroy" not in kept


async def test_a_large_xml_is_read_beside_the_loop() -> None:
    xml = xml_of().replace("</domain>", f"<!--{'x' * (1 << 20)}--></domain>")
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    description, _kept = await accept.read(xml, FACTS)
    task.cancel()
    assert description.vm_id == VM and turns > 0


@pytest.mark.parametrize("xml", ["<domain", xml_of(disks=[disk(), disk()]), xml_of(disks=[disk(image="x")])])
async def test_what_is_refused_is_the_parameter_by_its_length_not_its_text(xml: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        await accept.read(xml, FACTS)
    assert (refused.value.name, refused.value.value) == ("xml", f"{len(xml)} characters")
    assert refused.value.reason


async def test_what_is_no_xml_is_told_in_the_parsers_words() -> None:
    with pytest.raises(InvalidParameter, match=r"Parameter 'xml' is invalid: it is not valid XML: .*line 1"):
        await accept.read("<domain", FACTS)


async def test_the_first_record_has_each_image_once_and_those_that_were_left() -> None:
    description, kept = await accept.read(
        xml_of(disks=[disk("vda"), disk("vdb"), ("<disk><target dev='x'/></disk>", "")]), FACTS
    )
    one, old = ImageId(POOL, DOMAIN, IMAGE, VOLUME), ImageId(POOL, DOMAIN, new_id(), VOLUME)
    assert accept.record(description, kept, None) == Record(
        vm_id=VM, name="vm-0063", phase=Phase.STARTING, xml=kept, images=(one,)
    )
    left = Record(vm_id=VM, name="x", phase=Phase.LEFT, xml="", images=(old, one))
    assert accept.record(description, kept, left).images == (one, old)


async def test_a_vm_that_is_there_is_refused_by_its_status(world: World) -> None:
    running = world.hooks.hang("before_vm_start")
    await world.vms.create(VM, xml_of())
    await running.wait()
    with pytest.raises(VmExists, match=f"VM {VM} is already on this host, its status is WaitForLaunch"):
        await world.vms.create(VM, xml_of())


async def test_ids_that_differ_are_both_told(world: World) -> None:
    other = new_id()
    with pytest.raises(VmIdDiffers, match=f"'vmID' is {other}, but the domain XML is of {VM}"):
        await world.vms.create(other, xml_of())


async def test_who_is_not_here_is_named(world: World) -> None:
    with pytest.raises(NoSuchVm, match=f"VM {VM} does not run on this host"):
        await world.vms.destroy(VM)
    xml = f"<domain><name>theirs</name><uuid>{VM}</uuid></domain>"
    world.hypervisor.found[VM] = FakeDomain(xml, DomainState.RUNNING)
    await world.restart()
    with pytest.raises(ForeignDomain, match=f"'theirs' with the uuid {VM}"):
        world.vms.get(VM)


async def test_a_vm_that_is_down_takes_no_verb_and_says_which(world: World) -> None:
    vm = await up(world)
    world.hypervisor.guest_ends(VM)
    await until(lambda: vm.status.down)
    for verb, name in ((vm.running.pause, "pause"), (vm.running.cont, "resume"), (vm.running.reset, "reset")):
        with pytest.raises(VmIsDown, match=f"Can't {name} VM {VM}: it does not run"):
            await verb()
