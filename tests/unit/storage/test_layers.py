# SPDX-License-Identifier: GPL-2.0-or-later
"""Chains whose headers, metadata and files do not say the same are refused before anything opens them."""

import os
import subprocess
from dataclasses import replace

import pytest

from storage import layers, qemu_img
from storage.errors import UnsafeImage
from storage.file.domain import create_file_domain
from storage.file.io import FileIo
from storage.leases.flock_edge import FlockLeases
from storage.new_domain import NewDomain
from storage.new_volume import NewVolume
from storage.ondisk.values import Allocation, DomainKind, VolumeFormat
from vdsm.common.ids import BLANK_UUID, new_uuid

MIB = 1 << 20
# fixed: they stand in names of tests, which must be the same in each process of a run
IMG, BASE, MIDDLE, TOP, OTHER = (f"0a000000-0000-4000-8000-00000000000{number}" for number in range(5))


@pytest.fixture
async def domain(tmp_path):
    io = FileIo(str(tmp_path))
    new = NewDomain(new_uuid(), DomainKind.LOCALFS, "/srv", "d")
    yield await create_file_domain(new, str(tmp_path), io, FlockLeases(), io_timeout_s=1)
    await io.close()


@pytest.fixture
async def chain(domain):
    """raw <- qcow2 <- qcow2"""
    await domain.volumes.create(NewVolume(IMG, BASE, MIB, VolumeFormat.RAW, Allocation.SPARSE))
    for volume, parent in ((MIDDLE, BASE), (TOP, MIDDLE)):
        await domain.volumes.create(NewVolume(IMG, volume, MIB, VolumeFormat.COW, Allocation.SPARSE, parent_id=parent))
    return await domain.volumes.chain(IMG, TOP)


async def examine(domain, chain):
    attached = await domain.chains.attach(IMG, [volume for volume, _ in chain], "job:test")
    return layers.examine(attached.payloads, chain)


async def examine_alone(domain, volume, metadata):
    return layers.examine_alone(await domain.chains.look(IMG, volume), volume, metadata)


def rebase(domain, volume, backing, form):
    path = domain.files.volume(IMG, volume)
    subprocess.run(["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", form, "-b", backing, path], check=True)


def change(chain, place, **fields):
    volume, metadata = chain[place]
    return [*chain[:place], (volume, replace(metadata, **fields)), *chain[place + 1 :]]


async def test_a_chain_as_the_field_makes_it(domain, chain):
    found = await examine(domain, chain)
    assert [layer.volume_id for layer in found] == [BASE, MIDDLE, TOP]
    assert [layer.virtual_size for layer in found] == [MIB] * 3
    assert [layer.path for layer in found] == [domain.files.volume(IMG, v) for v in (BASE, MIDDLE, TOP)]


async def test_a_raw_base_stays_raw_whatever_its_guest_wrote(domain, chain, tmp_path):
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "-u", tmp_path / "x", "1M"],
        check=True,
    )
    with open(domain.files.volume(IMG, BASE), "r+b") as f:
        f.write((tmp_path / "x").read_bytes())
    found = await examine(domain, chain)
    assert layers.node(found[:1])["driver"] == "raw"
    rebase(domain, MIDDLE, BASE, "qcow2")
    with pytest.raises(UnsafeImage, match=f"{MIDDLE}.*'?qcow2.*it is raw"):
        await examine(domain, chain)


async def test_a_backing_format_that_is_not_stated_is_refused_over_raw(domain, chain):
    path = domain.files.volume(IMG, MIDDLE)
    with open(path, "r+b") as f:
        head = f.read(4096)
        place = head.index(b"\xe2\x79\x2a\xca")
        f.seek(place)
        f.write(b"\0\0\0\7")  # an extension that nobody knows
    with pytest.raises(UnsafeImage, match="of any format, it is raw"):
        await examine(domain, chain)


@pytest.mark.parametrize(
    "backing",
    [
        f"/tmp/elsewhere/{BASE}",
        f"../{IMG}/{BASE}",
        f"./{BASE}",
        f"{BASE}/",
        f"{BASE}.meta",
        "/etc/passwd",
        f"nbd:localhost:10809:exportname={BASE}",
        'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}',
        TOP,
        MIDDLE,
        OTHER,
    ],
)
async def test_only_the_bare_id_of_the_parent_is_a_backing_file(domain, chain, backing):
    rebase(domain, MIDDLE, backing, "raw")
    with pytest.raises(UnsafeImage, match=MIDDLE):
        await examine(domain, chain)


