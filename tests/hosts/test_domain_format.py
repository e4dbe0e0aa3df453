# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains made with real leases, read back byte by byte by a decoder that shares no code with the agent."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from storage.errors import ChecksumMismatch, LeaseHeld, LeaseNotFormatted
from storage.file.domain import create_file_domain, find_file_domains, open_file_domain
from storage.file.io import FileIo
from storage.leases import joining
from storage.leases.flock_edge import FlockLeases
from storage.new_domain import NewDomain
from storage.new_volume import NewVolume
from storage.ondisk.values import Allocation, DomainKind, FormatVersion, VolumeFormat
from storage.spm.volume_leases import VolumeLeased, VolumeLeaseUnknown, refuse_held
from tests.decoder import domain as decoder
from vdsm.common import crashpoints
from vdsm.common.ids import new_uuid

MIB = 1 << 20

# One second instead of ten: joining and leaving take twice to five times this.
IO_TIMEOUT_S = 1


@pytest.fixture(scope="module")
def sanlock_daemon(tmp_path_factory):
    run = tmp_path_factory.mktemp("sanlock")
    os.environ["SANLOCK_RUN_DIR"] = str(run)
    daemon = subprocess.Popen(
        ["sanlock", "daemon", "-w", "0", "-D"],
        env={**os.environ, "SANLOCK_PRIVILEGED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in daemon.stderr:  # until it says that it serves
            if "started" in line or os.path.exists(run / "sanlock.sock"):
                break
        drain = subprocess.Popen(["cat"], stdin=daemon.stderr, stdout=subprocess.DEVNULL)
        yield
    finally:
        daemon.kill()
        daemon.wait()
        drain.wait()
        del os.environ["SANLOCK_RUN_DIR"]


@pytest.fixture
def leases(kind, sanlock_daemon):
    if kind is DomainKind.LOCALFS:
        return FlockLeases()
    from storage.leases.sanlock_edge import SanlockLeases

    return SanlockLeases()


@pytest.fixture(params=[DomainKind.LOCALFS, DomainKind.POSIXFS])
def kind(request):
    return request.param


@pytest.fixture
async def domain(kind, leases, tmp_path):
    made = await create_file_domain(
        NewDomain(new_uuid(), kind, "/remote/path", "format test"),
        str(tmp_path),
        FileIo(str(tmp_path)),
        leases,
        io_timeout_s=IO_TIMEOUT_S,
    )
    yield made
    await made.close()
    await leases.close()


async def chain_of(domain, image_id):
    base, top = new_uuid(), new_uuid()
    await domain.volumes.create(
        NewVolume(image_id, base, 8 * MIB, VolumeFormat.RAW, Allocation.PREALLOCATED, description="the base")
    )
    await domain.volumes.create(
        NewVolume(image_id, top, 16 * MIB, VolumeFormat.COW, Allocation.SPARSE, parent_id=base, sequence=3)
    )
    return base, top


async def test_new_domain_holds_exactly_what_the_format_says(domain, kind):
    found = decoder.decode(domain.folder)
    assert found.fields["TYPE"] == kind.value
    assert found.fields["DESCRIPTION"] == "format test"
    assert found.images == {}
    if kind is DomainKind.POSIXFS:
        assert found.hosts == {}
        assert found.sdm["timestamp"] == 0


async def test_volumes_hold_exactly_what_the_format_says(domain):
    image = new_uuid()
    base, top = await chain_of(domain, image)
    volumes = decoder.decode(domain.folder).images[image]
    assert set(volumes) == {base, top}
    assert volumes[base].fields["VOLTYPE"] == "INTERNAL"
    assert volumes[base].fields["DESCRIPTION"] == "the base"
    assert volumes[base].allocated >= 8 * MIB
    assert (volumes[top].fields["VOLTYPE"], volumes[top].fields["PUUID"], volumes[top].fields["SEQ"]) == (
        "LEAF",
        base,
        "3",
    )


async def test_qemu_agrees_with_the_chain(domain):
    image = new_uuid()
    base, top = await chain_of(domain, image)
    argv = ["qemu-img", "info", "--output", "json", "--backing-chain", "-f", "qcow2", domain.files.volume(image, top)]
    found = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert [os.path.basename(f["filename"]) for f in found] == [top, base]
    assert [f["format"] for f in found] == ["qcow2", "raw"]
    assert [f["virtual-size"] for f in found] == [16 * MIB, 8 * MIB]
    assert found[0]["format-specific"]["data"]["compat"] == "1.1"
    assert [v for v, _ in await domain.volumes.chain(image, top)] == [base, top]


@pytest.mark.parametrize("version", [FormatVersion.V3, FormatVersion.V4])
async def test_a_domain_of_an_old_version_holds_what_it_says_and_becomes_v5(kind, leases, tmp_path, version):
    wanted = NewDomain(new_uuid(), kind, "/remote/path", "old", version=version)
    domain = await create_file_domain(wanted, str(tmp_path), FileIo(str(tmp_path)), leases, io_timeout_s=IO_TIMEOUT_S)
    try:
        image = new_uuid()
        base, top = await chain_of(domain, image)
        found = decoder.decode(domain.folder)
        assert found.fields["VERSION"] == str(int(version))
        assert found.images[image][top].fields["SIZE"] == str(16 * MIB // 512)
        assert os.path.exists(f"{domain.folder}/dom_md/xleases") == (version == 4 and kind is DomainKind.POSIXFS)
        await domain.convert(FormatVersion.V5)
        found = decoder.decode(domain.folder)
        assert (found.fields["VERSION"], found.images[image][base].fields["CAP"]) == ("5", str(8 * MIB))
        assert os.path.exists(f"{domain.folder}/dom_md/xleases") == (kind is DomainKind.POSIXFS)
    finally:
        await domain.close()
        await leases.close()


async def test_domain_stays_valid_through_deletes(domain):
    image = new_uuid()
    base, top = await chain_of(domain, image)
    await domain.volumes.delete(image, top)
    assert decoder.decode(domain.folder).images[image][base].fields["VOLTYPE"] == "LEAF"
    await domain.volumes.delete_image(image)
    assert decoder.decode(domain.folder).images == {}


@pytest.mark.parametrize("kind", [DomainKind.POSIXFS], indirect=True)
@pytest.mark.cost(6)
async def test_the_decoder_sees_a_flipped_byte_in_every_file(domain):
    image = new_uuid()
    base, _ = await chain_of(domain, image)
    meta = f"images/{image}/{base}.meta"
    places = {
        "dom_md/metadata": [3, 40, -1],
        "dom_md/ids": [0, 5 * 512 + 60, 230, -1],
        "dom_md/leases": [5, MIB + 60, MIB + 300, MIB + 700 * 512, -1],
        "dom_md/xleases": [0, MIB + 2, MIB + 100, MIB + 512 + 64 * 77 + 55, -1],
        "dom_md/inbox": [5_000_000],
        "dom_md/outbox": [0],
        meta: [1, -2],
        f"images/{image}/{base}.lease": [7, 120, 512, -1],
    }
    for name, offsets in places.items():
        for offset in offsets:
            path = f"{domain.folder}/{name}"
            place = offset if offset >= 0 else os.path.getsize(path) + offset
            flip(path, place)
            with pytest.raises(ValueError, match=r".+"):
                decoder.decode(domain.folder)
            flip(path, place)
    decoder.decode(domain.folder)


def flip(path, place):
    with open(path, "r+b") as f:
        f.seek(place)
        byte = f.read(1)[0]
        f.seek(place)
        f.write(bytes([byte ^ 0x10]))


async def test_flipped_byte_is_refused_with_both_checksums(domain, tmp_path, leases):
    path = f"{domain.folder}/dom_md/metadata"
    with open(path, "r+b") as f:
        data = bytearray(f.read())
        expected = data.decode().split("_SHA_CKSUM=")[1].strip()
        data[data.index(b"Regular") + 3] ^= 0x04
        f.seek(0)
        f.write(data)
    with pytest.raises(ChecksumMismatch) as e:
        await open_file_domain(str(tmp_path), domain.domain_id, domain.files.io, lambda _: leases, io_timeout_s=1)
    assert path in str(e.value)
    assert expected in str(e.value)
    assert e.value.found not in (expected, "")
    assert e.value.found in str(e.value)
    with pytest.raises(ValueError, match="checksum"):
        decoder.decode(domain.folder)


async def test_shared_volume_is_one_file_in_two_images(domain):
    template, derived, vol, child = (new_uuid() for _ in range(4))
    await domain.volumes.create(NewVolume(template, vol, 4 * MIB, VolumeFormat.RAW, Allocation.SPARSE))
    clone = NewVolume(derived, child, 4 * MIB, VolumeFormat.COW, Allocation.SPARSE, parent_id=vol)
    await domain.volumes.create(replace(clone, source_image_id=template))
    shared = await domain.volumes.read(template, vol)
    await domain.volumes.write(template, vol, replace(shared, description="changed later"))
    found = decoder.decode(domain.folder).images
    assert found[derived][vol].links == found[template][vol].links == 2
    assert found[derived][vol].fields["DESCRIPTION"] == "changed later"
    assert await domain.volumes.children(template, vol) == [child]


@pytest.mark.parametrize("kind", [DomainKind.POSIXFS], indirect=True)
@pytest.mark.cost(8)
async def test_sdm_lease_is_held_by_one_process_and_seen_by_all(domain, leases):
    await joining.join(leases, domain, 1, timeout_s=60)
    try:
        assert await leases.joined(domain.lockspace, 1)
        assert (await leases.holder(domain.lockspace, domain.sdm_lease)).host_id is None
        version = await leases.acquire(domain.sdm_lease, timeout_s=30)
        assert await leases.held(domain.sdm_lease)
        holder = await leases.holder(domain.lockspace, domain.sdm_lease)
        assert (holder.host_id, holder.version) == (1, version)
        found = decoder.decode(domain.folder)
        assert set(found.hosts) == {1}
        assert found.hosts[1]["io_timeout"] == IO_TIMEOUT_S
        assert (found.sdm["owner"], found.sdm["lver"]) == (1, version)
        assert "LeaseHeld" in await other_process_acquires(domain)
        await leases.release(domain.sdm_lease)
        assert not await leases.held(domain.sdm_lease)
        assert (await leases.holder(domain.lockspace, domain.sdm_lease)).host_id is None
        assert await other_process_acquires(domain) == str(version + 1)
    finally:
        await leases.leave(domain.lockspace, 1)
    assert decoder.decode(domain.folder).hosts == {}
    assert await leases.joined(domain.lockspace, 1) is False


@pytest.mark.parametrize("kind", [DomainKind.LOCALFS], indirect=True)
async def test_local_lock_is_held_by_one_process(domain, leases):
    assert (await leases.holder(domain.lockspace, domain.sdm_lease)).host_id is None
    await joining.join(leases, domain, 1, timeout_s=1)
    await leases.acquire(domain.sdm_lease, timeout_s=5)
    other = FlockLeases()
    assert (await other.holder(domain.lockspace, domain.sdm_lease)).host_id is not None
    with pytest.raises(LeaseHeld):
        await other.acquire(domain.sdm_lease, timeout_s=5)
    await leases.release(domain.sdm_lease)
    await other.acquire(domain.sdm_lease, timeout_s=5)
    await other.close()
    decoder.decode(domain.folder)


@pytest.mark.parametrize("kind", [DomainKind.POSIXFS], indirect=True)
async def test_empty_and_cleared_leases_are_told_apart_from_held_ones(domain, leases, tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(LeaseNotFormatted):
        await leases.read_lease(replace(domain.sdm_lease, path=str(empty), offset=0))
    await leases.clear_lease(domain.sdm_lease)
    with pytest.raises(LeaseNotFormatted):
        await leases.read_lease(domain.sdm_lease)


@pytest.fixture
async def volume_lease(domain):
    image, volume = new_uuid(), new_uuid()
    await domain.volumes.create(NewVolume(image, volume, 4096, VolumeFormat.RAW, Allocation.SPARSE))
    return await domain.volumes.lease(image, volume)


async def refusal(domain, leases, lease):
    """Why a volume is not removed; empty when it may be."""
    try:
        await refuse_held(domain, leases, os.path.basename(os.path.dirname(lease.path)), [lease.resource])
    except (VolumeLeased, VolumeLeaseUnknown) as e:
        return str(e)
    return ""


@pytest.mark.parametrize("kind", [DomainKind.POSIXFS], indirect=True)
async def test_a_damaged_lease_keeps_its_volume_until_it_is_made_anew(domain, leases, volume_lease):
    with open(volume_lease.path, "r+b") as file:
        file.seek(24)  # in the checked part of the record
        file.write(b"x")
    assert "wrong checksum" in await refusal(domain, leases, volume_lease)
    path = volume_lease.path.replace(":", "\\:")
    address = f"{domain.domain_id}:{volume_lease.resource}:{path}:0"
    subprocess.run(["sanlock", "direct", "init", "-r", address], check=True, capture_output=True)
    assert await refusal(domain, leases, volume_lease) == ""


@pytest.mark.parametrize("kind", [DomainKind.POSIXFS], indirect=True)
async def test_a_cleared_or_blank_lease_keeps_no_volume(domain, leases, volume_lease):
    await leases.clear_lease(volume_lease)
    assert await refusal(domain, leases, volume_lease) == ""
    os.truncate(volume_lease.path, 0)
    os.truncate(volume_lease.path, MIB)
    assert await refusal(domain, leases, volume_lease) == ""


@pytest.mark.parametrize("kind", [DomainKind.POSIXFS], indirect=True)
async def test_a_lease_under_another_name_keeps_its_volume_while_it_is_held(domain, leases, volume_lease):
    renamed = replace(volume_lease, resource=new_uuid())
    await leases.format_lease(renamed)
    assert await refusal(domain, leases, volume_lease) == ""
    await joining.join(leases, domain, 1, timeout_s=60)
    try:
        await leases.acquire(renamed, timeout_s=30)
        assert "hosts [1] hold its lease" in await refusal(domain, leases, volume_lease)
        await leases.release(renamed)
        assert await refusal(domain, leases, volume_lease) == ""
    finally:
        await leases.leave(domain.lockspace, 1)


CRASH = """
import asyncio, sys
from storage.new_domain import NewDomain
from storage.file.domain import create_file_domain
from storage.file.io import FileIo
from storage.leases.sanlock_edge import SanlockLeases
from storage.ondisk.values import DomainKind
new = NewDomain(sys.argv[1], DomainKind.POSIXFS, "/srv", "d")
asyncio.run(create_file_domain(new, sys.argv[2], FileIo(sys.argv[2]), SanlockLeases(), io_timeout_s=1))
"""


@pytest.mark.parametrize("point", sorted(n for n in crashpoints.REGISTRY if n.startswith("domain.create.")))
async def test_crash_while_a_shared_domain_is_made(sanlock_daemon, tmp_path, point):
    from storage.leases.sanlock_edge import SanlockLeases

    domain_id = new_uuid()
    argv = [sys.executable, "-c", CRASH, domain_id, str(tmp_path)]
    died = subprocess.run(argv, env={**os.environ, "VDSM_CRASH_AT": point}, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    io = FileIo(str(tmp_path))
    if point != "domain.create.metadata":
        assert await find_file_domains(str(tmp_path), io) == []
        new = NewDomain(domain_id, DomainKind.POSIXFS, "/srv", "d")
        await create_file_domain(new, str(tmp_path), io, SanlockLeases(), io_timeout_s=IO_TIMEOUT_S)
    await io.close()
    decoder.decode(tmp_path / domain_id)


OTHER = """
import asyncio, sys
from storage.leases.model import Lease
from storage.leases.sanlock_edge import SanlockLeases
async def main():
    lease = Lease(sys.argv[1], "SDM", sys.argv[2], 1 << 20, 1 << 20, 512)
    leases = SanlockLeases()
    try:
        print(await leases.acquire(lease, timeout_s=30))
        await leases.release(lease)
    except Exception as e:
        print(repr(e))
asyncio.run(main())
"""


async def other_process_acquires(domain):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER, domain.domain_id, domain.sdm_lease.path, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()
