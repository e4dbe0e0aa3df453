# SPDX-License-Identifier: GPL-2.0-or-later
"""File domains on a local disk: rules of volumes, and what each crash point leaves."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from storage.errors import (
    BlockSizeUnsupported,
    DescriptionTooLong,
    DirectIoUnsupported,
    DomainExists,
    DomainMismatch,
    DomainNameTooLong,
    DomainNotFound,
    InvalidContent,
    InvalidVolume,
    IoFailed,
)
from storage.file.domain import (
    create_file_domain,
    find_file_domains,
    finish_format,
    is_half_formatted,
    open_file_domain,
)
from storage.file.io import FileIo
from storage.leases.flock_edge import FlockLeases
from storage.new_domain import NewDomain
from storage.new_volume import NewVolume
from storage.ondisk.values import Allocation, DomainKind, Legality, VolumeFormat
from tests.decoder import domain as decoder
from vdsm.common import crashpoints
from vdsm.common.errors import InvalidParameter
from vdsm.common.ids import new_uuid

MIB = 1 << 20
SD = "275766cb-c7d8-43d6-a663-4e52160de620"


@pytest.fixture
async def io(tmp_path):
    made = FileIo(str(tmp_path))
    yield made
    await made.close()


def new_domain(**changes):
    fields = {
        "domain_id": SD,
        "kind": DomainKind.LOCALFS,
        "spec": "/srv/local",
        "description": "local",
    }
    return NewDomain(**{**fields, **changes})


async def reopen(tmp_path, io):
    return await open_file_domain(str(tmp_path), SD, io, lambda _: FlockLeases(), io_timeout_s=10)


@pytest.fixture
async def domain(tmp_path, io):
    return await create_file_domain(new_domain(), str(tmp_path), io, FlockLeases(), io_timeout_s=10)


@pytest.fixture
def image():
    return new_uuid()


def raw(image, volume, size=MIB, **changes):
    return NewVolume(image, volume, size, VolumeFormat.RAW, Allocation.SPARSE, **changes)


def cow(image, volume, parent="", size=MIB, **changes):
    return NewVolume(image, volume, size, VolumeFormat.COW, Allocation.SPARSE, parent_id=parent, **changes)


async def test_domain_is_found_opened_and_removed(domain, tmp_path, io):
    assert await find_file_domains(str(tmp_path), io) == [SD]
    opened = await reopen(tmp_path, io)
    assert (opened.kind, opened.block_size, opened.alignment) == (DomainKind.LOCALFS, 512, MIB)
    await opened.format()
    assert os.listdir(tmp_path) == []
    with pytest.raises(DomainNotFound):
        await reopen(tmp_path, io)


async def test_second_domain_on_a_mount_is_refused(domain, tmp_path, io):
    with pytest.raises(DomainExists):
        await create_file_domain(new_domain(domain_id=new_uuid()), str(tmp_path), io, FlockLeases(), io_timeout_s=10)
    with pytest.raises(DomainExists):
        await create_file_domain(new_domain(), str(tmp_path), io, FlockLeases(), io_timeout_s=10)
    decoder.decode(domain.folder)


async def test_domain_under_a_foreign_name_is_refused(domain, tmp_path, io):
    other = new_uuid()
    os.rename(domain.folder, tmp_path / other)
    with pytest.raises(DomainMismatch, match=SD):
        await open_file_domain(str(tmp_path), other, io, lambda _: FlockLeases(), io_timeout_s=10)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"description": "d" * 51}, DomainNameTooLong),
        ({"block_size": 1024}, InvalidParameter),
        ({"kind": DomainKind.POSIXFS, "block_size": 0}, InvalidParameter),
        ({"kind": DomainKind.POSIXFS, "block_size": 4096}, InvalidParameter),
        ({"spec": "a\nb"}, InvalidContent),
    ],
)
async def test_a_domain_that_cannot_be_leaves_nothing(tmp_path, io, changes, error):
    with pytest.raises(error):
        await create_file_domain(new_domain(**changes), str(tmp_path), io, FlockLeases(), io_timeout_s=10)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("found", "error"), [(4096, BlockSizeUnsupported), (None, DirectIoUnsupported)])
async def test_a_domain_that_its_storage_cannot_hold_leaves_nothing(tmp_path, io, monkeypatch, found, error):
    async def probe(folder):
        if found is None:
            raise IoFailed("block_size", folder, "EINVAL", "Invalid argument")
        return found

    monkeypatch.setattr(io, "block_size", probe)
    with pytest.raises(error, match=str(tmp_path)):
        await create_file_domain(new_domain(), str(tmp_path), io, FlockLeases(), io_timeout_s=10)
    assert os.listdir(tmp_path) == []


async def test_a_look_at_a_domain_that_was_removed_says_that_it_is_not_there(domain):
    os.rename(domain.folder, f"{domain.folder}.away")
    with pytest.raises(DomainNotFound):
        await domain.probe()
    os.rename(f"{domain.folder}.away", domain.folder)
    assert await domain.probe() > 0


async def test_a_domain_whose_leases_lie_where_no_version_puts_them_is_refused(domain, tmp_path, io):
    path = f"{domain.folder}/dom_md/metadata"
    with open(path, "rb") as f:
        lines = f.read().replace(b"ALIGNMENT=1048576", b"ALIGNMENT=2097152").splitlines(keepends=True)
    with open(path, "wb") as f:  # mended by hand: without its checksum
        f.writelines(line for line in lines if not line.startswith(b"_SHA"))
    with pytest.raises(InvalidContent, match="block size 512 with alignment 2097152"):
        await reopen(tmp_path, io)


async def test_master_folders(domain):
    for _ in range(2):
        async with domain.master_files() as folders:
            assert await folders.tasks.listdir() == await folders.ovfs.listdir() == []
    assert sorted(os.listdir(f"{domain.folder}/master")) == ["tasks", "vms"]
    decoder.decode(domain.folder)


@pytest.mark.parametrize("initial_size", [None, 0, 2 * MIB])
async def test_a_preallocated_raw_volume_has_all_its_space_whatever_its_initial_size(domain, image, initial_size):
    volume = new_uuid()
    wanted = NewVolume(image, volume, 8 * MIB, VolumeFormat.RAW, Allocation.PREALLOCATED, initial_size=initial_size)
    await domain.volumes.create(wanted)
    found = decoder.decode(domain.folder).images[image][volume]
    assert found.size == 8 * MIB
    assert found.allocated >= 8 * MIB


async def test_a_preallocated_cow_volume_has_space_up_to_its_capacity(domain, image):
    volume = new_uuid()
    wanted = NewVolume(image, volume, 8 * MIB, VolumeFormat.COW, Allocation.PREALLOCATED)
    await domain.volumes.create(wanted)
    found = decoder.decode(domain.folder).images[image][volume]
    assert found.allocated >= 8 * MIB - 256 * 1024
    checked = subprocess.run(["qemu-img", "check", "-q", domain.files.volume(image, volume)], check=False)
    assert checked.returncode == 0


async def test_a_sparse_raw_volume_has_its_first_block(domain, image):
    volume = new_uuid()
    await domain.volumes.create(raw(image, volume, 8 * MIB))
    found = decoder.decode(domain.folder).images[image][volume]
    assert (found.size, found.allocated) == (8 * MIB, 4096)


async def test_a_sparse_cow_volume_takes_an_initial_size_of_nothing(domain, image):
    volume = new_uuid()
    await domain.volumes.create(NewVolume(image, volume, MIB, VolumeFormat.COW, Allocation.SPARSE, initial_size=0))
    assert volume in decoder.decode(domain.folder).images[image]


@pytest.mark.parametrize(
    "changes",
    [
        {"capacity": 0},
        {"capacity": -4096},
        {"capacity": 1 << 63},
        {"initial_size": MIB},
        {"initial_size": 0},
        {"format": VolumeFormat.COW, "initial_size": 4096},
        {"format": VolumeFormat.COW, "allocation": Allocation.PREALLOCATED, "initial_size": 4096},
        {"description": "é" * 200},
        {"allocation": Allocation.PREALLOCATED, "initial_size": 2 * MIB},
    ],
)
async def test_a_volume_that_cannot_be_leaves_nothing(domain, image, changes):
    with pytest.raises((InvalidParameter, InvalidVolume, DescriptionTooLong)):
        await domain.volumes.create(replace(raw(image, new_uuid()), **changes))
    assert os.listdir(f"{domain.folder}/images") == []


async def test_metadata_of_a_template_is_that_of_its_own_image(domain, image):
    volume, derived, child = new_uuid(), new_uuid(), new_uuid()
    await domain.volumes.create(raw(image, volume))
    await domain.volumes.create(replace(cow(derived, child, volume), source_image_id=image))
    own = domain.files.volume(image, volume) + ".meta"
    with open(own, encoding="ascii") as f:
        text = f.read().replace("LEGALITY=LEGAL", "LEGALITY=ILLEGAL")
    os.unlink(own)  # as VDSM does it: the other images keep the old file
    with open(own, "w", encoding="ascii") as f:
        f.write(text)
    assert (await domain.volumes.read(derived, volume)).legality is Legality.ILLEGAL
    assert (await domain.volumes.chain(derived, child))[0][1].legality is Legality.ILLEGAL
    assert await domain.volumes.children(image, volume) == [child]
    os.unlink(own)
    assert (await domain.volumes.read(derived, volume)).legality is Legality.LEGAL


async def test_a_description_that_vdsm_wrote_keeps_no_volume_from_its_changes(domain, image):
    volume = new_uuid()
    await domain.volumes.create(raw(image, volume))
    path = domain.files.volume(image, volume) + ".meta"
    with open(path, encoding="utf-8") as f:
        text = f.read().replace("DESCRIPTION=", "DESCRIPTION=" + "é" * 120).replace("EOF", "LATER=kept\nEOF")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    found = await domain.volumes.read(image, volume)
    await domain.volumes.write(image, volume, replace(found, legality=Legality.ILLEGAL))
    with open(path, encoding="utf-8") as f:
        assert f.read() == text.replace("LEGALITY=LEGAL", "LEGALITY=ILLEGAL").replace("LATER=kept\n", "").replace(
            "LEGALITY", "LATER=kept\nLEGALITY"
        )
    await domain.volumes.delete(image, volume)


async def test_damaged_metadata_names_its_file_and_does_not_keep_the_volume(domain, image):
    volume = new_uuid()
    await domain.volumes.create(raw(image, volume))
    path = domain.files.volume(image, volume) + ".meta"
    with open(path, "wb") as f:
        f.write(b"CAP=1\n")
    with pytest.raises(InvalidContent, match=path):
        await domain.volumes.read(image, volume)
    await domain.volumes.delete(image, volume)
    assert os.listdir(domain.files.image(image)) == []


async def test_garbage_is_only_what_is_ours(domain, image):
    volume, half = new_uuid(), new_uuid()
    await domain.volumes.create(raw(image, volume))
    folder = domain.files.image(image)
    for name in (
        half,
        f"{half}.lease",
        f"{volume}.meta.new",
        f"{volume}.meta.new.7f",
        f"{volume}.new.7f",
        "notes.txt",
        ".meta.new",
    ):
        open(f"{folder}/{name}", "wb").close()
    os.mkdir(f"{domain.folder}/images/lost+found")
    found = await domain.volumes.collect_garbage(())
    assert len(found.removed) == 5
    assert sorted(os.listdir(folder)) == sorted([volume, f"{volume}.meta", "notes.txt", ".meta.new"])
    assert sorted(os.listdir(f"{domain.folder}/images")) == sorted([image, "lost+found"])


# Crash points: a process of its own dies at each

FLOW = """
import asyncio, sys
from storage.new_volume import NewVolume
from storage.new_domain import NewDomain
from storage.file.domain import create_file_domain, open_file_domain
from storage.file.io import FileIo
from storage.leases.flock_edge import FlockLeases
from storage.ondisk.values import Allocation, DomainKind, VolumeFormat

