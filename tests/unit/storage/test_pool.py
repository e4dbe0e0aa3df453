# SPDX-License-Identifier: GPL-2.0-or-later
"""A pool on a local folder: coming and going, domains, the monitor, prepared images."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest
from local_world import World

from storage.errors import (
    ChecksumMismatch,
    DomainExists,
    DomainNotFound,
    FormatCutOff,
    NotConnected,
    StorageNotResponding,
    UnsafeImage,
    VolumeNotFound,
)
from storage.file.io import FileIo
from storage.images import VolumeIllegal
from storage.ondisk.values import DomainClass, DomainKind, DomainStatus
from storage.servers.kinds import LocalFolder
from storage.spm.errors import (
    AnotherPoolConnected,
    DomainActive,
    DomainAttached,
    DomainHasPool,
    DomainInConnectedPool,
    IsSpm,
    MapMissing,
    MasterNotFound,
    NotSpm,
    NotThisHostId,
    PoolHostIdDiffers,
    PoolUnknown,
    WrongMaster,
)
from vdsm.api.codes import all_codes
from vdsm.common.ids import BLANK_UUID, new_uuid


def _metadata(world: World, domain_id: str = "") -> dict[str, str]:
    path = world.domain / "dom_md" / "metadata"
    if domain_id:
        path = world.top / "second" / domain_id / "dom_md" / "metadata"
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


async def _healthy(world: World) -> None:
    async with asyncio.timeout(10):
        while not ((shown := world.storage.repo_stats()[world.domain_id])["valid"] and shown["acquired"]):
            await asyncio.sleep(0.01)


async def test_a_new_pool_stands_in_its_masters_metadata(world: World) -> None:
    found = _metadata(world)
    assert found["ROLE"] == "Master"
    assert found["POOL_UUID"] == world.pool_id
    assert found["POOL_DESCRIPTION"] == "the pool"
    assert found["MASTER_VERSION"] == "1"
    assert found["POOL_DOMAINS"] == f"{world.domain_id}:Active"
    assert found["POOL_SPM_ID"] == "-1"


async def test_connect_makes_the_links_and_disconnect_removes_them(world: World) -> None:
    folder = f"{world.paths.repository}/{world.pool_id}"
    assert os.path.samefile(f"{folder}/{world.domain_id}", world.domain)
    assert os.path.samefile(f"{folder}/mastersd", world.domain)
    await world.storage.pool.disconnect(world.pool_id)
    assert not os.path.exists(folder)
    assert world.storage.pool.connected is None
    await world.storage.pool.disconnect(world.pool_id)


async def test_connect_again_is_a_refresh(world: World) -> None:
    other = new_uuid()
    domains = {world.domain_id: DomainStatus.ACTIVE, other: DomainStatus.ATTACHED}
    await world.storage.pool.connect(world.pool_id, 1, world.domain_id, 1, domains)
    assert world.storage.pool.connected is not None
    assert world.storage.pool.connected.domains == domains


async def test_connect_without_a_map_takes_the_masters(world: World) -> None:
    await world.storage.pool.disconnect(world.pool_id)
    await world.storage.pool.connect(world.pool_id, 1, world.domain_id, 1, None)
    assert world.storage.pool.connected is not None
    assert world.storage.pool.connected.domains == {world.domain_id: DomainStatus.ACTIVE}


async def test_connect_refuses_what_does_not_fit(world: World) -> None:
    pool, sd = world.storage.pool, world.domain_id
    with pytest.raises(AnotherPoolConnected):
        await pool.connect(new_uuid(), 1, sd, 1, None)
    with pytest.raises(PoolHostIdDiffers):
        await pool.connect(world.pool_id, 2, sd, 1, None)
    with pytest.raises(MapMissing):
        await pool.connect(world.pool_id, 1, sd, 1, None)
    await pool.disconnect(world.pool_id)
    with pytest.raises(WrongMaster, match="version is 1, not 7"):
        await pool.connect(world.pool_id, 1, sd, 7, None)
    with pytest.raises(MasterNotFound):
        await pool.connect(world.pool_id, 1, new_uuid(), 1, None)
    with pytest.raises(WrongMaster, match="belongs to"):
        await pool.connect(new_uuid(), 1, sd, 1, None)
    for domains in ({}, {sd: DomainStatus.ATTACHED}):
        with pytest.raises(WrongMaster, match="does not name it as active"):
            await pool.connect(world.pool_id, 1, sd, 1, domains)
    assert pool.connected is None


async def test_the_version_that_comes_with_a_map_is_believed(world: World) -> None:
    # whoever moves the master while it has the map writes no version
    await world.storage.pool.disconnect(world.pool_id)
    await world.connect(master_version=7)
    assert world.storage.pool.connected is not None
    assert world.storage.pool.connected.master_version == 7


async def test_a_pool_is_destroyed_under_this_hosts_own_id_only(spm: World) -> None:
    with pytest.raises(NotThisHostId):
        await spm.storage.pool.destroy(spm.pool_id, 2)
    assert _metadata(spm)["POOL_UUID"] == spm.pool_id


async def test_a_second_pool_cannot_take_the_domain(world: World) -> None:
    await world.storage.pool.disconnect(world.pool_id)
    before = _metadata(world)
    with pytest.raises(DomainHasPool, match=world.pool_id):
        await world.storage.new_pools.create(new_uuid(), "thief", world.domain_id, 1, [world.domain_id], {})
    assert _metadata(world) == before


async def test_one_domain_a_mount_and_only_on_connected_storage(world: World) -> None:
    with pytest.raises(DomainExists):
        await world.create_domain(new_uuid(), world.folder)
    with pytest.raises(NotConnected):
        await world.storage.catalogue.create(
            new_uuid(),
            DomainKind.LOCALFS,
            str(world.top / "elsewhere"),
            "n",
            domain_class=DomainClass.DATA,
            version=5,
            block_size=512,
            max_hosts=250,
        )


@pytest.mark.parametrize("spec", ["relative", "/no/such/folder", "/../etc", ""])
async def test_a_connection_that_cannot_be_made_has_its_own_result(world: World, spec: str) -> None:
    good, bad = LocalFolder("good", str(world.folder)), LocalFolder("bad", spec)
    results = await world.storage.connections.connect([bad, good])
    assert [(r.connection_id, r.error is None) for r in results] == [("bad", False), ("good", True)]


async def test_attach_activate_deactivate_detach(spm: World) -> None:
    second = new_uuid()
    await spm.create_domain(second, spm.top / "second")
    pool = spm.storage.pool_domains
    await pool.attach(spm.pool_id, second)
    assert _metadata(spm, second)["POOL_UUID"] == spm.pool_id
    with pytest.raises(DomainAttached):
        await _format_elsewhere(spm, second)
    await pool.activate(spm.pool_id, second)
    assert os.path.exists(f"{spm.paths.repository}/{spm.pool_id}/{second}/dom_md")
    assert second in spm.storage.repo_stats()
    await pool.deactivate(spm.pool_id, second)
    assert second not in spm.storage.repo_stats()
    await pool.detach(spm.pool_id, second)
    assert _metadata(spm, second)["POOL_UUID"] == ""
    await spm.storage.catalogue.format(second)
    assert not (spm.top / "second" / second).exists()
    with pytest.raises(DomainNotFound):
        await spm.storage.catalogue.report(second)


async def test_an_active_domain_is_not_detached_nor_formatted_and_says_so_with_the_fields_codes(spm: World) -> None:
    codes = all_codes()
    with pytest.raises(DomainActive) as active:
        await spm.storage.pool_domains.detach(spm.pool_id, spm.domain_id)
    with pytest.raises(DomainInConnectedPool) as member:
        await spm.storage.catalogue.format(spm.domain_id)
    assert [codes[type(refusal.value)] for refusal in (active, member)] == [347, 392]
    assert _metadata(spm)["POOL_UUID"] == spm.pool_id


async def test_a_format_that_was_cut_off_is_ended_by_formatting_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, catalogue = new_uuid(), world.storage.catalogue
    await world.create_domain(second, world.top / "second")
    discard = FileIo.discard
    asked: list[str] = []

    async def hangs_at_the_second(io: FileIo, path: str) -> None:
        asked.append(path)
        if len(asked) == 2:
            raise StorageNotResponding(path, "discard", 60.0)
        await discard(io, path)

    with monkeypatch.context() as broken:
        broken.setattr(FileIo, "discard", hangs_at_the_second)
        with pytest.raises(FormatCutOff, match="removed in part"):
            await catalogue.format(second)
    assert os.listdir(world.top / "second") == [second]
    await catalogue.format(second)
    assert os.listdir(world.top / "second") == []
    with pytest.raises(DomainNotFound):
        await catalogue.format(second)
    await world.create_domain(new_uuid(), world.top / "second")


async def _format_elsewhere(spm: World, domain_id: str) -> None:
    """As a host would that is not connected to the pool."""
    connected, spm.storage.pool.connected = spm.storage.pool.connected, None
    try:
        await spm.storage.catalogue.format(domain_id)
    finally:
        spm.storage.pool.connected = connected


async def test_only_the_spm_changes_the_pool(world: World) -> None:
    with pytest.raises(NotSpm):
        await world.storage.pool_domains.attach(world.pool_id, await _second(world))
    with pytest.raises(NotSpm):
        await world.start_volume(new_uuid(), new_uuid())


async def _second(world: World) -> str:
    second = new_uuid()
    await world.create_domain(second, world.top / "second")
    return second


async def test_a_connected_spm_does_not_leave(spm: World) -> None:
    with pytest.raises(IsSpm):
        await spm.storage.pool.disconnect(spm.pool_id)


async def test_destroy_frees_the_domains(spm: World) -> None:
    await spm.storage.pool.destroy(spm.pool_id, 1)
    found = _metadata(spm)
    assert (found["ROLE"], found["POOL_UUID"]) == ("Regular", "")
    assert "POOL_DOMAINS" not in found
    assert spm.storage.pool.connected is None


async def test_the_monitor_tells_a_domain_that_went_bad_and_came_back(world: World) -> None:
    await _healthy(world)
    path = world.domain / "dom_md" / "metadata"
    path.rename(path.with_name("away"))
    async with asyncio.timeout(10):
        while world.storage.repo_stats()[world.domain_id]["valid"]:
            await asyncio.sleep(0.01)
    assert world.storage.repo_stats()[world.domain_id]["code"] in (200, 358)
    path.with_name("away").rename(path)
    await _healthy(world)
    shown = world.storage.repo_stats()[world.domain_id]
    assert (shown["code"], shown["version"], shown["acquired"], shown["actual"]) == (0, 5, True, True)
    assert float(shown["lastCheck"]) < 5
    assert isinstance(shown["delay"], str)


async def test_a_dead_domain_delays_no_other(world: World) -> None:
    gone = new_uuid()
    domains = {world.domain_id: DomainStatus.ACTIVE, gone: DomainStatus.ACTIVE}
    await world.storage.pool.connect(world.pool_id, 1, world.domain_id, 1, domains)
    await _healthy(world)
    async with asyncio.timeout(10):
        while world.storage.repo_stats()[gone]["code"] != 358:  # until it was looked for, it is late
            await asyncio.sleep(0.01)
    assert world.storage.repo_stats()[gone]["actual"]
    assert gone in world.storage.repo_stats()[gone]["reason"]


async def test_damaged_metadata_is_refused_by_file_and_checksums(world: World) -> None:
    await world.storage.pool.disconnect(world.pool_id)
    path = world.domain / "dom_md" / "metadata"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"DESCRIPTION=name", b"DESCRIPTION=nbme"))
    with pytest.raises(ChecksumMismatch) as caught:
        await world.storage.catalogue.report(world.domain_id)
    stored = dict(line.split("=", 1) for line in data.decode().splitlines())["_SHA_CKSUM"]
    assert str(path)[-20:] in str(caught.value)
    assert stored in str(caught.value)


# Prepared images


async def test_prepare_links_the_image_until_the_last_consumer_is_done(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume)
    storage, link = spm.storage, f"{spm.paths.storage_run}/{spm.domain_id}/{image}"
    ids = (spm.pool_id, spm.domain_id, image)
    first = await storage.prepare_image(*ids, volume, consumer="vm-1")
    await storage.prepare_image(*ids, volume, consumer="api")
    assert os.path.samefile(first.path, f"{link}/{volume}")
    assert first.format == "cow"
    await storage.teardown_image(*ids, consumer="vm-1")
    assert os.path.exists(link)
    await storage.teardown_image(*ids, consumer="vm-1")
    assert os.path.exists(link)
    await storage.teardown_image(*ids, consumer="api")
    assert not os.path.lexists(link)


async def test_a_restarted_agent_knows_who_uses_an_image(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume)
    await spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, volume, consumer="vm-1")
    await spm.stop()
    await spm.start()
    assert spm.storage.images.prepared() == [(spm.domain_id, image)]
    await spm.storage.teardown_image(spm.pool_id, spm.domain_id, image, consumer="api")
    assert spm.storage.in_use.users(spm.domain_id, image) == {"vm-1": {volume}}
    await spm.storage.teardown_image(spm.pool_id, spm.domain_id, image, consumer="vm-1")
    assert not os.path.lexists(f"{spm.paths.storage_run}/{spm.domain_id}/{image}")


async def test_the_whole_chain_is_told_from_base_to_leaf(spm: World) -> None:
    image, base, leaf = new_uuid(), new_uuid(), new_uuid()
    await spm.create_volume(image, base, format="RAW")
    await spm.create_volume(image, leaf, parent_id=base)
    prepared = await spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, leaf)
    assert [volume.volume_id for volume in prepared.chain] == [base, leaf]
    told = subprocess.check_output(["qemu-img", "info", "--backing-chain", "-U", prepared.path], text=True)
    assert told.count("image: ") == 2


async def test_an_illegal_volume_is_not_prepared(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume, legal=False)
    ids = (spm.pool_id, spm.domain_id, image, volume)
    with pytest.raises(VolumeIllegal):
        await spm.storage.prepare_image(*ids)
    assert spm.storage.images.prepared() == []
    await spm.storage.prepare_image(*ids, allow_illegal=True)


async def test_a_capacity_that_a_cut_off_resize_left_keeps_no_image_from_being_prepared(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume)
    path = spm.domain / "images" / image / volume
    subprocess.check_call(["qemu-img", "resize", "-q", "-f", "qcow2", path, "4M"])
    await spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, volume)
    # this host may not be the one that writes metadata
    assert f"CAP={1 << 20}\n" in path.with_suffix(".meta").read_text()
    told = await spm.storage.volumes.report(spm.domain_id, image, volume)
    assert told.metadata is not None
    assert told.metadata.capacity == 4 << 20


async def test_an_image_that_names_a_file_of_the_host_is_not_prepared(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume)
    path = spm.domain / "images" / image / volume
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", str(path), "1M"]
    subprocess.check_call(argv)
    with pytest.raises(UnsafeImage, match="/etc/passwd"):
        await spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, volume)
    assert spm.storage.images.prepared() == []


async def test_prepare_needs_the_pool_and_the_volume(spm: World) -> None:
    image = new_uuid()
    await spm.create_volume(image, new_uuid())
    with pytest.raises(PoolUnknown):
        await spm.storage.prepare_image(new_uuid(), spm.domain_id, image, new_uuid())
    with pytest.raises(VolumeNotFound):
        await spm.storage.prepare_image(BLANK_UUID, spm.domain_id, image, new_uuid())
    assert not os.path.exists(f"{spm.paths.storage_run}/{spm.domain_id}")


@pytest.mark.parametrize("damage", ["metadata", "payload"])
async def test_a_damaged_volume_is_told_as_invalid(spm: World, damage: str) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume)
    path = spm.domain / "images" / image / volume
    if damage == "payload":
        path.unlink()
    else:
        path.with_suffix(".meta").write_text("CAP=many\nEOF\n")
    assert (await spm.storage.volumes.report(spm.domain_id, image, volume)).metadata is None
