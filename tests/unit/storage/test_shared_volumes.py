# SPDX-License-Identifier: GPL-2.0-or-later
"""Templates on files: what stands in the images that are based on them. And domains that are removed."""

import os
from dataclasses import replace

import pytest

from storage.errors import FormatCutOff, IoFailed
from storage.file.domain import create_file_domain, find_file_domains
from storage.file.io import FileIo
from storage.leases.flock_edge import FlockLeases
from storage.new_domain import NewDomain
from storage.new_volume import NewVolume
from storage.ondisk.values import Allocation, DomainKind, Legality, VolumeFormat, VolumeRole
from vdsm.common.ids import new_uuid

SD = new_uuid()


@pytest.fixture
async def io(tmp_path):
    made = FileIo(str(tmp_path))
    yield made
    await made.close()


@pytest.fixture
async def domain(tmp_path, io):
    new = NewDomain(SD, DomainKind.LOCALFS, "/srv", "d")
    return await create_file_domain(new, str(tmp_path), io, FlockLeases(), io_timeout_s=1)


@pytest.fixture
async def template(domain):
    image, volume = new_uuid(), new_uuid()
    made = await domain.volumes.create(NewVolume(image, volume, 1 << 20, VolumeFormat.RAW, Allocation.SPARSE))
    await domain.volumes.write(image, volume, replace(made, role=VolumeRole.SHARED))
    return image, volume


def paths(domain, volume, *images):
    return [[domain.files.volume(image, volume) + suffix for image in images] for suffix in ("", ".meta")]


async def test_a_link_that_is_stale_is_replaced_when_a_template_is_shared(domain, template):
    image, volume = template
    derived = new_uuid()
    os.mkdir(domain.files.image(derived))
    for _, link in paths(domain, volume, image, derived):
        with open(link, "wb") as f:
            f.write(b"left of an earlier clone")
    await domain.volumes.share(image, volume, derived)
    for own, link in paths(domain, volume, image, derived):
        assert os.path.samefile(own, link)
    assert sorted(os.listdir(domain.files.image(derived))) == [volume, f"{volume}.meta"]


async def test_a_change_of_a_template_reaches_every_image_that_has_it(domain, template):
    image, volume = template
    derived = [new_uuid(), new_uuid()]
    for other in derived:
        await domain.volumes.share(image, volume, other)
    metadata = await domain.volumes.read(image, volume)
    await domain.volumes.write(image, volume, replace(metadata, legality=Legality.ILLEGAL))
    for other in derived:  # VDSM reads the file that lies there
        with open(domain.files.volume(other, volume) + ".meta", "rb") as f:
            assert b"LEGALITY=ILLEGAL\n" in f.read()


async def test_a_removal_that_ends_in_the_middle_leaves_no_domain(domain, template, tmp_path, io, monkeypatch):
    async def fails(path):
        raise IoFailed("discard", path, "EIO", "dead")

    monkeypatch.setattr(io, "discard", fails)
    with pytest.raises(FormatCutOff, match="dead"):
        await domain.format()
    assert await find_file_domains(str(tmp_path), io) == []