SD, IMG, BASE, TOP, OTHER = sys.argv[3:]

async def main(mount, flow):
    io, leases = FileIo(mount), FlockLeases()
    if flow == "domain":
        await create_file_domain(NewDomain(SD, DomainKind.LOCALFS, "/srv", "d"), mount, io, leases, io_timeout_s=10)
        return
    domain = await open_file_domain(mount, SD, io, lambda _: leases, io_timeout_s=10)
    if flow == "volume.create":
        await domain.volumes.create(
            NewVolume(IMG, TOP, 1 << 20, VolumeFormat.COW, Allocation.SPARSE, parent_id=BASE))
        await domain.volumes.create(NewVolume(OTHER, TOP, 1 << 20, VolumeFormat.RAW, Allocation.SPARSE))
    elif flow == "volume.clone":
        await domain.volumes.create(
            NewVolume(OTHER, TOP, 1 << 20, VolumeFormat.COW, Allocation.SPARSE, "DATA", "", BASE, IMG))
    elif flow == "domain.format":
        await domain.format()
    elif flow == "volume.delete":
        await domain.volumes.delete(IMG, TOP)
    else:
        await domain.volumes.delete_image(IMG)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""

OURS = sorted(n for n in crashpoints.REGISTRY if n.rpartition(".")[0] in {"domain.create", "domain.format"})


