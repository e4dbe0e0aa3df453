# SPDX-License-Identifier: GPL-2.0-or-later
"""File domains of each format version and class: made, opened anew, volumes changed; read by the tests' decoder."""

import os
from dataclasses import replace

import pytest

from storage.errors import BlockSizeUnsupported, ImagesUnsupported, NameNotAscii, UnsupportedVersion
from storage.file.domain import create_file_domain, open_file_domain
from storage.file.io import FileIo
from storage.leases.flock_edge import FlockLeases
from storage.new_domain import NewDomain
from storage.new_volume import NewVolume
from storage.ondisk.layout import ISO_IMAGE_ID
from storage.ondisk.values import Allocation, DomainClass, DomainKind, FormatVersion, Legality, VolumeFormat
from tests.decoder import domain as decoder
from vdsm.common.errors import InvalidParameter
from vdsm.common.ids import new_uuid

MIB = 1 << 20
SD = new_uuid()
DATA_VERSIONS = [FormatVersion.V3, FormatVersion.V4, FormatVersion.V5]


@pytest.fixture
async def io(tmp_path):
    made = FileIo(str(tmp_path))
    yield made
    await made.close()


async def create(tmp_path, io, version, **changes):
    fields = {"kind": DomainKind.LOCALFS, "description": "d", "version": version, **changes}
    wanted = NewDomain(SD, spec="/srv", **fields)
    return await create_file_domain(wanted, str(tmp_path), io, FlockLeases(), io_timeout_s=1)


async def reopen(tmp_path, io):
    return await open_file_domain(str(tmp_path), SD, io, lambda _: FlockLeases(), io_timeout_s=1)


def raw(image, volume, **changes):
    return NewVolume(image, volume, MIB, VolumeFormat.RAW, Allocation.SPARSE, **changes)


def cow(image, volume, parent="", **changes):
    return NewVolume(image, volume, MIB, VolumeFormat.COW, Allocation.SPARSE, parent_id=parent, **changes)


@pytest.mark.parametrize("version", DATA_VERSIONS)
async def test_a_domain_of_each_version_is_made_and_opened(tmp_path, io, version):
    made = await create(tmp_path, io, version)
    found = decoder.decode(made.folder).fields
    assert found["VERSION"] == str(int(version))
    assert ("BLOCK_SIZE" in found) == (version == 5)
    opened = await reopen(tmp_path, io)
    assert (opened.version, opened.block_size, opened.alignment) == (version, 512, MIB)
    assert opened.domain_class is DomainClass.DATA


@pytest.mark.parametrize("version", DATA_VERSIONS)
async def test_volumes_of_each_version_are_made_changed_and_deleted(tmp_path, io, version):
    await create(tmp_path, io, version)
    domain = await reopen(tmp_path, io)
    image, base, top, clone_image, clone = (new_uuid() for _ in range(5))
    await domain.volumes.create(raw(image, base, sequence=3))
    await domain.volumes.create(cow(image, top, base))
    found = decoder.decode(domain.folder).images[image]
    assert {v: found[v].fields["VOLTYPE"] for v in found} == {base: "INTERNAL", top: "LEAF"}
    assert ("SIZE" in found[base].fields) == (version < 5)
    assert found[base].fields.get("SEQ") == ("3" if version == 5 else None)
    await domain.volumes.write(image, top, replace(await domain.volumes.read(image, top), legality=Legality.ILLEGAL))
    await domain.volumes.delete(image, top)
    await domain.volumes.create(cow(clone_image, clone, base, source_image_id=image))
    found = decoder.decode(domain.folder).images
    assert found[clone_image][base].fields["VOLTYPE"] == "SHARED"
    assert set(found[clone_image]) == {base, clone}
    await domain.volumes.delete_image(clone_image)
    assert set(decoder.decode(domain.folder).images) == {image}


@pytest.mark.parametrize("version", DATA_VERSIONS)
async def test_qcow2_of_a_domain_is_what_its_oldest_host_understands(tmp_path, io, version):
    domain = await create(tmp_path, io, version)
    image, volume = new_uuid(), new_uuid()
    await domain.volumes.create(cow(image, volume))
    with open(f"{domain.folder}/images/{image}/{volume}", "rb") as f:
        assert f.read(8) == b"QFI\xfb" + bytes([0, 0, 0, 2 if version == 3 else 3])


@pytest.mark.parametrize("version", [FormatVersion.V3, FormatVersion.V4])
@pytest.mark.parametrize("block_size", [0, 4096])
async def test_old_versions_have_blocks_of_512_bytes_only(tmp_path, io, version, block_size):
    with pytest.raises(InvalidParameter, match=f"blockSize.*version {int(version)}"):
        await create(tmp_path, io, version, block_size=block_size)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("probed", [1, 512, 4096])
