# SPDX-License-Identifier: GPL-2.0-or-later
"""The edge to libvirt, held against libvirt's own test driver: the real library, its real events and errors."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import DomainMissing, HypervisorError, VmCallsHang
from vdsm.virt.hypervisor import (
    Change,
    DomainEvent,
    DomainState,
    HypervisorEvent,
)
from vdsm.virt.libvirt_edge import libvirt_hypervisor
from vdsm.virt.libvirt_edge.libvirt_hypervisor import LibvirtHypervisor

from .fakes import new_id, until

URI = "test:///default"
# a real connection that can't be: its error is what a broken connection raises
NOWHERE = "test+unix:///default?socket=/nonexistent"


def xml_of(vm_id: str) -> str:
    return (
        f"<domain type='test'><name>vm-{vm_id[:8]}</name><uuid>{vm_id}</uuid><memory>8192</memory><os><type>hvm</type>"
        "</os><devices><graphics type='vnc' port='-1' passwd='s3cret'/>"
        "<disk type='file' device='disk'><source file='/a'/><target dev='vda' bus='virtio'/></disk>"
        "<disk type='file' device='disk'><source file='/b'/><target dev='vdb' bus='virtio'/></disk></devices></domain>"
    )


class Edge:
    """The hypervisor on the test driver, one domain of its own, and what was heard of it."""

    def __init__(self) -> None:
        self.hypervisor = LibvirtHypervisor(URI)
        self.vm_id = new_id()
        self.heard: list[HypervisorEvent] = []

    @property
    def changes(self) -> list[Change]:
        return [e.change for e in self.heard if isinstance(e, DomainEvent) and e.vm_id == self.vm_id]

    async def start_domain(self) -> None:
        await self.hypervisor.define(xml_of(self.vm_id))
        await self.hypervisor.launch(self.vm_id, 0)

    async def tell(self, count: int) -> list[Change]:
        """The changes, once there are ``count``; they come through two threads."""
        await until(lambda: len(self.changes) >= count)
        return self.changes

    async def call(self, run: Callable[[libvirt.virConnect], Any]) -> Any:
        return await self.hypervisor._call(self.hypervisor._reads, "try it", 5.0, run)

    async def act(self, run: Callable[[libvirt.virDomain], Any]) -> Any:
        return await self.call(lambda connect: run(connect.lookupByUUIDString(self.vm_id)))


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    await edge.hypervisor.start(edge.heard.append)
    yield edge
    saved = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    for clean in (libvirt.virDomain.destroy, lambda domain: domain.undefineFlags(saved)):
        with contextlib.suppress(HypervisorError, DomainMissing):
            await edge.act(clean)
    await edge.hypervisor.stop()


# Calls


async def test_a_domain_is_seen_as_it_is(edge: Edge) -> None:
    await edge.hypervisor.define(xml_of(edge.vm_id))
    off = await edge.hypervisor.domain(edge.vm_id)
    assert (off.vm_id, off.state, off.active) == (edge.vm_id, DomainState.OFF, False)
    runs = await edge.hypervisor.launch(edge.vm_id, 0)
    assert (runs.state, runs.active, runs.name) == (DomainState.RUNNING, True, f"vm-{edge.vm_id[:8]}")
    await edge.hypervisor.pause(edge.vm_id)
    paused = await edge.hypervisor.domain(edge.vm_id)
    assert (paused.state, paused.reason, paused.active) == (DomainState.PAUSED, "user", True)
    await edge.hypervisor.resume(edge.vm_id)
    assert (await edge.hypervisor.domain(edge.vm_id)).state is DomainState.RUNNING
    await edge.hypervisor.kill(edge.vm_id)
    ended = await edge.hypervisor.domain(edge.vm_id)
    assert (ended.state, ended.reason) == (DomainState.OFF, "destroyed")


async def test_no_password_comes_from_libvirt(edge: Edge) -> None:
    await edge.start_domain()
    assert "s3cret" not in (await edge.hypervisor.domain(edge.vm_id)).xml


async def test_all_domains_are_listed_with_their_state(edge: Edge) -> None:
    await edge.start_domain()
    found = {domain.vm_id: domain.state for domain in await edge.hypervisor.domains()}
    assert found[edge.vm_id] is DomainState.RUNNING
    assert len(found) == 2  # and the driver's own


async def test_statistics_come_by_id(edge: Edge) -> None:
    await edge.start_domain()
    assert (await edge.hypervisor.statistics())[edge.vm_id].state is DomainState.RUNNING


async def test_networks_are_the_active_ones(edge: Edge) -> None:
    assert await edge.hypervisor.active_networks() == {"default"}


async def test_file_systems_are_frozen_and_thawed_by_the_guests_agent(edge: Edge) -> None:
    await edge.start_domain()
    assert await edge.hypervisor.freeze(edge.vm_id) == 2  # the driver's guests have two file systems
    assert await edge.hypervisor.thaw(edge.vm_id) == 2


async def test_a_guest_that_does_not_run_can_not_be_asked(edge: Edge) -> None:
    await edge.hypervisor.define(xml_of(edge.vm_id))
    for ask in (edge.hypervisor.freeze, edge.hypervisor.thaw, edge.hypervisor.ask_agent_reboot):
        with pytest.raises(HypervisorError, match="not running"):
            await ask(edge.vm_id)


async def test_a_guest_is_asked_in_the_way_that_was_chosen_and_in_no_other(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    for call in ("reboot", "shutdownFlags"):  # not all of these flags are for the driver's guests
        monkeypatch.setattr(libvirt.virDomain, call, lambda _domain, flags, call=call: asked.append((call, flags)))
    await edge.start_domain()
    await edge.hypervisor.ask_agent_reboot(edge.vm_id)
    await edge.hypervisor.ask_reboot(edge.vm_id)
    await edge.hypervisor.ask_agent_shutdown(edge.vm_id)
    await edge.hypervisor.ask_shutdown(edge.vm_id)
    assert asked == [
        ("reboot", libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT),
        ("reboot", libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN),
        ("shutdownFlags", libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT),
        ("shutdownFlags", libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN),
    ]


async def test_errors_of_disks_come_by_target(edge: Edge) -> None:
    await edge.start_domain()
    # the driver's disks fail one in this way, one in that
    assert await edge.hypervisor.disk_errors(edge.vm_id) == {"vda": "unspecified", "vdb": "no space"}


async def test_metadata_are_written_for_the_state_of_now(edge: Edge) -> None:
    uri = "http://ovirt.org/vm/1.0"

    def read(flags: int) -> Callable[[libvirt.virDomain], str]:
        return lambda domain: domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, uri, flags)

    await edge.start_domain()
    await edge.hypervisor.set_metadata(edge.vm_id, "<vm><startTime>7</startTime></vm>")
    assert "<startTime>7</startTime>" in await edge.act(read(libvirt.VIR_DOMAIN_AFFECT_LIVE))
    assert f'<ovirt-vm:vm xmlns:ovirt-vm="{uri}">' in (await edge.hypervisor.domain(edge.vm_id)).xml
    with pytest.raises(HypervisorError, match="metadata not found"):
        await edge.act(read(libvirt.VIR_DOMAIN_AFFECT_CONFIG))
    await edge.hypervisor.kill(edge.vm_id)
    await edge.hypervisor.set_metadata(edge.vm_id, "<vm><exitCode>1</exitCode></vm>")
    assert "<exitCode>1</exitCode>" in await edge.act(read(libvirt.VIR_DOMAIN_AFFECT_CONFIG))


SLEEPS, CRASHED = new_id(), new_id()
ODD_DOMAINS = "<node xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>{}</node>"
ODD_DOMAIN = (
    "<domain type='test'><name>odd-{0}</name><uuid>{1}</uuid><memory>8192</memory>"
    "<os><type>hvm</type></os><test:runstate>{0}</test:runstate></domain>"
)


async def test_active_is_what_libvirt_says_of_a_crashed_and_of_a_sleeping_guest(tmp_path: Path) -> None:
    odd = ((libvirt.VIR_DOMAIN_PMSUSPENDED, SLEEPS), (libvirt.VIR_DOMAIN_CRASHED, CRASHED))
    host = tmp_path / "host.xml"
    host.write_text(ODD_DOMAINS.format("".join(ODD_DOMAIN.format(*one) for one in odd)))
    hypervisor = LibvirtHypervisor(f"test://{host}")
    await hypervisor.start(lambda _event: None)
    sleeps, crashed = await hypervisor.domain(SLEEPS), await hypervisor.domain(CRASHED)
    assert (sleeps.state, sleeps.reason, sleeps.active) == (DomainState.RUNNING, "asleep", True)
    assert (crashed.state, crashed.active) == (DomainState.CRASHED, True)  # kept for a look at its memory
    await hypervisor.stop()


async def test_a_domain_that_ends_between_two_questions_is_asked_again(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = libvirt.virDomain.isActive

    def ends_before(domain: libvirt.virDomain) -> int:
        if real(domain):
            domain.destroy()
        return real(domain)

    await edge.start_domain()
    monkeypatch.setattr(libvirt.virDomain, "isActive", ends_before)
    seen = await edge.hypervisor.domain(edge.vm_id)
    assert (seen.state, seen.reason, seen.active) == (DomainState.OFF, "destroyed", False)


# Events


async def test_a_life_is_heard_in_its_order(edge: Edge) -> None:
    await edge.start_domain()
    await edge.hypervisor.pause(edge.vm_id)
    await edge.hypervisor.resume(edge.vm_id)
    await edge.hypervisor.terminate(edge.vm_id)
    assert await edge.tell(4) == [Change.STARTED, Change.SUSPENDED, Change.RESUMED, Change.STOPPED]


async def test_a_guest_that_ends_is_a_stop(edge: Edge) -> None:
    await edge.start_domain()
    await edge.act(libvirt.virDomain.shutdown)
    assert (await edge.tell(2))[-1] is Change.STOPPED
    assert (await edge.hypervisor.domain(edge.vm_id)).reason == "shutdown"


async def test_a_saved_memory_is_no_plain_stop(edge: Edge) -> None:
    await edge.start_domain()
    await edge.act(libvirt.virDomain.managedSave)
    assert await edge.tell(2) == [Change.STARTED, Change.SAVED]
    assert (await edge.hypervisor.domain(edge.vm_id)).reason == "saved"


async def test_what_changes_no_state_is_not_heard(edge: Edge) -> None:
    await edge.hypervisor.define(xml_of(edge.vm_id))
    await edge.act(libvirt.virDomain.undefine)
    await edge.start_domain()
    assert await edge.tell(1) == [Change.STARTED]


async def test_events_are_heard_on_the_loop(edge: Edge) -> None:
    threads = []
    second = LibvirtHypervisor(URI)
    await second.start(lambda _event: threads.append(threading.current_thread()))
    await second.domains()
    await edge.start_domain()
    await until(lambda: threads)
    assert set(threads) == {threading.main_thread()}
    await second.stop()


async def test_nothing_is_heard_after_the_stop(edge: Edge) -> None:
    second, heard = LibvirtHypervisor(URI), []
    await second.start(heard.append)
    await second.domains()
    await second.stop()
    await edge.start_domain()
    await edge.tell(1)
    assert heard == []


# Errors


async def test_a_domain_that_is_not_there_is_missing(edge: Edge) -> None:
    for verb in (edge.hypervisor.domain, edge.hypervisor.pause, edge.hypervisor.undefine):
        with pytest.raises(DomainMissing) as missing:
            await verb(edge.vm_id)
        assert missing.value.vm_id == edge.vm_id


async def test_a_refusal_has_libvirts_words_and_code(edge: Edge) -> None:
    await edge.hypervisor.define(xml_of(edge.vm_id))
    with pytest.raises(HypervisorError, match=r"failed to kill QEMU: .*not running") as refused:
        await edge.hypervisor.kill(edge.vm_id)
    assert refused.value.code == libvirt.VIR_ERR_OPERATION_INVALID


async def test_an_xml_that_libvirt_cannot_read_is_refused(edge: Edge) -> None:
    with pytest.raises(HypervisorError, match="failed to define the domain"):
        await edge.hypervisor.define("<domain")


async def test_a_failure_leaves_none_of_libvirts_objects_to_the_garbage_collector(edge: Edge) -> None:
    """It may run between a failure and the making of its exception, and freeing an object clears libvirt's error."""

    def domains() -> int:
        return sum(isinstance(thing, libvirt.virDomain) for thing in gc.get_objects())

    await edge.hypervisor.define(xml_of(edge.vm_id))
    gc.collect()
    before = domains()
    gc.disable()
    try:
        for _ in range(5):
            with pytest.raises(HypervisorError):
                await edge.hypervisor.kill(edge.vm_id)
        assert domains() == before
    finally:
        gc.enable()