def die_at(point, mount, flow, *ids):
    done = subprocess.run(
        [sys.executable, "-c", FLOW, str(mount), flow, *ids],
        env={**os.environ, "VDSM_CRASH_AT": point},
        capture_output=True,
        check=False,
    )
    return done.returncode


@pytest.mark.parametrize("point", [p for p in OURS if p.startswith("domain.create")])
async def test_crash_while_a_domain_is_made(tmp_path, io, point):
    ids = [SD, *(new_uuid() for _ in range(4))]
    assert die_at(point, tmp_path, "domain", *ids) == -signal.SIGKILL
    if point == "domain.create.metadata":
        decoder.decode(tmp_path / SD)
        return
    assert await find_file_domains(str(tmp_path), io) == []
    made = await create_file_domain(new_domain(), str(tmp_path), io, FlockLeases(), io_timeout_s=10)
    decoder.decode(made.folder)


@pytest.mark.parametrize("point", [p for p in OURS if p.startswith("domain.format")])
async def test_crash_while_a_domain_is_formatted(domain, tmp_path, io, image, point, pools):
    await domain.volumes.create(raw(image, new_uuid()))
    assert die_at(point, tmp_path, "domain.format", SD, *(new_uuid() for _ in range(4))) == -signal.SIGKILL
    assert await find_file_domains(str(tmp_path), io) == []
    assert await is_half_formatted(str(tmp_path), SD, pools, timeout_s=5)
    await finish_format(str(tmp_path), SD, pools)
    assert os.listdir(tmp_path) == []
    assert not await is_half_formatted(str(tmp_path), SD, pools, timeout_s=5)