@pytest.mark.parametrize("wanted", [0, 512, 4096])
@pytest.mark.parametrize(("max_hosts", "mib"), [(250, 1), (500, 2), (1000, 4), (2000, 8)])
async def test_block_size_and_alignment_of_v5_follow_storage_and_hosts(
    tmp_path, io, monkeypatch, probed, wanted, max_hosts, mib
):
    async def probe(_):
        return probed

    monkeypatch.setattr(io, "block_size", probe)
    made = create(tmp_path, io, FormatVersion.V5, block_size=wanted, max_hosts=max_hosts)
    if 1 not in (probed, wanted) and wanted not in (0, probed):
        with pytest.raises(BlockSizeUnsupported):
            await made
        return
    size = wanted or (512 if probed == 1 else probed)
    fields = decoder.decode((await made).folder).fields
    assert (fields["BLOCK_SIZE"], fields["ALIGNMENT"]) == (str(size), str((mib if size == 4096 else 1) * MIB))


async def test_an_old_version_does_not_fit_storage_with_4k_blocks(tmp_path, io, monkeypatch):
    async def probe(_):
        return 4096

    monkeypatch.setattr(io, "block_size", probe)
    with pytest.raises(BlockSizeUnsupported):
        await create(tmp_path, io, FormatVersion.V4)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("domain_class", [DomainClass.ISO, DomainClass.BACKUP])
@pytest.mark.parametrize("kind", [DomainKind.LOCALFS, DomainKind.POSIXFS])
async def test_iso_and_export_domains_of_version_0(tmp_path, io, domain_class, kind):
    made = await create(tmp_path, io, FormatVersion.V0, domain_class=domain_class, kind=kind)
    found = decoder.decode(made.folder)
    assert (found.fields["VERSION"], found.fields["CLASS"]) == ("0", domain_class.value)
    assert os.listdir(f"{made.folder}/images") == ([ISO_IMAGE_ID] if domain_class is DomainClass.ISO else [])
    opened = await reopen(tmp_path, io)
    assert (opened.version, opened.domain_class) == (0, domain_class)
    assert await opened.volumes.lease(new_uuid(), new_uuid()) is None
    assert await opened.host_id_owners() == {}


@pytest.mark.parametrize("version", [0, 2])
async def test_a_data_domain_with_the_lock_of_old_is_refused(tmp_path, io, version):
    made = await create(tmp_path, io, FormatVersion.V3)
    path = f"{made.folder}/dom_md/metadata"
    with open(path, "rb") as f:
        lines = f.read().replace(b"VERSION=3", b"VERSION=%d" % version).splitlines(keepends=True)
    with open(path, "wb") as f:
        f.writelines(line for line in lines if not line.startswith(b"_SHA"))
    with pytest.raises(UnsupportedVersion, match=f"{SD}/dom_md/metadata has format version {version}"):
        await reopen(tmp_path, io)


async def test_a_name_of_version_0_is_ascii(tmp_path, io):
    with pytest.raises(NameNotAscii):
        await create(tmp_path, io, FormatVersion.V0, domain_class=DomainClass.ISO, description="données")
    assert os.listdir(tmp_path) == []


async def test_files_of_people_in_an_iso_domain_are_no_images(tmp_path, io):
    made = await create(tmp_path, io, FormatVersion.V0, domain_class=DomainClass.ISO)
    names = [new_uuid(), f"{new_uuid()}.lease", f"{new_uuid()}.meta.new.1", "debian.iso"]
    for name in names:
        with open(f"{made.folder}/images/{ISO_IMAGE_ID}/{name}", "wb") as f:
            f.write(b"x")
    garbage = await made.volumes.collect_garbage(())
    assert (garbage.removed, garbage.mended) == ((), ())
    for change in (
        made.volumes.create(raw(new_uuid(), new_uuid())),
        made.volumes.delete_image(ISO_IMAGE_ID),
        made.volumes.delete(ISO_IMAGE_ID, names[0], force=True),
    ):
        with pytest.raises(ImagesUnsupported, match=SD):
            await change
    assert sorted(os.listdir(f"{made.folder}/images/{ISO_IMAGE_ID}")) == sorted(names)


async def test_an_export_domain_holds_images(tmp_path, io):
    made = await create(tmp_path, io, FormatVersion.V0, domain_class=DomainClass.BACKUP, kind=DomainKind.POSIXFS)
    image, volume = new_uuid(), new_uuid()
    await made.volumes.create(cow(image, volume))
    found = decoder.decode(made.folder).images[image][volume].fields
    assert (found["SIZE"], found["MTIME"]) == ("2048", "0")
    assert sorted(os.listdir(f"{made.folder}/images/{image}")) == [volume, f"{volume}.meta"]
