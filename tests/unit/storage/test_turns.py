# SPDX-License-Identifier: GPL-2.0-or-later
"""One domain id, two verbs at a time: the second is refused with the name of the first."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from local_world import World

from storage import monitor, turns
from storage.file import source
from storage.file.domain import FileDomain
from storage.file.files import METADATA
from storage.locks import LockTimeout
from storage.ondisk.values import DomainStatus
from vdsm.common.ids import new_uuid


class Gate:
    """A step that waits until it is let go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.go.wait()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT_S", 0.05)


def _stop_before(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> Gate:
    gate, real = Gate(), getattr(owner, name)

    async def held(*args: object, **options: object) -> object:
        await gate()
        return await real(*args, **options)

    monkeypatch.setattr(owner, name, held)
    return gate


async def test_what_is_being_formatted_is_not_attached(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    second, storage = new_uuid(), spm.storage
    await spm.create_domain(second, spm.top / "second")
    gate = _stop_before(monkeypatch, FileDomain, "format")
    formatting = asyncio.ensure_future(storage.catalogue.format(second))
    await gate.reached.wait()
    with pytest.raises(LockTimeout, match=r"StorageDomain\.format had it"):
        await storage.pool_domains.attach(spm.pool_id, second)
    gate.go.set()
    await formatting
    assert not (spm.top / "second" / second).exists()


async def test_what_is_being_attached_is_not_formatted(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    second, storage = new_uuid(), spm.storage
    await spm.create_domain(second, spm.top / "second")
    gate = _stop_before(monkeypatch, storage.pool.spm, "once")
    attaching = asyncio.ensure_future(storage.pool_domains.attach(spm.pool_id, second))
    await gate.reached.wait()
    with pytest.raises(LockTimeout, match=r"StorageDomain\.attach had it"):
        await storage.catalogue.format(second)
    gate.go.set()
    await attaching
    assert (spm.top / "second" / second / METADATA).exists()


async def test_what_is_being_detached_is_not_formatted(spm: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lockspace is left at the end, when it is in no map any more."""
    second, storage = new_uuid(), spm.storage
    await spm.create_domain(second, spm.top / "second")
    await storage.pool_domains.attach(spm.pool_id, second)
    use = _stop_before(monkeypatch, storage.pool, "_use")
    detaching = asyncio.ensure_future(storage.pool_domains.detach(spm.pool_id, second))
    await use.reached.wait()
    with pytest.raises(LockTimeout, match=r"StorageDomain\.detach had it"):
        await storage.catalogue.format(second)
    use.go.set()
    await detaching
    await storage.catalogue.format(second)


async def test_a_domain_of_a_pool_that_is_being_connected_is_not_formatted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, storage = new_uuid(), world.storage
    await world.create_domain(second, world.top / "second")
    gate = _stop_before(monkeypatch, storage.pool, "_use")
    domains = {world.domain_id: DomainStatus.ACTIVE, second: DomainStatus.ATTACHED}
    connecting = asyncio.ensure_future(storage.pool.connect(world.pool_id, 1, world.domain_id, 1, domains))
    await gate.reached.wait()
    with pytest.raises(LockTimeout, match=r"StoragePool\.connect had it"):
        await storage.catalogue.format(second)
    gate.go.set()
    await connecting
    assert (world.top / "second" / second / METADATA).exists()


async def test_a_pool_is_not_made_of_a_domain_that_is_being_formatted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, storage = new_uuid(), world.storage
    await world.create_domain(second, world.top / "second")
    gate = _stop_before(monkeypatch, FileDomain, "format")
    formatting = asyncio.ensure_future(storage.catalogue.format(second))
    await gate.reached.wait()
    with pytest.raises(LockTimeout, match=r"StorageDomain\.format had it"):
        await storage.new_pools.create(new_uuid(), "another", second, 1, [second], {})
    wanted = {world.domain_id: DomainStatus.ACTIVE, second: DomainStatus.ATTACHED}
    with pytest.raises(LockTimeout, match=r"StorageDomain\.format had it"):
        await storage.pool.connect(world.pool_id, 1, world.domain_id, 1, wanted)
    assert storage.pool.connected is not None and second not in storage.pool.connected.domains
    gate.go.set()
    await formatting


async def test_a_domain_is_not_made_anew_while_its_files_are_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, third = new_uuid(), world.top / "third"
    await world.create_domain(second, world.top / "second")
    gate = _stop_before(monkeypatch, FileDomain, "format")
    formatting = asyncio.ensure_future(world.storage.catalogue.format(second))
    await gate.reached.wait()
    with pytest.raises(LockTimeout, match=r"StorageDomain\.format had it"):
        await world.create_domain(second, third)
    gate.go.set()
    await formatting
    await world.create_domain(second, third)


async def test_a_domain_that_is_being_made_is_not_formatted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    second = new_uuid()
    gate = _stop_before(monkeypatch, source, "create_file_domain")
    making = asyncio.ensure_future(world.create_domain(second, world.top / "second"))
    await gate.reached.wait()
    with pytest.raises(LockTimeout, match=r"StorageDomain\.create had it"):
        await world.storage.catalogue.format(second)
    gate.go.set()
    await making


async def test_other_domains_wait_for_nothing(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    second = new_uuid()
    await world.create_domain(second, world.top / "second")
    gate = _stop_before(monkeypatch, FileDomain, "format")
    formatting = asyncio.ensure_future(world.storage.catalogue.format(second))
    await gate.reached.wait()
    await world.create_domain(new_uuid(), tmp_path / "elsewhere")
    await world.connect()
    gate.go.set()
    await formatting


async def test_a_domain_that_hangs_keeps_no_other_from_coming_and_going(
    spm: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, well, domains = new_uuid(), new_uuid(), spm.storage.pool_domains
    for domain_id in (dead, well):
        await spm.create_domain(domain_id, spm.top / domain_id)
    once, reached, go = spm.storage.pool.spm.once, asyncio.Event(), asyncio.Event()

    async def hangs(grant: Any, domain_id: str, *rest: Any, **options: Any) -> Any:
        if domain_id == dead:
            reached.set()
            await go.wait()
        return await once(grant, domain_id, *rest, **options)

    monkeypatch.setattr(spm.storage.pool.spm, "once", hangs)
    attaching = asyncio.ensure_future(domains.attach(spm.pool_id, dead))
    await reached.wait()
    async with asyncio.timeout(20):
        await domains.attach(spm.pool_id, well)
        await domains.activate(spm.pool_id, well)
        await domains.deactivate(spm.pool_id, well)
        await domains.detach(spm.pool_id, well)
        await spm.connect()  # as an engine does whenever the map changes
    go.set()
    await attaching
    assert spm.storage.pool.connected is not None
    assert spm.storage.pool.connected.domains == {
        spm.domain_id: DomainStatus.ACTIVE,
        dead: DomainStatus.ATTACHED,
    }


async def test_a_lockspace_that_is_not_left_in_time_keeps_no_other_domain_waiting(
    spm: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, well, domains = new_uuid(), new_uuid(), spm.storage.pool_domains
    for domain_id in (dead, well):
        await spm.create_domain(domain_id, spm.top / domain_id)
        await domains.attach(spm.pool_id, domain_id)
        await domains.activate(spm.pool_id, domain_id)
    gate, stop = Gate(), monitor.DomainMonitor.stop

    async def leaves_late(watched: monitor.DomainMonitor) -> None:
        if watched.domain_id == dead:
            await gate()
        await stop(watched)

    monkeypatch.setattr(monitor.DomainMonitor, "stop", leaves_late)
    leaving = asyncio.ensure_future(domains.deactivate(spm.pool_id, dead))
    await gate.reached.wait()
    async with asyncio.timeout(20):
        await domains.deactivate(spm.pool_id, well)
        await domains.activate(spm.pool_id, well)
    assert not leaving.done()
    gate.go.set()
    await leaving