async def test_a_domain_without_its_metadata_is_no_rest_of_a_format(domain, tmp_path, pools):
    os.unlink(f"{domain.folder}/dom_md/metadata")
    assert not await is_half_formatted(str(tmp_path), SD, pools, timeout_s=5)


@pytest.mark.parametrize("lost", ["dom_md", "what is in dom_md"])
async def test_a_folder_of_images_is_no_rest_of_a_format(domain, tmp_path, lost, pools):
    shutil.rmtree(f"{domain.folder}/dom_md")
    if lost != "dom_md":
        os.mkdir(f"{domain.folder}/dom_md")
    assert os.path.isdir(f"{domain.folder}/images")
    assert not await is_half_formatted(str(tmp_path), SD, pools, timeout_s=5)


@pytest.mark.parametrize("left", [".", "dom_md"])
async def test_the_last_empty_folders_are_the_rest_of_a_format(tmp_path, left, pools):
    os.makedirs(tmp_path / SD / left)
    assert await is_half_formatted(str(tmp_path), SD, pools, timeout_s=5)


# one real death for each flow: `contract` has every point
KILLS = ["volume.create.format", "volume.create.share", "volume.delete.metadata", "image.delete.rename"]


@pytest.mark.parametrize("point", KILLS)
async def test_a_kill_while_a_volume_is_made_or_deleted_leaves_no_half_of_one(domain, tmp_path, io, image, point):
    base, top = new_uuid(), new_uuid()
    flow = "image" if point.startswith("image") else point.rpartition(".")[0]
    flow = "volume.clone" if point == "volume.create.share" else flow
    await domain.volumes.create(raw(image, base))
    if flow not in ("volume.create", "volume.clone"):
        await domain.volumes.create(cow(image, top, base))
    assert die_at(point, tmp_path, flow, SD, image, base, top, new_uuid()) == -signal.SIGKILL

    reopened = await reopen(tmp_path, io)
    visible = await reopened.volumes.by_image()
    for image_id, volume_ids in visible.items():  # never half a volume, before anything is mended
        for volume_id in volume_ids:
            metadata = await reopened.volumes.read(image_id, volume_id)
            sizes = await reopened.volumes.sizes(image_id, volume_id)
            assert sizes.apparent > 0
            assert metadata.legality is Legality.LEGAL
    await reopened.volumes.collect_garbage(())
    for removed in await reopened.volumes.removed():
        assert await reopened.volumes.purge(removed)
    found = decoder.decode(domain.folder).images
    assert {i: tuple(sorted(v)) for i, v in found.items()} == {i: v for i, v in visible.items() if v}
    again = await reopened.volumes.collect_garbage(())
    assert (again.removed, again.mended) == ((), ())
    if flow == "volume.create":
        await reopened.volumes.create(cow(image, top, base))
        decoder.decode(domain.folder)
