# SPDX-License-Identifier: GPL-2.0-or-later
"""`VolumeStore`: what is listed and read, and what is written of a volume."""

from __future__ import annotations

from dataclasses import replace

import pytest
from grounds import Ground
from wanted import MIB, base_and_top, clone, cow, made, raw

from storage.domain import Domain, VolumeStore
from storage.errors import DAMAGED, GenerationMismatch, ImageNotFound, InvalidChain, VolumeNotFound
from storage.ondisk.values import Allocation, Legality, VolumeFormat, VolumeRole
from vdsm.common.ids import BLANK_UUID, new_uuid


async def test_a_volume_is_listed_and_read_as_it_was_made(volumes: VolumeStore, domain: Domain, image: str) -> None:
    volume = new_uuid()
    told = await volumes.create(raw(image, volume, 5000, description="mine", disk_type="OVFS", sequence=7))
    assert await volumes.images() == [image]
    assert await volumes.by_image() == {image: (volume,)}
    assert await volumes.of_image(image) == (volume,)
    found = await volumes.read(image, volume)
    assert found == told
    assert (found.domain_id, found.image_id, found.parent_id) == (domain.domain_id, image, BLANK_UUID)
    assert (found.capacity, found.format, found.allocation) == (8192, VolumeFormat.RAW, Allocation.SPARSE)
    assert (found.role, found.legality, found.disk_type) == (VolumeRole.LEAF, Legality.LEGAL, "OVFS")
    assert (found.description, found.sequence, found.generation) == ("mine", 7, 0)


