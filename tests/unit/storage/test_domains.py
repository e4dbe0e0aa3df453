# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding domains beside a mount that does not answer: its I/O helpers are stopped, as if they waited in the kernel."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from local_world import World, mounted_domains
from memory_source import MemorySource

from storage import looks
from storage.domain import Domain
from storage.domains import Domains
from storage.errors import DomainNotFound, IoFailed
from storage.file import ioprocess
from storage.file import source as source_module
from storage.file.ionursery import Nursery
from storage.file.iopool import IoPools
from storage.flights import Flights
from storage.source import MountedPlace
from vdsm.common.ids import new_uuid

SEARCH_S = 0.5


class DeadMount:
    """A folder under ``mnt`` whose helpers never answer. It can be killed, unlike one in the kernel."""

    def __init__(self, mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = mounts / "dead"
        self.path.mkdir(parents=True)
        self.asked = 0
        start = ioprocess.Helper.start.__func__  # type: ignore[attr-defined]

        async def stopped(cls: type, nursery: Nursery, name: str, kept: tuple[int, ...]) -> object:
            helper = await start(cls, nursery, name, kept)
            if name.startswith(str(self.path)):
                self.asked += 1
                os.kill(helper.pid, signal.SIGSTOP)
            return helper

        monkeypatch.setattr(ioprocess.Helper, "start", classmethod(stopped))
        monkeypatch.setattr(source_module, "SEARCH_S", SEARCH_S)


@pytest.fixture
def dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeadMount:
    return DeadMount(tmp_path / "rhev" / "mnt", monkeypatch)


def _domains(tmp_path: Path, pools: IoPools) -> Domains:
    return mounted_domains(str(tmp_path / "rhev" / "mnt"), pools)


async def _missed(domains: Domains, domain_id: str) -> tuple[float, DomainNotFound]:
    started = time.monotonic()
    with pytest.raises(DomainNotFound) as caught:
        await domains.get(domain_id)
    return time.monotonic() - started, caught.value


async def test_ten_callers_of_an_absent_domain_wait_no_longer_than_one(
    pools: IoPools, dead: DeadMount, tmp_path: Path
) -> None:
    domains, absent = _domains(tmp_path, pools), new_uuid()
    waits = await asyncio.gather(*(_missed(domains, absent) for _ in range(10)))
    assert max(seconds for seconds, _ in waits) < 8 * SEARCH_S
    assert dead.asked == 1
    await domains.close()


async def test_callers_of_different_absent_domains_share_one_search(
    pools: IoPools, dead: DeadMount, tmp_path: Path
) -> None:
    domains = _domains(tmp_path, pools)
    await asyncio.gather(*(_missed(domains, new_uuid()) for _ in range(5)))
    assert dead.asked == 1
    await domains.close()


async def test_an_absent_domain_names_the_mounts_that_did_not_answer(
    pools: IoPools, dead: DeadMount, tmp_path: Path
) -> None:
    domains = _domains(tmp_path, pools)
    _, error = await _missed(domains, new_uuid())
    assert f"that answers; {dead.path} did not" in str(error)
    await domains.close()


async def test_a_mount_that_was_silent_delays_the_next_miss_by_a_moment(
    pools: IoPools, dead: DeadMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "SILENT_S", 0.1)
    domains = _domains(tmp_path, pools)
    await _missed(domains, new_uuid())
    monkeypatch.setattr(source_module, "SEARCH_S", 30.0)
    seconds, error = await _missed(domains, new_uuid())
    assert seconds < 10
    assert f"that answers; {dead.path} did not" in str(error)
    await domains.close()


async def test_a_domain_that_another_host_made_on_storage_that_is_known_is_found(pools: IoPools, world: World) -> None:
    second, folder = new_uuid(), world.top / "second"
    folder.mkdir()
    here = _domains(world.top, pools)
    await here.get(world.domain_id)
    with pytest.raises(DomainNotFound):
        await here.get(second)
    await world.create_domain(second, folder)  # by another agent: nothing tells this one
    assert (await here.get(second)).domain_id == second
    await here.close()


async def test_what_storage_holds_is_known_as_soon_as_it_is_connected(pools: IoPools, world: World) -> None:
    there = _domains(world.top, pools)
    await there.source.all()
    place = await there.source.find(world.domain_id)
    here = _domains(world.top, pools)
    await here.connected(place)
    assert here.source.known([world.domain_id]) == {world.domain_id: {"mount": place.mount}}
    await here.close()
    await there.close()


async def test_domains_of_storage_that_goes_are_closed_and_forgotten(pools: IoPools, world: World) -> None:
    domains = _domains(world.top, pools)
    domain = await domains.get(world.domain_id)
    place = await domains.source.find(world.domain_id)
    await domains.leave(place)
    with pytest.raises(IoFailed):
        await domain.read_metadata()
    assert domains.source.known([world.domain_id]) == {}
    await domains.close()


async def test_a_domain_that_moved_is_found_where_it_is_now(world: World) -> None:
    domain = await world.storage.domains.get(world.domain_id)
    source = MemorySource()
    one, two = MountedPlace("/one"), MountedPlace("/two")
    source.places = {one: {}, two: {world.domain_id: domain}}
    source.learn({world.domain_id: {"mount": "/one"}})  # as another process saw it
    domains = Domains(source)
    assert await domains.get(world.domain_id) is domain
    assert await source.find(world.domain_id) == two


async def test_a_dead_mount_does_not_delay_what_is_elsewhere(
    pools: IoPools, dead: DeadMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "SEARCH_S", 4.0)
    world = World(tmp_path)
    world.folder.mkdir()
    await world.start()
    await world.create_pool()
    domains = _domains(tmp_path, pools)
    async with asyncio.timeout(3.5):
        assert (await domains.get(world.domain_id)).domain_id == world.domain_id
    place = MountedPlace(str(next(tmp_path.glob("rhev/mnt/_*"))))
    assert await domains.source.all() == {world.domain_id: place}
    await domains.close()
    await world.stop()


async def test_a_domain_is_opened_once_for_all_who_ask(pools: IoPools, world: World) -> None:
    domains = _domains(world.top, pools)
    opened = await asyncio.gather(*(domains.get(world.domain_id) for _ in range(5)))
    assert all(domain is opened[0] for domain in opened)
    await domains.close()


async def test_a_look_leaves_open_what_was_open_and_closes_its_own(pools: IoPools, world: World) -> None:
    domains = _domains(world.top, pools)
    async with domains.look(world.domain_id) as first:
        assert (await first.read_metadata()).domain_id == world.domain_id
    with pytest.raises(IoFailed):
        await first.read_metadata()
    kept = await domains.get(world.domain_id)
    async with domains.look(world.domain_id) as second:
        assert second is kept
    assert (await kept.read_metadata()).domain_id == world.domain_id
    await domains.close()


async def test_a_domain_that_is_forgotten_while_it_opens_is_not_kept(
    pools: IoPools, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains, opened = _domains(world.top, pools), asyncio.Event()
    go = asyncio.Event()
    inner = domains._open

    async def slow(domain_id: str) -> Domain:
        domain = await inner(domain_id)
        opened.set()
        await go.wait()
        return domain

    monkeypatch.setattr(domains, "_open", slow)
    getting = asyncio.ensure_future(domains.get(world.domain_id))
    await opened.wait()
    await domains.forget(world.domain_id)
    go.set()
    with pytest.raises(DomainNotFound):
        await getting
    monkeypatch.setattr(domains, "_open", inner)
    assert (await domains.get(world.domain_id)).domain_id == world.domain_id
    await domains.close()


async def test_a_domain_that_cannot_be_read_is_left_out_of_the_list(world: World) -> None:
    second = new_uuid()
    await world.create_domain(second, world.top / "second")
    catalogue = world.storage.catalogue
    assert {r.domain.domain_id for r in await catalogue.reports()} == {world.domain_id, second}
    (world.top / "second" / second / "dom_md" / "metadata").write_text("SDUUID=nonsense\n")
    await world.storage.domains.forget(second)
    assert [r.domain.domain_id for r in await catalogue.reports()] == [world.domain_id]


# Single flight


async def test_a_caller_that_goes_away_cancels_nothing() -> None:
    flights: Flights[int] = Flights()
    go, begun = asyncio.Event(), 0

    async def work() -> int:
        nonlocal begun
        begun += 1
        await go.wait()
        return 7

    first, second = (asyncio.ensure_future(flights.join("k", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await second == 7
    assert (begun, first.cancelled()) == (1, True)


async def test_a_failed_flight_fails_for_all_and_the_next_begins_anew() -> None:
    flights: Flights[int] = Flights()
    begun = 0

    async def fails() -> int:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0)
        raise ValueError("x")

    results = await asyncio.gather(*(flights.join("k", fails) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError] * 3
    with pytest.raises(ValueError, match="x"):
        await flights.join("k", fails)
    assert begun == 2
