# SPDX-License-Identifier: GPL-2.0-or-later
"""What VMs and verbs that only read ask of a host's storage."""

from __future__ import annotations

import asyncio
import os

import pytest
from inside import Spm, ids
from local_world import World

from storage.errors import ChecksumMismatch, DomainNotFound, VolumesInUse
from vdsm.common.ids import new_uuid

IMAGE, VOLUME, OTHER = (f"0a000000-0000-4000-8000-00000000000{n}" for n in range(3))


async def test_an_image_whose_record_was_lost_counts_as_used_by_its_vm_as_a_whole(world: World) -> None:
    used = (world.pool_id, world.domain_id, IMAGE, VOLUME)
    assert await world.storage.resume_prepared([used], consumer="vm:1") == [used]
    for volume in (VOLUME, OTHER):
        with (
            pytest.raises(VolumesInUse, match="vm:1"),
            world.storage.in_use.removing(world.domain_id, IMAGE, [volume]),
        ):
            pass


async def test_an_image_that_is_on_record_for_its_vm_is_not_told_as_lost(world: World) -> None:
    on_record = (world.pool_id, world.domain_id, IMAGE, VOLUME)
    lost = (world.pool_id, world.domain_id, OTHER, VOLUME)
    world.storage.in_use.add(world.domain_id, IMAGE, "vm:1", [VOLUME])
    world.storage.in_use.add(world.domain_id, OTHER, "vm:2", [VOLUME])
    assert await world.storage.resume_prepared([on_record, lost], consumer="vm:1") == [lost]
    assert world.storage.in_use.users(world.domain_id, IMAGE) == {"vm:1": {VOLUME}}
    assert world.storage.in_use.users(world.domain_id, OTHER) == {"vm:1": frozenset(), "vm:2": {VOLUME}}


async def test_a_domain_is_told_as_valid_by_the_first_look_at_it(world: World) -> None:
    told, came = [], asyncio.Event()

    def tell(domain_id: str) -> None:
        told.append(domain_id)
        came.set()

    await world.storage.pool.disconnect(world.pool_id)
    world.storage.when_valid(tell)
    await world.connect()
    async with asyncio.timeout(5):
        await came.wait()
    assert told == [world.domain_id]


async def test_a_template_is_one_volume_of_its_domain_however_many_images_have_it(inside: Spm) -> None:
    image, template, clone, leaf = ids(4)
    await inside.create(image, template, format="RAW")
    await inside.create(clone, leaf, template, image)
    volumes, domain_id = inside.world.storage.volumes, inside.domain_id
    assert await volumes.of_domain(domain_id) == sorted([template, leaf])
    assert await volumes.domains_with_image(clone, [domain_id]) == [domain_id]
    assert await volumes.domains_with_image(new_uuid(), [domain_id]) == []
    with pytest.raises(DomainNotFound):
        await volumes.domains_with_image(clone, [new_uuid()])


async def test_a_volume_has_the_sizes_of_its_file(inside: Spm) -> None:
    image, volume = ids(2)
    await inside.create(image, volume, format="RAW")
    found = await inside.world.storage.volumes.sizes(inside.domain_id, image, volume)
    stat = os.stat(inside.path / "images" / image / volume)
    assert (found.apparent, found.true) == (1 << 20, stat.st_blocks * 512)


async def test_a_domain_has_the_space_of_its_file_system(world: World) -> None:
    found, there = await world.storage.catalogue.space(world.domain_id), os.statvfs(world.domain)
    assert found.total == there.f_blocks * there.f_frsize
    assert 0 < found.free <= found.total


async def test_a_domain_whose_metadata_was_changed_is_not_validated(world: World) -> None:
    await world.storage.catalogue.validate(world.domain_id)
    metadata = world.domain / "dom_md" / "metadata"
    metadata.write_text(metadata.read_text().replace("DESCRIPTION=name", "DESCRIPTION=nome"))
    with pytest.raises(ChecksumMismatch):
        await world.storage.catalogue.validate(world.domain_id)