async def test_a_look_that_failed_without_a_word_is_made_again(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = libvirt.virDomain.state, []

    def fails_once(domain: libvirt.virDomain, flags: int) -> object:
        tries.append(1)
        if len(tries) == 1:
            raise libvirt.libvirtError("virDomainGetState() failed")  # no error of the thread: it was cleared
        return real(domain, flags)

    await edge.start_domain()
    monkeypatch.setattr(libvirt.virDomain, "state", fails_once)
    assert (await edge.hypervisor.domain(edge.vm_id)).active


async def test_a_call_that_hangs_ends_at_its_deadline_and_others_go_on(edge: Edge) -> None:
    release = threading.Event()
    with pytest.raises(DeadlineExceeded):
        await edge.hypervisor._call(edge.hypervisor._reads, "hang", 0.05, lambda _connect: release.wait())
    assert await edge.hypervisor.domains()
    release.set()


# Pools


class Hung:
    """libvirt calls that hang until they are released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *calls: str) -> None:
        self.release = threading.Event()
        self.begun = 0
        for call in calls:
            monkeypatch.setattr(libvirt.virDomain, call, self._hang)

    def _hang(self, *_: object) -> int:
        self.begun += 1
        self.release.wait(30)
        return 0


@pytest.fixture
async def vms(edge: Edge) -> AsyncIterator[list[str]]:
    """Many domains that run."""
    ids = [new_id() for _ in range(20)]
    for vm_id in ids:
        await edge.hypervisor.define(xml_of(vm_id))
        await edge.hypervisor.launch(vm_id, 0)
    yield ids

    def clean(connect: libvirt.virConnect) -> None:
        for domain in map(connect.lookupByUUIDString, ids):
            if domain.isActive():
                domain.destroy()
            domain.undefine()

    await edge.call(clean)


async def test_ends_and_looks_get_through_when_all_else_hangs(
    edge: Edge, vms: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt.virDomain, "undefineFlags", lambda domain, _flags: domain.undefine())
    await edge.start_domain()
    hypervisor = edge.hypervisor
    with monkeypatch.context() as patch:
        hung = Hung(patch, "suspend", "createWithFlags", "fsFreeze")
        verbs = (hypervisor.pause, hypervisor.freeze, lambda vm_id: hypervisor.launch(vm_id, 0))
        callers = [asyncio.create_task(verb(vm_id)) for vm_id in vms for verb in verbs]  # type: ignore[operator]
        await until(lambda: hung.begun >= 10)
        async with asyncio.timeout(1):
            assert (await hypervisor.domain(edge.vm_id)).active
            await hypervisor.terminate(edge.vm_id)
            await hypervisor.undefine(edge.vm_id)
        assert await edge.tell(2) == [Change.STARTED, Change.STOPPED]
        hung.release.set()
        await asyncio.gather(*callers)


@pytest.mark.parametrize(
    ("call", "hangs", "goes_on"),
    [
        ("createWithFlags", lambda h, vm_id: h.launch(vm_id, 0), lambda h, vm_id: h.pause(vm_id)),
        ("fsFreeze", lambda h, vm_id: h.freeze(vm_id), lambda h, vm_id: h.pause(vm_id)),
        ("suspend", lambda h, vm_id: h.pause(vm_id), lambda h, vm_id: h.freeze(vm_id)),
        ("destroyFlags", lambda h, vm_id: h.kill(vm_id), lambda h, vm_id: h.pause(vm_id)),
    ],
    ids=["launches", "agents", "changes", "ends"],
)
async def test_what_hangs_starves_nothing_of_another_kind(
    edge: Edge, vms: list[str], monkeypatch: pytest.MonkeyPatch, call: str, hangs: Any, goes_on: Any
) -> None:
    with monkeypatch.context() as patch:
        hung = Hung(patch, call)
        callers = [asyncio.create_task(hangs(edge.hypervisor, vm_id)) for vm_id in vms]
        await until(lambda: hung.begun >= 2)
        async with asyncio.timeout(1):
            await goes_on(edge.hypervisor, vms[0])
        hung.release.set()
        await asyncio.gather(*callers)


async def test_each_call_that_hangs_has_a_connection_of_its_own(
    edge: Edge, vms: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirtd serves five calls of one connection at a time."""
    monkeypatch.setattr(edge.hypervisor._changes, "_slow_s", 0.02)
    used, release = [], threading.Event()

    def suspend(domain: libvirt.virDomain) -> int:
        used.append(domain.connect())
        release.wait(30)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(libvirt.virDomain, "suspend", suspend)
        callers = [asyncio.create_task(edge.hypervisor.pause(vm_id)) for vm_id in vms]
        await until(lambda: len(used) == 7)
        assert len({id(connect) for connect in used}) == 7
        release.set()
        await asyncio.gather(*callers)


def test_libvirtd_has_threads_left_when_all_that_may_hang_does() -> None:
    hypervisor = LibvirtHypervisor(URI)
    pools = (hypervisor._changes, hypervisor._launches, hypervisor._agents, hypervisor._statistics._workers)
    assert sum(pool._limit for pool in pools) < 20  # `max_workers` of libvirtd.conf


async def test_a_call_before_the_start_is_refused() -> None:
    with pytest.raises(HypervisorError, match="not started"):
        await LibvirtHypervisor(URI).domains()


async def test_a_kill_that_was_given_up_while_its_domain_was_looked_up_kills_nothing_later(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    await edge.start_domain()
    go, look_up = threading.Event(), libvirt.virConnect.lookupByUUIDString

    def slowly(connect: libvirt.virConnect, vm_id: str) -> libvirt.virDomain:
        go.wait(10)
        return look_up(connect, vm_id)

    with monkeypatch.context() as patched:
        patched.setattr(libvirt.virConnect, "lookupByUUIDString", slowly)
        patched.setattr(libvirt_hypervisor, "_CHANGE_S", 0.05)
        with pytest.raises(DeadlineExceeded):
            await edge.hypervisor.kill(edge.vm_id)
        with pytest.raises(VmCallsHang, match="kill QEMU"):
            edge.hypervisor.check_free(edge.vm_id)
        go.set()
        await until(lambda: not edge.hypervisor._ends.stuck)
    edge.hypervisor.check_free(edge.vm_id)
    assert (await edge.hypervisor.domain(edge.vm_id)).state is DomainState.RUNNING
