# SPDX-License-Identifier: GPL-2.0-or-later
"""`VolumeStore`: volumes and images removed, what a death leaves of that, and what collects it."""

from __future__ import annotations

import pytest
from deaths import Death, dies
from grounds import Ground
from wanted import MIB, base_and_top, clone, cow, made, raw, roles, undo

from storage.domain import Domain, VolumeStore
from storage.errors import ImageNotFound, VolumeHasChildren, VolumeNotFound, VolumeShared
from storage.ondisk.values import Legality
from vdsm.common.crashpoints import REGISTRY
from vdsm.common.ids import new_uuid

DELETING = ["illegal", "lease", "metadata", "parent", "payload"]


async def test_a_deleted_volume_is_gone_and_its_parent_a_leaf(volumes: VolumeStore, ground: Ground, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    await volumes.delete(image, top)
    assert await roles(volumes) == {image: {base: "LEAF"}}
    assert not ground.lies(image, top)
    with pytest.raises(VolumeNotFound):
        await volumes.delete(image, top)


async def test_a_volume_with_children_is_kept_unless_forced(volumes: VolumeStore, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    with pytest.raises(VolumeHasChildren, match=top):
        await volumes.delete(image, base)
    assert await roles(volumes) == {image: {base: "INTERNAL", top: "LEAF"}}
    await volumes.delete(image, base, force=True)
    assert await volumes.of_image(image) == (top,)


async def test_a_parent_stays_internal_while_it_has_another_child(volumes: VolumeStore, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    other = new_uuid()
    await made(volumes, cow(image, other, base))
    await volumes.delete(image, top)
    assert await roles(volumes) == {image: {base: "INTERNAL", other: "LEAF"}}


async def test_a_shared_volume_is_kept_unless_forced(volumes: VolumeStore, image: str) -> None:
    base, derived = new_uuid(), new_uuid()
    await made(volumes, raw(image, base), clone(derived, new_uuid(), image, base))
    for shared_in in (image, derived):
        with pytest.raises(VolumeShared):
            await volumes.delete(shared_in, base)
    assert (await roles(volumes))[image] == {base: "SHARED"}


async def test_damaged_metadata_does_not_keep_a_volume(volumes: VolumeStore, ground: Ground, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    ground.damage(image, base)
    with pytest.raises(VolumeHasChildren):
        await volumes.delete(image, base)
    ground.damage(image, top)
    await volumes.delete(image, top, force=True)
    assert await volumes.of_image(image) == (base,)


async def test_a_hidden_volume_is_in_no_listing_and_its_rest_can_go(
    volumes: VolumeStore, ground: Ground, image: str
) -> None:
    base, top = await base_and_top(volumes, image)
    await volumes.remove_rest(image, top)  # it is visible
    assert (await volumes.sizes(image, top)).apparent > 0
    for _ in range(2):
        await volumes.hide(image, top)
        assert await volumes.of_image(image) == (base,)
    assert ground.lies(image, top)
    for _ in range(2):
        await volumes.remove_rest(image, top)
        assert not ground.lies(image, top)


def test_these_are_all_points_of_a_deletion() -> None:
    assert {f"volume.delete.{point}" for point in DELETING} == {p for p in REGISTRY if p.startswith("volume.delete.")}


@pytest.mark.parametrize("point", DELETING)
async def test_a_deletion_that_died_left_an_illegal_volume_or_what_its_steps_remove(
    volumes: VolumeStore, ground: Ground, image: str, death: Death, point: str
) -> None:
    base, top = await base_and_top(volumes, image)
    steps = volumes.undo_deleted(image, top)
    death.at = f"volume.delete.{point}"
    await dies(volumes.delete(image, top))
    taking_over = await ground.open()
    after = taking_over.volumes
    for _ in range(2):
        await undo(taking_over, steps)
    if point in ("illegal", "lease"):
        assert (await after.read(image, top)).legality is Legality.ILLEGAL
        await after.delete(image, top)
    else:
        assert not ground.lies(image, top)
        await after.collect_garbage(())  # puts the parent back
    assert await roles(after) == {image: {base: "LEAF"}}


# Images


async def test_a_deleted_image_is_gone_with_its_volumes(volumes: VolumeStore, ground: Ground, image: str) -> None:
    await base_and_top(volumes, image)
    other, kept = new_uuid(), new_uuid()
    await made(volumes, raw(other, kept))
    await volumes.delete_image(image)
    assert await volumes.by_image() == {other: (kept,)}
    assert (ground.lies(image), await volumes.removed()) == (False, [])
    with pytest.raises(ImageNotFound):
        await volumes.delete_image(image)


async def test_a_template_that_others_are_based_on_is_kept(volumes: VolumeStore, image: str) -> None:
    base, derived, top = new_uuid(), new_uuid(), new_uuid()
    await made(volumes, raw(image, base), clone(derived, top, image, base))
    with pytest.raises(VolumeShared):
        await volumes.delete_image(image)
    assert await roles(volumes) == {image: {base: "SHARED"}, derived: {base: "SHARED", top: "LEAF"}}
    await volumes.delete_image(derived)
    assert (await volumes.sizes(image, base)).apparent == MIB
    await volumes.delete_image(image)
    assert await volumes.images() == []


async def test_a_template_with_damaged_metadata_is_kept_while_it_is_used(
    volumes: VolumeStore, ground: Ground, image: str
) -> None:
    base, derived = new_uuid(), new_uuid()
    await made(volumes, raw(image, base), clone(derived, new_uuid(), image, base))
    ground.damage(image, base)
    with pytest.raises(VolumeShared):
        await volumes.delete_image(image)


async def test_only_an_empty_image_is_dropped(volumes: VolumeStore, ground: Ground, image: str) -> None:
    volume = new_uuid()
    await volumes.drop_image(image)
    ground.leave_payload(image, volume)
    await volumes.drop_image(image)
    assert ground.lies(image, volume)
    await volumes.remove_rest(image, volume)
    for _ in range(2):
        await volumes.drop_image(image)
        assert not ground.lies(image)


async def test_an_image_whose_deletion_was_cut_off_is_purged(
    volumes: VolumeStore, ground: Ground, image: str, death: Death
) -> None:
    await base_and_top(volumes, image)
    death.at = "image.delete.rename"
    await dies(volumes.delete_image(image))
    after = (await ground.open()).volumes
    assert (await after.by_image(), await after.removed()) == ({}, [image])
    assert await after.purge(image)
    assert (await after.purge(image), await after.removed()) == (False, [])


async def test_an_image_of_the_same_id_is_removed_beside_the_rest_of_an_older_one(
    volumes: VolumeStore, ground: Ground, image: str, death: Death
) -> None:
    await base_and_top(volumes, image)
    death.at = "image.delete.rename"
    await dies(volumes.delete_image(image))
    after = (await ground.open()).volumes
    await base_and_top(after, image)
    await after.delete_image(image)
    assert (await after.images(), await after.removed()) == ([], [])


# Garbage


async def test_what_no_listing_shows_is_collected(volumes: VolumeStore, ground: Ground, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    half, alone = new_uuid(), new_uuid()
    ground.leave_payload(image, half)
    ground.leave_payload(alone, half)
    found = await volumes.collect_garbage(())
    assert len(found.removed) == 3 and found.mended == ()
    assert not ground.lies(image, half) and not ground.lies(alone)
    assert await roles(volumes) == {image: {base: "INTERNAL", top: "LEAF"}}
    again = await volumes.collect_garbage(())
    assert (again.removed, again.mended) == ((), ())


async def test_what_a_stored_task_names_is_no_garbage(volumes: VolumeStore, ground: Ground, image: str) -> None:
    claimed, other, alone = new_uuid(), new_uuid(), new_uuid()
    ground.leave_payload(image, claimed)
    ground.leave_payload(image, other)
    ground.leave_payload(alone, other)
    await volumes.remove_rest(alone, other)
    await volumes.collect_garbage({(image, claimed), (alone, "")})
    assert ground.lies(image, claimed) and ground.lies(alone)
    assert not ground.lies(image, other)
    await volumes.collect_garbage(())
    assert not ground.lies(image) and not ground.lies(alone)


async def test_a_parent_that_lost_its_children_is_mended(
    volumes: VolumeStore, ground: Ground, domain: Domain, image: str
) -> None:
    base, top = await base_and_top(volumes, image)
    damaged = new_uuid()
    await made(volumes, raw(new_uuid(), damaged))
    await volumes.hide(image, top)
    found = await volumes.collect_garbage(())
    assert len(found.mended) == 1 and base in found.mended[0]
    assert (await roles(volumes))[image] == {base: "LEAF"}


async def test_garbage_collection_repairs_no_content(volumes: VolumeStore, ground: Ground, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    ground.damage(image, top)
    assert (await volumes.collect_garbage(())).mended == ()
    assert set(await volumes.of_image(image)) == {base, top}
