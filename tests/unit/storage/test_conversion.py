# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain brought to a later format: what stands there after each write, whoever dies then, and who goes on."""

import os
import shutil
from dataclasses import replace

import pytest

from storage.conversion import ConversionUnsupported, Step, plan
from storage.errors import IoFailed
from storage.file.domain import create_file_domain, open_file_domain
from storage.file.io import FileIo
from storage.leases.flock_edge import FlockLeases
from storage.new_domain import NewDomain
from storage.new_volume import NewVolume
from storage.ondisk.values import Allocation, DomainClass, DomainKind, FormatVersion, Legality, VolumeFormat, VolumeRole
from tests.decoder import domain as decoder
from tests.decoder import text as decoder_text
from vdsm.common.crashpoints import REGISTRY, CrashPoint
from vdsm.common.ids import new_uuid

MIB = 1 << 20
V3, V4, V5 = FormatVersion.V3, FormatVersion.V4, FormatVersion.V5
SD, IMAGE, BASE, TOP, CLONE_IMAGE, CLONE = (new_uuid() for _ in range(6))
SIZES = {BASE: 8 * MIB, TOP: 16 * MIB, CLONE: 32 * MIB}
POINTS = sorted(name for name in REGISTRY if name.startswith("domain.convert."))
CHANGES = {"write_atomic", "write_direct", "create", "truncate", "chmod", "relink", "rename", "remove", "discard"}


class Died(BaseException):
    """The process is killed here: nothing after it happens."""


class MortalIo:
    """An I/O helper's requests, of which the n-th change is the last one that reaches the disk."""

    def __init__(self, io, dies_after):
        self._io = io
        self.changes = 0
        self.dies_after = dies_after

    def __getattr__(self, name):
        found = getattr(self._io, name)
        if name not in CHANGES:
            return found

        async def change(*args, **kwargs):
            if self.changes == self.dies_after:
                raise Died
            self.changes += 1
            return await found(*args, **kwargs)

        return change


class SharedLeases(FlockLeases):
    """The edge of storage that hosts share, as far as files go; nothing is locked."""

    on_storage = True


@pytest.fixture
async def io(tmp_path):
    made = FileIo(str(tmp_path))
    yield made
    await made.close()


def leases(kind):
    return FlockLeases() if kind is DomainKind.LOCALFS else SharedLeases()


async def reopen(tmp_path, io, kind=DomainKind.LOCALFS):
    return await open_file_domain(str(tmp_path), SD, io, lambda _: leases(kind), io_timeout_s=1)


@pytest.fixture
async def old(tmp_path, io):
    """A V3 domain with a chain, and a clone of a template; makes another one like it each time it is asked."""

    async def make(version=V3, kind=DomainKind.LOCALFS):
        shutil.rmtree(tmp_path / SD, ignore_errors=True)
        wanted = NewDomain(SD, kind, "/srv", "old", version=version)
        domain = await create_file_domain(wanted, str(tmp_path), io, leases(kind), io_timeout_s=1)
        volumes = domain.volumes
        await volumes.create(NewVolume(IMAGE, BASE, SIZES[BASE], VolumeFormat.RAW, Allocation.SPARSE))
        shared = {"parent_id": BASE, "source_image_id": IMAGE}
        await volumes.create(
            NewVolume(CLONE_IMAGE, TOP, SIZES[TOP], VolumeFormat.COW, Allocation.SPARSE, description="é", **shared)
        )
        await volumes.create(
            NewVolume(CLONE_IMAGE, CLONE, SIZES[CLONE], VolumeFormat.COW, Allocation.SPARSE, parent_id=TOP)
        )
        return domain

    return make


def capacities(decoded):
    return {v: int(found.fields["CAP"]) for volumes in decoded.images.values() for v, found in volumes.items()}


@pytest.mark.parametrize(
    ("found", "wanted", "steps"),
    [
        (V3, 3, ""),
        (V5, 5, ""),
        (V3, 4, "external leases, version 4"),
        (V4, 5, "both capacities, version 5, one capacity"),
        (V3, 5, "external leases, version 4, both capacities, version 5, one capacity"),
    ],
)
def test_steps_between_versions(found, wanted, steps):
    assert ", ".join(plan(SD, DomainClass.DATA, found, wanted)) == steps


