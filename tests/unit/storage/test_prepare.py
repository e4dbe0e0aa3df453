# SPDX-License-Identifier: GPL-2.0-or-later
"""What preparing an image refuses, and what is asked about volumes of a real pool."""

import asyncio
import os
import subprocess
from dataclasses import replace

import pytest
from local_world import World

from storage.errors import DomainExists, NotTheParent, UnsafeImage
from storage.ondisk.values import DomainClass, DomainKind, Legality, VolumeFormat
from tests.decoder import domain as decoder
from vdsm.common.ids import new_uuid

MIB = 1 << 20


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    made.folder.mkdir()
    await made.start()
    await made.create_pool()
    await made.connect()
    await made.become_spm()
    yield made
    await made.stop()


async def prepare(world, image, volume, *, allow_illegal=False):
    pool = (world.pool_id, world.domain_id, image, volume)
    return await world.storage.prepare_image(*pool, allow_illegal=allow_illegal)


async def change(world, image, volume, **fields):
    domain = await world.storage.domains.get(world.domain_id)
    await domain.volumes.write(image, volume, replace(await domain.volumes.read(image, volume), **fields))


async def told_capacity(world, image, volume):
    return (await world.storage.volumes.report(world.domain_id, image, volume)).metadata.capacity


@pytest.mark.parametrize("form", ["RAW", "COW"])
@pytest.mark.parametrize("stored", [0, 4096])
async def test_a_capacity_that_a_cut_off_resize_left_is_told_as_it_is_and_not_written(world, form, stored):
    image, volume = new_uuid(), new_uuid()
    await world.create_volume(image, volume, format=form, capacity=MIB)
    await change(world, image, volume, capacity=stored)
    meta = world.domain / "images" / image / f"{volume}.meta"
    before = (meta.stat().st_ino, meta.read_bytes())
    await prepare(world, image, volume)
    assert (meta.stat().st_ino, meta.read_bytes()) == before
    assert await told_capacity(world, image, volume) == MIB


async def test_a_raw_file_shorter_than_its_capacity_is_prepared_as_it_is(world):
    image, volume = new_uuid(), new_uuid()
    await world.create_volume(image, volume, format="RAW", capacity=MIB)
    os.truncate(world.domain / "images" / image / volume, 5120)  # as an OVF store that was uploaded
    await prepare(world, image, volume)
    assert await told_capacity(world, image, volume) == MIB


async def test_the_capacity_of_what_is_being_uploaded_is_not_taken_from_it(world):
    image, volume = new_uuid(), new_uuid()
    await world.create_volume(image, volume, capacity=MIB, legal=False)
    path = world.domain / "images" / image / volume
    subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", path, "8M"], check=True)
    await prepare(world, image, volume, allow_illegal=True)
    assert await told_capacity(world, image, volume) == MIB


async def test_the_group_may_do_with_a_volume_what_its_owner_may(world):
    image, volume = new_uuid(), new_uuid()
    await world.create_volume(image, volume)
    path = world.domain / "images" / image / volume
    path.chmod(0o600)
    await prepare(world, image, volume)
    assert path.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize("legality", [Legality.LEGAL, Legality.ILLEGAL])
async def test_an_unsafe_image_is_not_prepared_in_any_state(world, legality):
    image, base, top = new_uuid(), new_uuid(), new_uuid()
    await world.create_volume(image, base, format="RAW")
    await world.create_volume(image, top, parent_id=base)
    await change(world, image, top, legality=legality)
    path = world.domain / "images" / image / top
    subprocess.run(["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, path], check=True)
    with pytest.raises(UnsafeImage, match=top):
        await prepare(world, image, top, allow_illegal=True)
    assert not os.path.lexists(f"{world.paths.storage_run}/{world.domain_id}/{image}")
    assert world.storage.in_use.users(world.domain_id, image) == {}


async def test_a_clone_and_its_template_are_prepared(world):
    template, base, clone, top = (new_uuid() for _ in range(4))
    await world.create_volume(template, base, format="RAW")
    made = await world.create_volume(clone, top, parent_id=base, source_image_id=template)
    assert made["taskResult"] == "success"
    assert (await prepare(world, clone, top)).format == "cow"
    assert (await prepare(world, template, base)).format == "raw"


async def test_volumes_are_measured_with_all_below_with_the_parent_or_alone(world):
    image, base, top = new_uuid(), new_uuid(), new_uuid()
    await world.create_volume(image, base, format="RAW")
    await world.create_volume(image, top, parent_id=base)
    with open(world.domain / "images" / image / base, "r+b") as f:
        f.write(b"x" * 65536)

    async def clusters(**how):
        asked = {"backing_chain": True, "base_id": "", **how}
        target = VolumeFormat.COW
        found = await world.storage.volumes.measure(world.domain_id, image, top, target, **asked)
        return found.required // 65536

    alone = await clusters(backing_chain=False)
    assert await clusters(backing_chain=False, base_id=new_uuid()) == alone
    assert await clusters() == alone + 1
    assert await clusters(base_id=base) == alone + 1
    for wrong in (top, new_uuid()):
        with pytest.raises(NotTheParent, match="'baseID'"):
            await clusters(base_id=wrong)


async def test_a_volume_whose_metadata_is_damaged_is_reported_as_invalid(world):
    image, volume = new_uuid(), new_uuid()
    await world.create_volume(image, volume)
    for damaged in (b"NONE=" + b"#" * 90 + b"\nEOF\n", b"", b"CAP=1\n", b"\xff\n"):
        (world.domain / "images" / image / f"{volume}.meta").write_bytes(damaged)
        report = await world.storage.volumes.report(world.domain_id, image, volume)
        assert report.metadata is None
        assert (report.sizes.apparent, report.sizes.true) == (0, 0)


async def test_unsafe_volumes_are_neither_measured_nor_described(world, tmp_path):
    image, volume = new_uuid(), new_uuid()
    await world.create_volume(image, volume)
    path = world.domain / "images" / image / volume
    subprocess.run(
        ["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", path], check=True
    )
    ask = (world.domain_id, image, volume)
    with pytest.raises(UnsafeImage):
        await world.storage.volumes.measure(*ask, VolumeFormat.RAW, backing_chain=True, base_id="")
    described = await world.storage.volumes.qemu_info(*ask)  # told, not followed
    assert described.backing_file == "/etc/passwd"
    path.unlink()
    data_file = f"data_file={tmp_path}/elsewhere"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", data_file, path, "1M"], check=True)
    with pytest.raises(UnsafeImage, match="another file"):
        await world.storage.volumes.qemu_info(*ask)
    with pytest.raises(UnsafeImage, match="another file"):
        await world.storage.volumes.measure(*ask, VolumeFormat.RAW, backing_chain=False, base_id="")


@pytest.mark.parametrize("delay_s", [0, 0.02, 0.05])
async def test_of_two_creations_of_a_domain_at_a_time_one_makes_it_whole(world, delay_s):
    folder = world.top / "second"
    folder.mkdir()
    second = new_uuid()
    await world.create_domain(second, folder)
    await world.storage.catalogue.format(second)

    async def create(after_s):
        await asyncio.sleep(after_s)
        await world.storage.catalogue.create(
            second,
            DomainKind.LOCALFS,
            str(folder),
            "name",
            domain_class=DomainClass.DATA,
            version=5,
            block_size=512,
            max_hosts=250,
        )

    results = await asyncio.gather(create(0), create(delay_s), return_exceptions=True)
    assert [type(r) for r in results if r is not None] == [DomainExists]
    decoder.decode(folder / second)
