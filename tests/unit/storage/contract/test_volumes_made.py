# SPDX-License-Identifier: GPL-2.0-or-later
"""`VolumeStore.create` and `share`: what is refused before anything is done, what is told, what a death leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from deaths import Death, dies
from grounds import Ground
from wanted import MIB, Told, base_and_top, clone, cow, made, raw, roles, undo

from storage.domain import Domain, VolumeStore
from storage.errors import (
    DescriptionTooLong,
    InvalidContent,
    InvalidVolume,
    VolumeExists,
    VolumeNotFound,
    VolumeNotShared,
)
from storage.new_volume import NewVolume
from storage.ondisk.values import Allocation, VolumeRole
from storage.tasks.record import Recovery
from vdsm.common.crashpoints import REGISTRY
from vdsm.common.errors import InvalidParameter
from vdsm.common.ids import new_uuid

POINTS = ["folder", "share", "payload", "parent", "format", "metadata", "lease"]


@pytest.mark.parametrize(
    "changes",
    [
        {"capacity": 0},
        {"capacity": -4096},
        {"capacity": 1 << 63},
        {"description": "é" * 200},
        {"disk_type": "DATA\nFORMAT=RAW"},
        {"allocation": Allocation.PREALLOCATED, "initial_size": 2 * MIB},
        {"parent_id": "0a000000-0000-4000-8000-000000000009"},
    ],
    ids=lambda changes: "-".join(map(str, changes)),
)
async def test_a_volume_that_cannot_be_is_refused_before_anything_is_done(
    volumes: VolumeStore, ground: Ground, image: str, changes: dict[str, object]
) -> None:
    told = Told()
    with pytest.raises((InvalidVolume, InvalidContent, InvalidParameter, DescriptionTooLong, VolumeNotFound)):
        await volumes.create(replace(raw(image, new_uuid()), **changes), told)  # type: ignore[arg-type]
    assert (told.steps, ground.lies(image)) == ([], False)


async def test_a_child_must_be_cow_not_smaller_and_on_a_legal_parent(volumes: VolumeStore, image: str) -> None:
    base, illegal, told = new_uuid(), new_uuid(), Told()
    await made(volumes, raw(image, base, 2 * MIB), raw(image, illegal, legal=False))
    before = await roles(volumes)
    for wanted, why in (
        (raw(image, new_uuid(), 2 * MIB, parent_id=base), "COW"),
        (cow(image, new_uuid(), base, MIB), "below its parent"),
        (cow(image, new_uuid(), illegal), "is illegal"),
    ):
        with pytest.raises(InvalidVolume, match=why):
            await volumes.create(wanted, told)
    assert (told.steps, await roles(volumes)) == ([], before)


async def test_a_volume_is_made_once(volumes: VolumeStore, ground: Ground, image: str) -> None:
    base, top = await base_and_top(volumes, image)
    half, told = new_uuid(), Told()
    ground.leave_payload(image, half)
    for volume in (base, top, half):
        with pytest.raises(VolumeExists):
            await volumes.create(cow(image, volume, base), told)
    assert told.steps == []
    assert await roles(volumes) == {image: {base: "INTERNAL", top: "LEAF"}}


async def test_a_parent_becomes_internal_and_may_have_two_children(volumes: VolumeStore, image: str) -> None:
    """An image that is previewed has two leaves on one volume."""
    base, top = await base_and_top(volumes, image)
    preview = new_uuid()
    assert (await volumes.create(cow(image, preview, base))).parent_id == base
    assert await roles(volumes) == {image: {base: "INTERNAL", top: "LEAF", preview: "LEAF"}}


async def test_a_clone_makes_its_base_a_template_and_has_it_in_its_image(volumes: VolumeStore, image: str) -> None:
    base, derived, top = new_uuid(), new_uuid(), new_uuid()
    await made(volumes, raw(image, base), clone(derived, top, image, base))
    assert await roles(volumes) == {image: {base: "SHARED"}, derived: {base: "SHARED", top: "LEAF"}}
    assert [volume for volume, _ in await volumes.chain(derived, top)] == [base, top]
    second = new_uuid()
    await made(volumes, clone(derived, second, image, base))
    assert (await roles(volumes))[derived] == {base: "SHARED", top: "LEAF", second: "LEAF"}


async def test_what_is_based_on_something_becomes_no_template(volumes: VolumeStore, image: str) -> None:
    _, top = await base_and_top(volumes, image)
    told, derived = Told(), new_uuid()
    with pytest.raises(VolumeNotShared):
        await volumes.create(clone(derived, new_uuid(), image, top), told)
    assert (told.steps, derived in await volumes.images()) == ([], False)


async def test_a_shared_volume_is_linked_into_another_image_and_back(volumes: VolumeStore, image: str) -> None:
    base, other = new_uuid(), new_uuid()
    await made(volumes, raw(image, base))
    with pytest.raises(VolumeNotShared):
        await volumes.share(image, base, other)
    assert await volumes.images() == [image]
    await volumes.write(image, base, replace(await volumes.read(image, base), role=VolumeRole.SHARED))
    for _ in range(2):
        await volumes.share(image, base, other)
        assert await volumes.of_image(other) == (base,)
    assert await volumes.read(other, base) == await volumes.read(image, base)
    for _ in range(2):
        await volumes.unshare(other, base)
        assert base not in (await volumes.by_image()).get(other, ())
    assert await volumes.of_image(image) == (base,)
    assert (await volumes.sizes(image, base)).apparent == MIB


# Told before it is done


Case = tuple[list[NewVolume], NewVolume]


def cases(image: str) -> dict[str, Case]:
    base, top, other = "0a000000-0000-4000-8000-000000000001", new_uuid(), "0a000000-0000-4000-8000-000000000002"
    return {
        "new image": ([], raw(image, top)),
        "second volume": ([raw(image, base)], raw(image, top)),
        "child": ([raw(image, base)], cow(image, top, base)),
        "clone": ([raw(other, base)], clone(image, top, other, base)),
        "second clone": ([raw(other, base), clone(image, new_uuid(), other, base)], clone(image, top, other, base)),
    }


STEPS = {
    "new image": ["create_image_rollback", "halfbakedVolumeRollback", "createVolumeMetadataRollback"],
    "second volume": ["halfbakedVolumeRollback", "createVolumeMetadataRollback"],
    "child": ["halfbakedVolumeRollback", "parentVolumeRollback", "createVolumeMetadataRollback"],
    "clone": [
        "create_image_rollback",
        "shareVolumeRollback",
        "halfbakedVolumeRollback",
        "createVolumeMetadataRollback",
    ],
    "second clone": ["halfbakedVolumeRollback", "createVolumeMetadataRollback"],
}


@pytest.mark.parametrize("name", STEPS)
async def test_each_step_is_told_before_it_is_done(volumes: VolumeStore, ground: Ground, image: str, name: str) -> None:
    before, wanted = cases(image)[name]
    await made(volumes, *before)
    seen: list[str] = []

    async def told(*steps_back: Recovery) -> None:
        step = steps_back[-1].function
        seen.append(step)
        listed = (await volumes.by_image()).get(image, ())
        match step:
            case "create_image_rollback":
                assert not ground.lies(image)
            case "shareVolumeRollback":
                assert wanted.parent_id not in listed
            case "halfbakedVolumeRollback":
                assert not ground.lies(image, wanted.volume_id)
            case "parentVolumeRollback":
                assert (await volumes.read(image, wanted.parent_id)).role is VolumeRole.LEAF
            case "createVolumeMetadataRollback":
                assert wanted.volume_id not in listed and ground.lies(image, wanted.volume_id)

    await volumes.create(wanted, told)
    assert seen == STEPS[name]


@pytest.mark.parametrize(("name", "point"), [(n, p) for n in STEPS for p in POINTS if p != "share" or "clone" in n])
async def test_what_was_told_undoes_a_creation_that_died(
    volumes: VolumeStore, ground: Ground, image: str, death: Death, name: str, point: str
) -> None:
    """Twice, as by an SPM that dies while it undoes."""
    before, wanted = cases(image)[name]
    await made(volumes, *before)
    as_before = await roles(volumes)
    if name == "clone":  # that a base becomes a template is not undone
        as_before[wanted.source_image_id][wanted.parent_id] = "SHARED"
    told, death.at = Told(), f"volume.create.{point}"
    await dies(volumes.create(wanted, told))
    taking_over: Domain = await ground.open()
    for _ in range(2):
        await undo(taking_over, told.steps)
        found = await roles(taking_over.volumes)
        if point == "folder" and name == "clone":
            found[wanted.source_image_id][wanted.parent_id] = "SHARED"  # it was not yet
        assert found == as_before
        assert not ground.lies(image, wanted.volume_id)
        assert ground.lies(image) is (image in as_before)
    await taking_over.volumes.create(wanted)


def test_these_are_all_points_of_a_creation() -> None:
    assert {f"volume.create.{point}" for point in POINTS} == {p for p in REGISTRY if p.startswith("volume.create.")}


@pytest.mark.parametrize("point", POINTS)
async def test_no_listing_shows_half_a_volume(
    volumes: VolumeStore, ground: Ground, image: str, death: Death, point: str
) -> None:
    template, base, top = (new_uuid() for _ in range(3))
    await made(volumes, raw(template, base))
    death.at = f"volume.create.{point}"
    await dies(volumes.create(clone(image, top, template, base)))
    after = (await ground.open()).volumes
    for image_id, ids in (await after.by_image()).items():
        for volume in ids:
            await after.chain(image_id, volume)
            assert (await after.sizes(image_id, volume)).apparent > 0
    assert (top in (await after.by_image()).get(image, ())) is (point in ("metadata", "lease"))


@pytest.mark.parametrize("name", STEPS)
async def test_a_finished_creation_is_undone_by_its_one_step(
    volumes: VolumeStore, ground: Ground, domain: Domain, image: str, name: str
) -> None:
    before, wanted = cases(image)[name]
    await made(volumes, *before)
    as_before = await roles(volumes)
    if name == "clone":
        as_before[wanted.source_image_id][wanted.parent_id] = "SHARED"
    created = await volumes.create(wanted)
    step = volumes.undo_created("/rhev/data-center/pool", image, wanted.volume_id, created.ctime)
    for _ in range(2):
        await undo(domain, [step])
        assert await roles(volumes) == as_before
        assert not ground.lies(image, wanted.volume_id)


async def test_undoing_a_creation_goes_on_where_it_was_cut_off(
    volumes: VolumeStore, ground: Ground, domain: Domain, image: str
) -> None:
    """The volume is hidden, and not yet gone."""
    kept, volume = new_uuid(), new_uuid()
    await made(volumes, raw(image, kept))
    created = await volumes.create(raw(image, volume))
    await volumes.hide(image, volume)
    await undo(domain, [volumes.undo_created("/rhev/data-center/pool", image, volume, created.ctime)])
    assert (ground.lies(image, volume), await roles(volumes)) == (False, {image: {kept: "LEAF"}})