@pytest.mark.parametrize(
    ("domain_class", "found", "wanted"),
    [
        (DomainClass.DATA, V5, 4),
        (DomainClass.DATA, V4, 3),
        (DomainClass.DATA, V5, 6),
        (DomainClass.DATA, V3, 0),
        (DomainClass.ISO, FormatVersion.V0, 5),
        (DomainClass.BACKUP, FormatVersion.V0, 3),
    ],
)
def test_what_is_converted_to_nothing_else(domain_class, found, wanted):
    with pytest.raises(ConversionUnsupported, match=f"{SD} of version {int(found)} .* version {wanted}"):
        plan(SD, domain_class, found, wanted)


@pytest.mark.parametrize(("found", "wanted"), [(V3, V4), (V3, V5), (V4, V5)])
async def test_a_converted_domain_holds_exactly_what_a_new_one_would(tmp_path, io, old, found, wanted):
    domain = await old(found)
    assert await domain.convert(wanted)
    assert domain.version == wanted
    decoded = decoder.decode(domain.folder)
    assert decoded.fields["VERSION"] == str(int(wanted))
    assert capacities(decoded) == SIZES
    assert decoded.images[CLONE_IMAGE][TOP].fields["DESCRIPTION"] == "é"
    assert not await domain.convert(wanted)
    made = new_uuid()
    await domain.volumes.create(NewVolume(IMAGE, made, MIB, VolumeFormat.RAW, Allocation.SPARSE, sequence=2))
    found_again = decoder.decode(domain.folder).images[IMAGE][made].fields
    assert found_again.get("SEQ") == ("2" if wanted == V5 else None)


async def test_whoever_dies_after_any_write_leaves_a_domain_of_one_version_and_the_next_goes_on(tmp_path, io, old):
    """Read after each death by the decoder, as a host of the field reads it; then converted by somebody else."""
    writes = 0
    versions = []
    while True:
        await old()
        mortal = MortalIo(io, writes)
        try:
            await (await reopen(tmp_path, mortal)).convert(V5)
        except Died:
            pass
        else:
            break
        left = decoder.decode(tmp_path / SD, converting=True)
        versions.append(left.fields["VERSION"])
        assert capacities(left) == SIZES
        other = await reopen(tmp_path, io)
        assert {v: (await other.volumes.read(CLONE_IMAGE, v)).capacity for v in (BASE, TOP, CLONE)} == SIZES
        await other.convert(V5)
        done = decoder.decode(tmp_path / SD, converting=True)
        assert (done.fields["VERSION"], capacities(done)) == ("5", SIZES)
        for volume in (BASE, TOP, CLONE):  # whatever is left of the old form goes with the next change
            image = IMAGE if volume == BASE else CLONE_IMAGE
            metadata = await other.volumes.read(image, volume)
            await other.volumes.write(image, volume, replace(metadata, legality=Legality.ILLEGAL))
        assert capacities(decoder.decode(tmp_path / SD)) == SIZES
        writes += 1
    assert versions == sorted(versions)
    assert {v: versions.count(v) for v in "345"} == {"3": 1, "4": 5, "5": 4}


async def test_external_leases_get_an_index_whatever_was_left_of_one(tmp_path, io, old):
    for left in (None, b"", b"x" * 8192):
        domain = await old(kind=DomainKind.POSIXFS)
        path = f"{domain.folder}/dom_md/xleases"
        assert not os.path.exists(path)
        if left is not None:
            with open(path, "wb") as f:
                f.write(left)
        await domain.convert(V4)
        with open(path, "rb") as f:
            index = bytearray(f.read())
        index[:MIB] = bytes(MIB)  # a reserved place: what is left there means nothing
        assert decoder._xleases(bytes(index), SD, MIB) == {}
        assert os.stat(path).st_mode & 0o777 == 0o660