async def test_what_was_made_is_there_for_another_process(volumes: VolumeStore, ground: Ground, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    assert await (await ground.open()).volumes.by_image() == {image: tuple(sorted((base, top)))}


async def test_a_volume_that_may_not_be_used_yet_is_illegal(volumes: VolumeStore, image: str) -> None:
    volume = new_uuid()
    assert (await volumes.create(raw(image, volume, legal=False))).legality is Legality.ILLEGAL


async def test_what_is_not_there_is_not_found(volumes: VolumeStore, image: str) -> None:
    assert (await volumes.images(), await volumes.by_image()) == ([], {})
    with pytest.raises(ImageNotFound):
        await volumes.of_image(image)
    await made(volumes, raw(image, new_uuid()))
    for call in (volumes.read, volumes.chain, volumes.sizes):
        with pytest.raises(VolumeNotFound):
            await call(image, new_uuid())


async def test_a_payload_alone_is_no_volume(volumes: VolumeStore, ground: Ground, image: str) -> None:
    volume = new_uuid()
    ground.leave_payload(image, volume)
    assert await volumes.of_image(image) == ()
    with pytest.raises(VolumeNotFound):
        await volumes.read(image, volume)


async def test_damaged_metadata_is_told_of_and_still_listed(volumes: VolumeStore, ground: Ground, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    ground.damage(image, base)
    assert base in await volumes.of_image(image)
    with pytest.raises(DAMAGED):
        await volumes.read(image, base)
    with pytest.raises(DAMAGED):
        await volumes.chain(image, top)


async def test_a_chain_goes_from_the_base_up(volumes: VolumeStore, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    assert [volume for volume, _ in await volumes.chain(image, top)] == [base, top]
    assert [volume for volume, _ in await volumes.chain(image, base)] == [base]
    assert (await volumes.chain(image, top))[0][1] == await volumes.read(image, base)


async def test_a_chain_that_leads_nowhere_or_in_a_circle_is_told(volumes: VolumeStore, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    await volumes.set_parent(image, base, top)
    with pytest.raises(InvalidChain, match="own ancestor"):
        await volumes.chain(image, top)
    await volumes.set_parent(image, base, new_uuid())
    with pytest.raises(InvalidChain, match="missing"):
        await volumes.chain(image, top)


async def test_a_parent_is_changed_and_nothing_else(volumes: VolumeStore, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    before = await volumes.read(image, top)
    await volumes.set_parent(image, top, BLANK_UUID)
    assert await volumes.read(image, top) == replace(before, parent_id=BLANK_UUID)
    assert await volumes.children(image, base) == []


async def test_children_are_those_of_the_image_and_of_those_that_share_it(volumes: VolumeStore, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    other = new_uuid()
    await made(volumes, cow(image, other, base))
    assert await volumes.children(image, base) == sorted([top, other])
    assert await volumes.children(image, top) == []
    template, shared, derived, leaf = (new_uuid() for _ in range(4))
    await made(volumes, raw(template, shared), clone(derived, leaf, template, shared))
    assert await volumes.children(template, shared) == await volumes.children(derived, shared) == [leaf]


async def test_sizes_are_those_of_the_payload(volumes: VolumeStore, ground: Ground, image: str) -> None:
    volume = new_uuid()
    await made(volumes, raw(image, volume, 4 * MIB))
    sizes = await volumes.sizes(image, volume)
    assert sizes.apparent == 4 * MIB and sizes.true < 4 * MIB
    ground.lose_payload(image, volume)
    with pytest.raises(VolumeNotFound):
        await volumes.sizes(image, volume)


async def test_a_lease_is_the_volumes_own_or_none(volumes: VolumeStore, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    leases = [await volumes.lease(image, base), await volumes.lease(image, top)]
    assert leases == [None, None] or leases[0] != leases[1]


# Writing


async def test_metadata_is_replaced(volumes: VolumeStore, ground: Ground, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    changed = replace(await volumes.read(image, top), description="other", legality=Legality.ILLEGAL)
    await volumes.write(image, top, changed)
    assert await (await ground.open()).volumes.read(image, top) == changed
    assert (await volumes.read(image, base)).description == ""


async def test_metadata_of_a_shared_volume_is_the_same_in_every_image(volumes: VolumeStore, image: str) -> None:
    base, derived = new_uuid(), new_uuid()
    await made(volumes, raw(image, base), clone(derived, new_uuid(), image, base))
    await volumes.write(image, base, replace(await volumes.read(image, base), description="changed"))
    assert (await volumes.read(derived, base)).description == "changed"
    assert (await volumes.read(image, base)).image_id == image


@pytest.mark.parametrize(("expected", "written"), [(3, True), (2, False), (4, False), (0, False), (None, True)])
async def test_what_another_change_wrote_meanwhile_is_not_written_over(
    volumes: VolumeStore, image: str, expected: int | None, written: bool
) -> None:
    volume = new_uuid()
    await made(volumes, raw(image, volume))
    found = replace(await volumes.read(image, volume), generation=3)
    await volumes.write(image, volume, found)
    changed = replace(found, description="other")
    if written:
        await volumes.write(image, volume, changed, expect_generation=expected)
    else:
        with pytest.raises(GenerationMismatch, match=f"generation 3, not {expected}"):
            await volumes.write(image, volume, changed, expect_generation=expected)
    assert await volumes.read(image, volume) == (changed if written else found)


@pytest.mark.parametrize("allocation", [Allocation.SPARSE, Allocation.PREALLOCATED])
async def test_a_payload_grows_and_keeps_what_it_holds(
    volumes: VolumeStore, domain: Domain, image: str, allocation: Allocation
) -> None:
    volume = new_uuid()
    await made(volumes, replace(raw(image, volume), allocation=allocation))
    before = (await domain.chains.attach(image, [volume], "job:1")).payloads[volume].head
    metadata = await volumes.read(image, volume)
    size = await volumes.extend(image, volume, 4 * MIB)
    assert size == (await volumes.sizes(image, volume)).apparent >= 4 * MIB
    assert await volumes.read(image, volume) == metadata
    assert (await domain.chains.attach(image, [volume], "job:1")).payloads[volume].head == before
