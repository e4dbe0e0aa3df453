# SPDX-License-Identifier: GPL-2.0-or-later
"""`DomainSource`: domains found in places, opened there, forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from memory_domain import MemoryStorage
from memory_source import MemorySource

from storage.edges import lease_edges
from storage.errors import DomainNotFound, NotConnected
from storage.file.iopool import IoPools
from storage.file.source import MountedFolders
from storage.new_domain import NewDomain
from storage.ondisk.remote_path import mount_name
from storage.ondisk.values import DomainKind
from storage.source import DomainSource, MountedPlace
from vdsm.common.ids import new_uuid

ONE, TWO = "0a000000-0000-4000-8000-000000000011", "0a000000-0000-4000-8000-000000000012"


def _connect(top: Path, spec: str) -> str:
    """A local folder's link; what it is connected as."""
    folder, link = top / "folders" / mount_name(spec), top / "mnt" / mount_name(spec)
    for path in (folder, link.parent):
        path.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder)
    return spec


@pytest.fixture
def free(source: DomainSource, tmp_path: Path) -> str:
    """What connected storage without a domain is connected as."""
    if isinstance(source, MemorySource):
        source.places[MountedPlace("/free")] = {}
        return "/free"
    return _connect(tmp_path, "/free")


@pytest.fixture(params=["mounted folders", "memory"])
async def source(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DomainSource]:
    """With two domains in it."""
    if request.param == "memory":
        yield MemorySource(*(MemoryStorage(domain_id).open() for domain_id in (ONE, TWO)))
        return
    pools = IoPools()
    made = MountedFolders(str(tmp_path / "mnt"), lease_edges(), pools, io_timeout_s=1)
    for number, domain_id in enumerate((ONE, TWO)):
        _connect(tmp_path, f"/{number}")
        await made.create(NewDomain(domain_id, DomainKind.LOCALFS, f"/{number}", "d"))
        made.forget(domain_id)
    yield made
    await made.close()
    await pools.close()


async def test_a_domain_is_found_and_opened_where_it_is(source: DomainSource) -> None:
    for domain_id in (ONE, TWO):
        domain = await source.open(await source.find(domain_id), domain_id)
        assert (await domain.read_metadata()).domain_id == domain_id
        await domain.close()


async def test_what_is_nowhere_is_not_found(source: DomainSource) -> None:
    with pytest.raises(DomainNotFound):
        await source.find(new_uuid())
    with pytest.raises(DomainNotFound):
        await source.open(await source.find(ONE), new_uuid())


async def test_all_are_listed_with_their_places(source: DomainSource) -> None:
    assert await source.all() == {domain_id: await source.find(domain_id) for domain_id in (ONE, TWO)}


async def test_what_was_seen_is_known_until_it_is_forgotten(source: DomainSource) -> None:
    assert source.known([ONE, TWO]) == {}
    place = await source.find(ONE)
    known = source.known([ONE, TWO, new_uuid()])
    assert ONE in known and ONE in source.seen_at(place)
    source.forget(ONE)
    source.forget(ONE)
    assert ONE not in source.known([ONE]) and ONE not in source.seen_at(place)
    source.learn(known)  # as another process says it
    assert source.known([ONE]) == {ONE: known[ONE]}
    assert await source.find(ONE) == place


async def test_a_place_that_is_looked_at_is_known_and_one_that_goes_is_not(source: DomainSource) -> None:
    place = await source.find(ONE)
    source.forget(ONE)
    await source.look_at(place)
    assert ONE in source.seen_at(place)
    await source.leave(place)
    assert (source.seen_at(place), source.known([ONE])) == ([], {})


async def test_a_domain_is_made_on_what_is_connected_alone(source: DomainSource, free: str) -> None:
    new = NewDomain(new_uuid(), DomainKind.LOCALFS, free, "new")
    with pytest.raises(NotConnected, match="/nothing"):
        await source.create(NewDomain(new_uuid(), DomainKind.LOCALFS, "/nothing", "d"))
    await source.create(new)
    assert new.domain_id in await source.all()
    domain = await source.open(await source.find(new.domain_id), new.domain_id)
    assert (await domain.read_metadata()).domain_id == new.domain_id
    await domain.close()


async def test_a_domain_that_was_formatted_is_found_no_more(source: DomainSource) -> None:
    place = await source.find(ONE)
    domain = await source.open(place, ONE)
    await domain.format()
    await domain.close()
    with pytest.raises(DomainNotFound):
        await source.open(place, ONE)
    source.forget(ONE)
    with pytest.raises(DomainNotFound):
        await source.find(ONE)
    assert not await source.finish_format(ONE)  # nothing is left of it
    await source.find(TWO)
