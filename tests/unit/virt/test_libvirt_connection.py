# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections to libvirt that break, hang and come back: libvirt's own test driver, whose wire is cut here."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import libvirt
import pytest

from vdsm.virt.errors import HypervisorLost, NotBegun
from vdsm.virt.hypervisor import Change, DomainEvent, HypervisorEvent, Reconnected
from vdsm.virt.libvirt_edge import connection as connection_module
from vdsm.virt.libvirt_edge.libvirt_hypervisor import LibvirtHypervisor

from .fakes import new_id, until
from .test_libvirt_edge import URI, xml_of

# a real connection that can't be: its error is what a broken connection raises
NOWHERE = "test+unix:///default?socket=/nonexistent"
REAL_OPEN = libvirt.open


class Wire:
    """What a daemon's driver has and the test driver has not: connections that close, and tell it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there = True
        self.tries = 0
        # opens wait for it
        self.answers = threading.Event()
        self.answers.set()
        self._connects: list[weakref.ref[Any]] = []
        alive = libvirt.virConnect.isAlive
        monkeypatch.setattr(libvirt, "open", self._open)
        monkeypatch.setattr(libvirt.virConnect, "isAlive", lambda c: 0 if hasattr(c, "broken") else alive(c))
        monkeypatch.setattr(libvirt.virConnect, "registerCloseCallback", self._register)
        monkeypatch.setattr(libvirt.virConnect, "unregisterCloseCallback", lambda c: delattr(c, "on_close"))

    @property
    def connects(self) -> list[Any]:
        gc.collect()
        return [connect for one in self._connects if (connect := one()) is not None]

    def cut(self, *, told: bool = True) -> None:
        """Every connection breaks at once, as when the daemon is killed."""
        for connect in self.connects:
            connect.broken = True
            if told and hasattr(connect, "on_close"):
                thread = threading.Thread(target=connect.on_close, args=(connect, 1, None))
                thread.start()
                thread.join()

    def _open(self, _uri: str) -> libvirt.virConnect:
        self.tries += 1
        self.answers.wait(30)
        connect = REAL_OPEN(URI if self.there else NOWHERE)
        self._connects.append(weakref.ref(connect))
        return connect

    @staticmethod
    def _register(connect: Any, callback: Any, _opaque: object) -> None:
        connect.on_close = callback


class Edge:
    def __init__(self) -> None:
        self.hypervisor = LibvirtHypervisor("some://uri")
        self.vm_id = new_id()
        self.heard: list[HypervisorEvent] = []

    @property
    def changes(self) -> list[Change]:
        return [e.change for e in self.heard if isinstance(e, DomainEvent) and e.vm_id == self.vm_id]

    @property
    def reconnected(self) -> int:
        return sum(isinstance(e, Reconnected) for e in self.heard)

    @property
    def connection(self) -> Any:
        return self.hypervisor._connection

    async def start(self) -> None:
        await self.hypervisor.start(self.heard.append)
        await self.hypervisor.domains()

    async def start_domain(self) -> None:
        await self.hypervisor.define(xml_of(self.vm_id))
        await self.hypervisor.launch(self.vm_id, 0)

    async def comes_back(self, times: int = 1) -> None:
        await until(lambda: self.reconnected == times)
        await until(lambda: not self.connection._leaving)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setattr(connection_module, "_RETRY_FIRST_S", 0.01)
    wire = Wire(monkeypatch)
    yield wire
    wire.answers.set()


@pytest.fixture
async def edge(wire: Wire) -> AsyncIterator[Edge]:
    edge = Edge()
    yield edge
    wire.there = True
    wire.answers.set()
    async with asyncio.timeout(10):
        await edge.hypervisor.stop()
    clean = REAL_OPEN(URI)
    for domain in clean.listAllDomains(0):
        if domain.UUIDString() == edge.vm_id:
            if domain.isActive():
                domain.destroy()
            domain.undefine()


async def test_a_connection_that_broke_comes_back_and_is_told_once(edge: Edge, wire: Wire) -> None:
    await edge.start()
    assert edge.reconnected == 0  # the first one is no reconnect
    wire.cut()
    assert await edge.hypervisor.domains()
    await edge.comes_back()
    wire.cut()
    assert await edge.hypervisor.domains()
    await edge.comes_back(2)


async def test_a_close_that_libvirt_does_not_tell_is_found_by_a_call(edge: Edge, wire: Wire) -> None:
    await edge.start()
    wire.cut(told=False)
    wire.there = False
    call = asyncio.create_task(edge.hypervisor.domains())
    await until(lambda: not edge.connection._ready.is_set())
    wire.there = True
    assert await call
    await edge.comes_back()


async def test_an_old_connections_close_says_nothing_of_the_new_one(edge: Edge, wire: Wire) -> None:
    await edge.start()
    old = next(connect for connect in wire.connects if hasattr(connect, "on_close"))
    on_close = old.on_close
    wire.cut()
    await edge.comes_back()
    on_close(old, 1, None)
    await asyncio.sleep(0.02)
    assert await edge.hypervisor.domains()
    assert edge.reconnected == 1


async def test_a_connection_that_closes_while_it_is_made_is_not_kept(
    edge: Edge, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closes(connect: Any, callback: Any, _opaque: object) -> None:
        connect.on_close = callback
        made.append(connect)
        if len(made) == 1:
            callback(connect, 1, None)

    made: list[Any] = []
    monkeypatch.setattr(libvirt.virConnect, "registerCloseCallback", closes)
    await edge.start()
    assert edge.connection._current._connect is made[1]
    assert edge.reconnected == 0  # it was none yet


async def test_after_a_reconnect_events_are_heard_once(edge: Edge, wire: Wire) -> None:
    await edge.start()
    wire.cut()
    await edge.comes_back()
    await edge.start_domain()
    await edge.hypervisor.pause(edge.vm_id)
    await until(lambda: len(edge.changes) >= 2)
    await edge.hypervisor.resume(edge.vm_id)
    await until(lambda: len(edge.changes) >= 3)
    assert edge.changes == [Change.STARTED, Change.SUSPENDED, Change.RESUMED]


async def test_an_old_connection_whose_end_hangs_is_not_heard_and_holds_up_nothing(
    edge: Edge, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, ended = threading.Event(), []

    def hangs(_connect: object, number: int) -> None:
        release.wait(30)
        ended.append(number)

    monkeypatch.setattr(connection_module, "_LEAVE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(libvirt.virConnect, "domainEventDeregisterAny", hangs)
    await edge.start()
    for times in range(1, 13):  # more than threads that leave
        wire.cut()
        await until(lambda times=times: edge.reconnected == times)  # type: ignore[misc]
        assert await edge.hypervisor.domains()
    await edge.start_domain()
    await edge.hypervisor.pause(edge.vm_id)
    await until(lambda: len(edge.changes) >= 2)
    assert edge.changes == [Change.STARTED, Change.SUSPENDED]
    release.set()
    await until(lambda: not edge.connection._leaving, timeout_s=10)
    await until(lambda: len(ended) == 12 * 9)


async def test_a_connection_that_was_given_up_is_let_go(edge: Edge, wire: Wire) -> None:
    await edge.start()
    for times in range(1, 4):
        wire.cut()
        await edge.hypervisor.domains()
        await edge.comes_back(times)
    await until(lambda: all(not hasattr(connect, "broken") for connect in wire.connects))
    assert len(wire.connects) == 2  # for events, and of the one thread that called


async def test_a_call_waits_for_a_libvirt_that_is_not_there_yet(edge: Edge, wire: Wire) -> None:
    wire.there = False
    await edge.hypervisor.start(edge.heard.append)
    call = asyncio.create_task(edge.hypervisor.domains())
    await until(lambda: wire.tries > 2)
    wire.there = True
    assert await call
    assert edge.heard == []


async def test_a_call_does_not_wait_longer_than_its_deadline(edge: Edge, wire: Wire) -> None:
    wire.there = False
    await edge.hypervisor.start(edge.heard.append)
    with pytest.raises(NotBegun, match=r"libvirt: try it did not begin within 0\.1 s: nothing was done"):
        await edge.hypervisor._call(edge.hypervisor._reads, "try it", 0.1, lambda connect: connect.listAllDomains())


async def test_opens_that_hang_end_with_the_outage(edge: Edge, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_OPEN_TIMEOUT_S", 0.02)
    monkeypatch.setattr(connection_module, "_RETRY_LAST_S", 0.02)
    await edge.start()
    wire.answers.clear()
    wire.cut()
    await until(lambda: wire.tries >= 2 + 8)  # all that may hang
    call = asyncio.create_task(edge.hypervisor.domains())
    await asyncio.sleep(0.1)
    wire.answers.set()
    async with asyncio.timeout(1):
        assert await call
    await edge.comes_back()
    await edge.start_domain()
    await until(lambda: edge.changes)
    assert edge.changes == [Change.STARTED]  # the late ones are no second ears
    assert edge.reconnected == 1


async def test_an_open_that_is_late_is_a_connection_all_the_same(
    edge: Edge, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_OPEN_TIMEOUT_S", 0.02)
    monkeypatch.setattr(connection_module, "_RETRY_FIRST_S", 30.0)
    wire.answers.clear()
    await edge.hypervisor.start(edge.heard.append)
    call = asyncio.create_task(edge.hypervisor.domains())
    await asyncio.sleep(0.1)
    wire.answers.set()
    async with asyncio.timeout(1):
        assert await call


async def test_an_error_that_nobody_expected_ends_no_reconnecting(
    edge: Edge, wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = libvirt.virConnect.domainEventRegisterAny
    odd = []

    def register(connect: Any, *arguments: Any) -> Any:
        if len(odd) < 2:
            odd.append(connect)
            raise ZeroDivisionError
        return real(connect, *arguments)

    monkeypatch.setattr(libvirt.virConnect, "domainEventRegisterAny", register)
    with caplog.at_level(logging.WARNING, "vdsm.virt.libvirt"):
        await edge.start()
    assert "ZeroDivisionError" in caplog.text


async def test_a_change_whose_connection_broke_is_lost_and_not_done_twice(
    edge: Edge, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def suspend(_domain: object) -> None:
        done.append(1)
        REAL_OPEN(NOWHERE)

    await edge.start()
    await edge.start_domain()
    monkeypatch.setattr(libvirt.virDomain, "suspend", suspend)
    with pytest.raises(HypervisorLost, match="broke while it was asked to pause the domain: whether") as lost:
        await edge.hypervisor.pause(edge.vm_id)
    assert "vdsm doctor" in lost.value.remedy
    assert done == [1]
    assert edge.reconnected == 0  # of its thread alone


async def test_a_look_whose_connection_broke_is_made_again(
    edge: Edge, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = libvirt.virDomain.XMLDesc, []

    def breaks(domain: Any, flags: int) -> Any:
        tries.append(domain.connect())
        return real(domain, flags) if len(tries) > 1 else REAL_OPEN(NOWHERE)

    await edge.start()
    await edge.start_domain()
    monkeypatch.setattr(libvirt.virDomain, "XMLDesc", breaks)
    assert (await edge.hypervisor.domain(edge.vm_id)).active
    assert tries[0] is not tries[1]


async def test_a_change_whose_thread_gets_no_connection_is_done_once_there_is_one(edge: Edge, wire: Wire) -> None:
    await edge.start()
    await edge.start_domain()
    wire.there = False
    call = asyncio.create_task(edge.hypervisor.kill(edge.vm_id))  # its pool has no thread yet
    before = wire.tries
    await until(lambda: wire.tries > before + 1)
    wire.there = True
    await call
    assert not (await edge.hypervisor.domain(edge.vm_id)).active


async def test_who_waits_for_libvirt_hears_at_once_when_the_agent_ends(edge: Edge, wire: Wire) -> None:
    wire.there = False
    await edge.hypervisor.start(edge.heard.append)
    call = asyncio.create_task(edge.hypervisor.domains())
    await asyncio.sleep(0.02)
    async with asyncio.timeout(1):
        await edge.hypervisor.stop()
        with pytest.raises(HypervisorLost):
            await call
