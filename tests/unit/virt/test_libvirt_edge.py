# SPDX-License-Identifier: GPL-2.0-or-later
"""The edge to libvirt, held against libvirt's own test driver: the real library, its real events and errors."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import libvirt
import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import DomainMissing, HypervisorError, HypervisorLost
from vdsm.virt.hypervisor import (
    Change,
    ClockShift,
    DiskTrouble,
    DomainEvent,
    DomainState,
    HypervisorEvent,
    Reconnected,
)
from vdsm.virt.libvirt_edge.connection import Connection
from vdsm.virt.libvirt_edge.libvirt_hypervisor import LibvirtHypervisor
from vdsm.virt.libvirt_edge.subscriptions import Subscriptions
from vdsm.virt.libvirt_edge.translation import domain_state, lifecycle_change
from vdsm.virt.libvirt_edge.workers import Workers

from .fakes import new_id, until

URI = "test:///default"
# a real connection that can't be: its error is what a broken connection raises
NOWHERE = "test+unix:///default?socket=/nonexistent"


def xml_of(vm_id: str) -> str:
    return (
        f"<domain type='test'><name>vm-{vm_id[:8]}</name><uuid>{vm_id}</uuid><memory>8192</memory><os><type>hvm</type>"
        "</os><devices><graphics type='vnc' port='-1' passwd='s3cret'/></devices></domain>"
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

    @property
    def reconnected(self) -> int:
        return sum(isinstance(e, Reconnected) for e in self.heard)

    async def start_domain(self) -> None:
        await self.hypervisor.define(xml_of(self.vm_id))
        await self.hypervisor.launch(self.vm_id, 0)

    async def tell(self, count: int) -> list[Change]:
        """The changes, once there are ``count``; they come through two threads."""
        await until(lambda: len(self.changes) >= count)
        return self.changes

    async def lose(self) -> None:
        """A call finds that the connection broke."""
        with pytest.raises(HypervisorLost):
            await self.call(lambda _connect: libvirt.open(NOWHERE))

    async def call(self, run: Callable[[libvirt.virConnect], Any]) -> Any:
        return await self.hypervisor._call(self.hypervisor._reads, "try it", 5.0, run)

    async def act(self, run: Callable[[libvirt.virDomain], Any]) -> Any:
        return await self.call(lambda connect: run(connect.lookupByUUIDString(self.vm_id)))


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    await edge.hypervisor.start(edge.heard.append)
    yield edge
    for clean in ("destroy", "undefine"):
        try:
            await edge.act(lambda domain, clean=clean: getattr(domain, clean)())  # type: ignore[misc]
        except (HypervisorError, DomainMissing):
            continue
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
    assert (await edge.hypervisor.statistics())[edge.vm_id]["state.state"] == 1


async def test_networks_are_the_active_ones(edge: Edge) -> None:
    assert await edge.hypervisor.active_networks() == {"default"}


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
    assert edge.reconnected == 0


async def test_an_xml_that_libvirt_cannot_read_is_refused(edge: Edge) -> None:
    with pytest.raises(HypervisorError, match="failed to define the domain"):
        await edge.hypervisor.define("<domain")


async def test_a_call_that_hangs_ends_at_its_deadline_and_others_go_on(edge: Edge) -> None:
    release = threading.Event()
    with pytest.raises(DeadlineExceeded):
        await edge.hypervisor._call(edge.hypervisor._reads, "hang", 0.05, lambda _connect: release.wait())
    assert await edge.hypervisor.domains()
    release.set()


# The connection


async def test_a_connection_that_broke_comes_back_and_is_told_once(edge: Edge) -> None:
    await edge.hypervisor.domains()
    assert edge.reconnected == 0
    await edge.lose()
    assert await edge.hypervisor.domains()
    assert edge.reconnected == 1


async def test_after_a_reconnect_events_are_heard_once(edge: Edge) -> None:
    await edge.lose()
    await edge.hypervisor.domains()
    await until(lambda: not edge.hypervisor._connection._leaving)  # type: ignore[union-attr]
    await edge.start_domain()
    await edge.hypervisor.pause(edge.vm_id)
    await edge.tell(2)
    await edge.hypervisor.resume(edge.vm_id)
    assert await edge.tell(3) == [Change.STARTED, Change.SUSPENDED, Change.RESUMED]


async def test_a_connection_that_was_given_up_is_let_go(edge: Edge) -> None:
    def connections() -> int:
        gc.collect()
        return sum(isinstance(thing, libvirt.virConnect) for thing in gc.get_objects())

    await edge.hypervisor.domains()
    before = connections()
    for _ in range(3):
        await edge.lose()
        await edge.hypervisor.domains()
    await until(lambda: not edge.hypervisor._connection._leaving)  # type: ignore[union-attr]
    await until(lambda: connections() <= before)


async def test_a_call_waits_for_a_libvirt_that_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = libvirt.open, []

    def opened(uri: str) -> libvirt.virConnect:
        tries.append(uri)
        return real(URI if len(tries) > 2 else NOWHERE)

    monkeypatch.setattr(libvirt, "open", opened)
    hypervisor, heard = LibvirtHypervisor("some://uri"), []
    await hypervisor.start(heard.append)
    assert await hypervisor.domains()
    assert tries == ["some://uri"] * 3
    assert heard == []  # the first connection is no reconnect
    await hypervisor.stop()


async def test_a_call_does_not_wait_longer_than_its_deadline() -> None:
    hypervisor = LibvirtHypervisor(NOWHERE)
    await hypervisor.start(lambda _event: None)
    with pytest.raises(DeadlineExceeded, match="waiting for libvirt to try it"):
        await hypervisor._call(hypervisor._reads, "try it", 0.1, lambda connect: connect.listAllDomains())
    async with asyncio.timeout(5):
        await hypervisor.stop()


async def test_a_close_that_libvirt_tells_opens_anew() -> None:
    told: list[str] = []
    connection = Connection(URI, lambda _connect: lambda: told.append("left"), lambda: told.append("reconnected"))
    workers = Workers("test", 1)
    await connection.start()
    first = await connection.call(workers, "look", 5.0, lambda connect: connect)
    threading.Thread(target=connection._on_close, args=(first, 3, connection._loop)).start()
    await until(lambda: "reconnected" in told and "left" in told)
    second = await connection.call(workers, "look", 5.0, lambda connect: connect)
    assert second is not first
    connection._on_close(first, 3, connection._loop)  # of the old one: nothing happens
    await asyncio.sleep(0.05)
    assert told.count("reconnected") == 1
    await connection.stop()
    workers.stop()


async def test_a_call_before_the_start_is_refused() -> None:
    with pytest.raises(HypervisorError, match="not started"):
        await LibvirtHypervisor(URI).domains()


# Words


@pytest.mark.parametrize(
    ("number", "reason", "told"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED, (DomainState.RUNNING, "")),
        (libvirt.VIR_DOMAIN_NOSTATE, 0, (DomainState.RUNNING, "")),
        (libvirt.VIR_DOMAIN_BLOCKED, 0, (DomainState.RUNNING, "")),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, 0, (DomainState.RUNNING, "")),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, (DomainState.PAUSED, "user")),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, (DomainState.PAUSED, "ioerror")),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0, (DomainState.SHUTTING_DOWN, "")),
        (libvirt.VIR_DOMAIN_CRASHED, 0, (DomainState.CRASHED, "")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, (DomainState.OFF, "shutdown")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, (DomainState.OFF, "destroyed")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, (DomainState.OFF, "crashed")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED, (DomainState.OFF, "migrated")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SAVED, (DomainState.OFF, "saved")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED, (DomainState.OFF, "failed")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, (DomainState.OFF, "")),
    ],
)
def test_states_have_words(number: int, reason: int, told: tuple[DomainState, str]) -> None:
    assert domain_state(number, reason) == told


@pytest.mark.parametrize(
    ("event", "detail", "change"),
    [
        ("DEFINED", libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED, None),
        ("UNDEFINED", libvirt.VIR_DOMAIN_EVENT_UNDEFINED_REMOVED, None),
        ("STARTED", libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED, Change.STARTED),
        ("SUSPENDED", libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED, Change.SUSPENDED),
        ("SUSPENDED", libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR, Change.SUSPENDED_IOERROR),
        ("RESUMED", libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED, Change.RESUMED),
        ("SHUTDOWN", libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_GUEST, Change.SHUTDOWN_GUEST),
        ("SHUTDOWN", libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST, Change.SHUTDOWN_HOST),
        ("SHUTDOWN", libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_FINISHED, Change.SHUTDOWN),
        ("STOPPED", libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN, Change.STOPPED),
        ("STOPPED", libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED, Change.STOPPED),
        ("STOPPED", libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED, Change.CRASHED),
        ("STOPPED", libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED, Change.MIGRATED),
        ("STOPPED", libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED, Change.SAVED),
        ("STOPPED", libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED, Change.CRASHED),
        ("PMSUSPENDED", libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED_MEMORY, Change.SUSPENDED),
        ("CRASHED", libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED, Change.CRASHED),
    ],
)
def test_events_have_words(event: str, detail: int, change: Change | None) -> None:
    assert lifecycle_change(getattr(libvirt, f"VIR_DOMAIN_EVENT_{event}"), detail) is change


class Registered:
    """Takes the callbacks as a connection does, and calls them as libvirt does."""

    def __init__(self, refuse: int | None = None) -> None:
        self.callbacks: dict[int, Callable[..., None]] = {}
        self._refuse = refuse

    def domainEventRegisterAny(
        self, _domain: object, event: int, callback: Callable[..., None], _opaque: object
    ) -> int:
        if event == self._refuse:
            raise libvirt.libvirtError("refused")
        self.callbacks[event] = callback
        return event

    def domainEventDeregisterAny(self, number: int) -> None:
        del self.callbacks[number]


class NamedDomain:
    def UUIDString(self) -> str:
        return "vm"


@pytest.mark.parametrize(
    ("event", "arguments", "told"),
    [
        (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, (), DomainEvent("vm", Change.REBOOTED)),
        (libvirt.VIR_DOMAIN_EVENT_ID_RTC_CHANGE, (-7,), ClockShift("vm", -7)),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
            ("/x", "ua-1", libvirt.VIR_DOMAIN_EVENT_IO_ERROR_PAUSE, "enospc"),
            DiskTrouble("vm", "ua-1", "/x", "enospc"),
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
            (None, None, libvirt.VIR_DOMAIN_EVENT_IO_ERROR_PAUSE, None),
            DiskTrouble("vm", "", "", ""),
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
            ("/x", "ua-1", libvirt.VIR_DOMAIN_EVENT_IO_ERROR_REPORT, "eio"),
            None,
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
            (libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED, 0),
            DomainEvent("vm", Change.AGENT_CONNECTED),
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
            (libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_DISCONNECTED, 0),
            DomainEvent("vm", Change.AGENT_DISCONNECTED),
        ),
    ],
)
async def test_events_that_the_test_driver_has_not_are_translated(
    event: int, arguments: tuple[object, ...], told: HypervisorEvent | None
) -> None:
    heard: list[HypervisorEvent] = []
    registered: Any = Registered()
    end = Subscriptions(asyncio.get_running_loop(), heard.append).register(registered)
    registered.callbacks[event](registered, NamedDomain(), *arguments, None)
    await asyncio.sleep(0)
    assert heard == ([] if told is None else [told])
    end()
    assert registered.callbacks == {}


async def test_a_subscription_that_is_refused_leaves_none_behind() -> None:
    registered: Any = Registered(refuse=libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON)
    with pytest.raises(libvirt.libvirtError):
        Subscriptions(asyncio.get_running_loop(), lambda _event: None).register(registered)
    assert registered.callbacks == {}