async def test_what_an_earlier_conversion_writes_late_lands_in_no_index(tmp_path, io, old):
    """Its process is gone, the server carries out what it had sent: over leases that were made since."""
    domain = await old(kind=DomainKind.POSIXFS)
    path = f"{domain.folder}/dom_md/xleases"
    with open(path, "w+b", buffering=0) as sent:
        await domain.convert(V4)
        with open(path, "rb") as f:
            index = f.read()
        sent.write(b"late" * 1024)
        with open(path, "rb") as f:
            assert f.read() == index


async def test_external_leases_are_there_before_the_version_says_so(tmp_path, io, old):
    for writes in range(20):
        await old(kind=DomainKind.POSIXFS)
        try:
            await (await reopen(tmp_path, MortalIo(io, writes), DomainKind.POSIXFS)).convert(V4)
        except Died:
            with open(tmp_path / SD / "dom_md/metadata", "rb") as f:
                assert decoder_text.domain(f.read())["VERSION"] == "3"
        else:
            break
        other = await reopen(tmp_path, io, DomainKind.POSIXFS)
        await other.convert(V4)
        with open(tmp_path / SD / "dom_md/xleases", "rb") as f:
            assert decoder._xleases(f.read(), SD, MIB) == {}
    assert writes == 6


async def test_a_volume_that_cannot_be_read_stays_and_keeps_nobody(tmp_path, io, old):
    domain = await old(V4)
    damaged = f"{domain.folder}/images/{CLONE_IMAGE}/{CLONE}.meta"
    with open(damaged, "wb") as f:
        f.write(b"garbage\nEOF\n")
    await domain.convert(V5)
    with open(damaged, "rb") as f:
        assert f.read() == b"garbage\nEOF\n"
    os.unlink(damaged)
    os.unlink(damaged.removesuffix(".meta"))
    await domain.volumes.write(
        CLONE_IMAGE, TOP, replace(await domain.volumes.read(CLONE_IMAGE, TOP), role=VolumeRole.LEAF)
    )
    assert capacities(decoder.decode(domain.folder)) == {BASE: SIZES[BASE], TOP: SIZES[TOP]}


async def test_a_storage_error_while_volumes_are_read_leaves_the_old_version(tmp_path, io, old, monkeypatch):
    domain = await old(V4)

    async def fails(*_):
        raise IoFailed("write_atomic", "somewhere", "EIO", "dead")

    monkeypatch.setattr(domain.volumes, "replace", fails)
    with pytest.raises(IoFailed):
        await domain.convert(V5)
    assert decoder.decode(domain.folder).fields["VERSION"] == "4"


async def test_a_storage_error_while_it_is_tidied_is_no_failure(tmp_path, io, old, monkeypatch):
    domain = await old(V4)

    async def fails(*_):
        raise IoFailed("write_atomic", "somewhere", "EIO", "dead")

    monkeypatch.setattr(domain.volumes, "write", fails)
    await domain.convert(V5)
    assert decoder.decode(domain.folder, converting=True).fields["VERSION"] == "5"


async def test_a_host_that_opened_the_domain_before_follows_its_version(tmp_path, io, old):
    domain = await old(V3)
    other_io = FileIo(str(tmp_path))
    try:
        before = await reopen(tmp_path, other_io)
        await domain.convert(V5)
        assert before.version == V3
        await before.read_metadata()
        assert before.version == V5
    finally:
        await other_io.close()


@pytest.mark.parametrize("point", POINTS)
async def test_death_at_each_step(tmp_path, io, old, monkeypatch, point):
    domain = await old(V3)

    def reach(reached):
        if reached.name == point:
            raise Died

    monkeypatch.setattr(CrashPoint, "reach", reach)
    with pytest.raises(Died):
        await domain.convert(V5)
    monkeypatch.undo()
    found = decoder.decode(domain.folder, converting=True).fields["VERSION"]
    assert found == {"leases": "3", "v4": "4", "both": "4", "v5": "5", "done": "5"}[point.rpartition(".")[2]]
    other = await reopen(tmp_path, io)
    await other.convert(V5)
    assert capacities(decoder.decode(domain.folder, converting=True)) == SIZES


def test_each_step_has_its_point():
    assert len(POINTS) == len(Step)
