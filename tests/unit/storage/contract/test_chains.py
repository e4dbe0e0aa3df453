# SPDX-License-Identifier: GPL-2.0-or-later
"""`Chains`: volumes made usable here, for holders that do not take them from each other."""

from __future__ import annotations

import pytest
from grounds import Ground
from wanted import MIB, base_and_top, cow, made, raw

from storage import layers
from storage.domain import Domain
from storage.errors import UnsafeImage, VolumeNotFound
from vdsm.common.ids import new_uuid


async def test_an_attached_chain_can_be_examined(domain: Domain, image: str) -> None:
    base, top = await base_and_top(domain.volumes, image)
    attached = await domain.chains.attach(image, [base, top], "vm:1")
    assert set(attached.payloads) == {base, top}
    found = layers.examine(attached.payloads, await domain.volumes.chain(image, top))
    assert [(layer.volume_id, layer.virtual_size) for layer in found] == [(base, MIB), (top, MIB)]
    assert [layer.path for layer in found] == [f"{attached.folder}/{volume}" for volume in (base, top)]


async def test_sizes_are_whole_sectors(domain: Domain, image: str) -> None:
    volume = new_uuid()
    await made(domain.volumes, cow(image, volume))
    payload = (await domain.chains.attach(image, [volume], "vm:1")).payloads[volume]
    assert payload.size % 512 == 0 and payload.size >= len(payload.head) > 0


async def test_attaching_again_changes_nothing(domain: Domain, image: str) -> None:
    base, top = await base_and_top(domain.volumes, image)
    once = await domain.chains.attach(image, [base, top], "vm:1")
    assert await domain.chains.attach(image, [base, top], "vm:1") == once


async def test_what_one_holder_gives_back_another_keeps(domain: Domain, image: str) -> None:
    volume = new_uuid()
    await made(domain.volumes, raw(image, volume))
    for holder in ("vm:1", "vm:2"):
        await domain.chains.attach(image, [volume], holder)
    await domain.chains.detach(image, "vm:1")
    await domain.chains.detach(image, "vm:1")
    await domain.chains.detach(image, "nobody")
    assert await domain.chains.look(image, volume) is not None
    await domain.chains.detach(image, "vm:2")


async def test_another_image_of_the_holder_is_kept(domain: Domain, image: str) -> None:
    other, one, two = new_uuid(), new_uuid(), new_uuid()
    await made(domain.volumes, raw(image, one), raw(other, two))
    await domain.chains.attach(image, [one], "vm:1")
    await domain.chains.attach(other, [two], "vm:1")
    await domain.chains.detach(image, "vm:1")
    assert await domain.chains.look(other, two) is not None


async def test_what_is_attached_outlives_who_attached_it(domain: Domain, ground: Ground, image: str) -> None:
    volume = new_uuid()
    await made(domain.volumes, raw(image, volume))
    attached = await domain.chains.attach(image, [volume], "vm:1")
    await domain.close()
    assert await (await ground.open()).chains.look(image, volume) == attached.payloads[volume]


async def test_a_look_shows_the_same_or_nothing_and_attaches_nothing(domain: Domain, image: str) -> None:
    volume = new_uuid()
    await made(domain.volumes, cow(image, volume))
    before = await domain.chains.look(image, volume)
    attached = (await domain.chains.attach(image, [volume], "vm:1")).payloads[volume]
    assert before in (None, attached)
    await domain.chains.detach(image, "vm:1")
    assert await domain.chains.look(image, volume) == before


async def test_what_is_not_there_is_not_attached(domain: Domain, image: str) -> None:
    base, _ = await base_and_top(domain.volumes, image)
    with pytest.raises(VolumeNotFound):
        await domain.chains.attach(image, [base, new_uuid()], "vm:1")
    with pytest.raises(VolumeNotFound):
        await domain.chains.look(image, new_uuid())


async def test_what_is_no_plain_payload_is_not_attached(domain: Domain, ground: Ground, image: str) -> None:
    volume = new_uuid()
    await made(domain.volumes, raw(image, volume))
    ground.lead_elsewhere(image, volume)
    with pytest.raises(UnsafeImage):
        await domain.chains.attach(image, [volume], "vm:1")
    with pytest.raises(UnsafeImage):
        await domain.chains.look(image, volume)


def test_a_kind_is_one_that_qemu_knows(domain: Domain) -> None:
    assert domain.chains.kind in ("file", "block")