async def test_a_layer_that_skips_its_parent_is_refused(domain, chain):
    rebase(domain, TOP, BASE, "raw")
    with pytest.raises(UnsafeImage, match=f"{TOP}.*{BASE}.*{MIDDLE}") as caught:
        await examine(domain, chain)
    assert "Reconcile" in caught.value.remedy


async def test_a_backing_file_that_the_metadata_does_not_know_is_refused(domain, chain):
    alone = change(chain, 1, parent_id=BLANK_UUID)[1:]
    with pytest.raises(UnsafeImage, match=f"{MIDDLE}.*{BASE}"):
        await examine(domain, alone)


async def test_a_parent_that_the_header_does_not_know_is_refused(domain, chain):
    rebase(domain, MIDDLE, "", "raw")
    with pytest.raises(UnsafeImage, match=f"{MIDDLE}.*{BASE}"):
        await examine(domain, chain)


async def test_a_raw_volume_with_a_parent_is_refused(domain, chain):
    with pytest.raises(UnsafeImage, match=f"it is raw.*{BASE}"):
        await examine(domain, change(chain, 1, format=VolumeFormat.RAW))


async def test_raw_content_under_qcow2_metadata_is_refused(domain, chain):
    with pytest.raises(UnsafeImage, match=f"{BASE}.*no qcow2"):
        await examine(domain, change(chain, 0, format=VolumeFormat.COW))


@pytest.mark.parametrize(
    ("offset", "raw", "reason"),
    [
        (72, (4).to_bytes(8, "big"), "another file"),
        (72, (1 << 20).to_bytes(8, "big"), "not known here: 0x100000"),
        (32, (2).to_bytes(4, "big"), "encrypted"),
    ],
)
@pytest.mark.parametrize("volume", [MIDDLE, TOP])
async def test_what_leads_elsewhere_is_refused_in_every_layer(domain, chain, volume, offset, raw, reason):
    with open(domain.files.volume(IMG, volume), "r+b") as f:
        f.seek(offset)
        f.write(raw)
    with pytest.raises(UnsafeImage, match=f"{volume}.*{reason}"):
        await examine(domain, chain)
    metadata = dict(chain)[volume]
    with pytest.raises(UnsafeImage, match=f"{volume}.*{reason}"):
        await examine_alone(domain, volume, metadata)


@pytest.mark.parametrize("volume", [BASE, TOP])
async def test_a_link_is_no_layer(domain, chain, tmp_path, volume):
    path = domain.files.volume(IMG, volume)
    os.rename(path, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(UnsafeImage, match="no regular file"):
        await examine(domain, chain)
    with pytest.raises(UnsafeImage, match="no regular file"):
        await examine_alone(domain, volume, dict(chain)[volume])


async def test_qemu_is_told_the_whole_chain(domain, chain):
    found = await examine(domain, chain)
    files = [{"driver": "file", "filename": domain.files.volume(IMG, v)} for v in (BASE, MIDDLE, TOP)]
    below = {"driver": "raw", "file": files[0]}
    middle = {"driver": "qcow2", "file": files[1], "backing": below}
    assert layers.node(found) == {"driver": "qcow2", "file": files[2], "backing": middle}
    assert layers.node(found[2:]) == {"driver": "qcow2", "file": files[2], "backing": None}


def write(path, offset, size):
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write {offset} {size}", path], check=True, capture_output=True)


async def test_measured_is_the_chain_the_pair_or_the_volume_alone(domain, chain):
    for place, volume in enumerate((MIDDLE, TOP)):
        write(domain.files.volume(IMG, volume), place * 65536, 65536)
    with open(domain.files.volume(IMG, BASE), "r+b") as f:
        f.seek(4 * 65536)
        f.write(b"x" * 65536)
    found = await examine(domain, chain)

    async def clusters(part):
        return (await qemu_img.measure(part, VolumeFormat.COW, mount=domain.files.io.mount)).required // 65536

    alone, pair, whole = [await clusters(found[n:]) for n in (2, 1, 0)]
    assert (pair - alone, whole - pair) == (1, 1)


async def test_measuring_opens_nothing_but_the_layers(domain, chain):
    found = await examine(domain, chain)
    rebase(domain, MIDDLE, "/nowhere/at/all", "raw")  # after they were looked at
    measured = await qemu_img.measure(found, VolumeFormat.RAW, mount=domain.files.io.mount)
    assert measured.fully_allocated == MIB
