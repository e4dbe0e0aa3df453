# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains of pools that are lost, and pools whose domains are lost."""

import asyncio
import shutil

import pytest
from local_world import World

from storage.ondisk.values import DomainStatus
from storage.spm.errors import DomainInConnectedPool, DomainIsMaster, DomainNotInPool, NotSpm
from tests.decoder import domain as decoder
from vdsm.common.ids import new_uuid


async def test_a_master_of_a_pool_that_is_lost_is_freed_and_imported(spm: World) -> None:
    """On a host of another pool; then it is attached there with all that it holds."""
    found = World(spm.top / "found")
    found.folder.mkdir(parents=True)
    await spm.create_domain(found.domain_id, found.folder)
    other = new_uuid()
    domain = await spm.storage.domains.get(found.domain_id)
    master = {"ROLE": "Master", "POOL_DESCRIPTION": "lost", "POOL_DOMAINS": "", "MASTER_VERSION": "3"}
    numbers = {"POOL_SPM_ID": "-1", "POOL_SPM_LVER": "-1"}
    await domain.change_metadata(lambda _: {"POOL_UUID": other, **master, **numbers})
    await spm.storage.forced_detach.free(found.domain_id)
    fields = (await domain.read_metadata()).fields
    assert (fields["POOL_UUID"], fields["ROLE"]) == ("", "Regular")
    assert not {"POOL_DESCRIPTION", "POOL_DOMAINS", "POOL_SPM_ID", "POOL_SPM_LVER"} & set(fields)
    await spm.storage.pool_domains.attach(spm.pool_id, found.domain_id)
    assert (await domain.read_metadata()).pools == [spm.pool_id]


async def test_a_host_in_no_pool_frees_too(world: World) -> None:
    await world.storage.pool.disconnect(world.pool_id)
    await world.storage.forced_detach.free(world.domain_id)
    assert decoder_fields(world)["POOL_UUID"] == ""


async def test_nothing_of_the_connected_pool_is_freed(world: World) -> None:
    with pytest.raises(DomainInConnectedPool):
        await world.storage.forced_detach.free(world.domain_id)
    assert decoder.decode(world.domain).fields["POOL_UUID"] == world.pool_id


async def test_a_domain_that_is_gone_leaves_its_pool(spm: World) -> None:
    domain_id, folder = new_uuid(), spm.top / "gone"
    await spm.create_domain(domain_id, folder)
    await spm.storage.pool_domains.attach(spm.pool_id, domain_id)
    shutil.rmtree(folder / domain_id)
    await spm.storage.forced_detach.drop(spm.pool_id, domain_id)
    assert spm.storage.pool.require(spm.pool_id).domains == {spm.domain_id: DomainStatus.ACTIVE}


async def test_a_domain_that_comes_while_another_is_dropped_stays(spm: World) -> None:
    gone, comes = new_uuid(), new_uuid()
    await spm.create_domain(gone, spm.top / "gone")
    await spm.create_domain(comes, spm.top / "comes")
    await spm.storage.pool_domains.attach(spm.pool_id, gone)
    await asyncio.gather(
        spm.storage.pool_domains.attach(spm.pool_id, comes), spm.storage.forced_detach.drop(spm.pool_id, gone)
    )
    assert set(spm.storage.pool.require(spm.pool_id).domains) == {spm.domain_id, comes}


async def test_a_pool_loses_no_master_and_nothing_that_it_has_not(spm: World) -> None:
    with pytest.raises(DomainIsMaster):
        await spm.storage.forced_detach.drop(spm.pool_id, spm.domain_id)
    with pytest.raises(DomainNotInPool):
        await spm.storage.forced_detach.drop(spm.pool_id, new_uuid())
    await spm.storage.pool.stop_spm(spm.pool_id)
    with pytest.raises(NotSpm):
        await spm.storage.forced_detach.drop(spm.pool_id, new_uuid())


def decoder_fields(world: World) -> dict[str, str]:
    text = (world.domain / "dom_md/metadata").read_text()
    return dict(line.split("=", 1) for line in text.splitlines())


async def test_what_no_pool_has_is_left_as_it_is(world: World) -> None:
    domain_id, folder = new_uuid(), world.top / "free"
    await world.create_domain(domain_id, folder)
    metadata = folder / domain_id / "dom_md/metadata"
    before = metadata.stat().st_ino
    await world.storage.forced_detach.free(domain_id)
    assert metadata.stat().st_ino == before
