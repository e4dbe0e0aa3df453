# SPDX-License-Identifier: GPL-2.0-or-later
"""The version of a pool's domains: brought up by the SPM's start, by an upgrade, by activating an older domain."""

import asyncio
import os

import pytest
from local_world import World

from storage.access import Identity
from storage.conversion import ConversionUnsupported
from storage.errors import InvalidContent
from storage.ondisk.values import DomainClass
from storage.spm.errors import BackupMaster, DomainHasPool, IsoMaster, MixedDomainVersions, NotSpm
from tests.decoder import domain as decoder
from tests.decoder import text as decoder_text
from vdsm.common.errors import RemoteError
from vdsm.common.ids import new_uuid

ISO, BACKUP = {"domain_class": DomainClass.ISO, "version": 0}, {"domain_class": DomainClass.BACKUP, "version": 0}


@pytest.fixture
async def old(tmp_path):
    """A pool of version 3, connected; nobody is SPM."""
    world = World(tmp_path)
    world.folder.mkdir()
    await world.start()
    await world.create_domain(world.domain_id, world.folder, version=3)
    await world.storage.new_pools.create(world.pool_id, "old", world.domain_id, 1, [world.domain_id], {})
    await world.connect()
    yield world
    await world.stop()


def version(world, domain_id=None, folder=None):
    """As it stands there at this moment, whoever works on the domain."""
    path = world.domain if domain_id is None else folder / domain_id
    return decoder_text.domain((path / "dom_md/metadata").read_bytes())["VERSION"]


async def second(world, **changes):
    """Another domain of this host: its id and folder."""
    domain_id = new_uuid()
    folder = world.top / domain_id[:8]
    await world.create_domain(domain_id, folder, **changes)
    return domain_id, folder


async def until(what):
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.02)


async def start(world, wanted):
    return await world.finish(await world.storage.tasks.start_spm(world.pool_id, wanted))


@pytest.mark.parametrize("wanted", [4, 5])
async def test_the_spm_begins_with_a_master_of_the_version_that_is_wanted(old, wanted):
    status = await start(old, wanted)
    assert status["taskResult"] == "success", status
    assert version(old) == str(wanted)
    image, volume = new_uuid(), new_uuid()
    await old.create_volume(image, volume)
    fields = decoder.decode(old.domain).images[image][volume].fields
    assert ("SEQ" in fields) == (wanted == 5)


async def test_other_active_domains_follow_the_master_beside_all_else(old):
    domain_id, folder = await second(old, version=3)
    await start(old, None)
    await old.storage.pool_domains.attach(old.pool_id, domain_id)
    await old.storage.pool_domains.activate(old.pool_id, domain_id)
    await old.storage.pool.stop_spm(old.pool_id)
    assert version(old, domain_id, folder) == "3"
    await start(old, 5)
    await until(lambda: version(old, domain_id, folder) == "5")


@pytest.mark.parametrize("wanted", [0, 6])
async def test_a_version_that_is_none_takes_no_role(old, wanted):
    status = await start(old, wanted)
    assert status["taskResult"] != "success"
    assert status["code"] == (395 if wanted == 0 else 394)
    assert version(old) == "3"


async def test_an_upgrade_brings_master_and_others_to_the_version(old):
    domain_id, folder = await second(old, version=3)
    await start(old, None)
    await old.storage.pool_domains.attach(old.pool_id, domain_id)
    await old.storage.pool_domains.activate(old.pool_id, domain_id)
    await old.storage.versions.upgrade(old.pool_id, 5)
    assert version(old) == "5"
    assert (await old.storage.catalogue.report(old.domain_id)).domain.version == 5
    await until(lambda: version(old, domain_id, folder) == "5")
    await old.storage.versions.upgrade(old.pool_id, 5)  # again: nothing is to be done


async def test_an_upgrade_is_for_the_spm_and_never_back(spm):
    with pytest.raises((ConversionUnsupported, RemoteError), match="of version 5 cannot be converted to version 4"):
        await spm.storage.versions.upgrade(spm.pool_id, 4)
    await spm.storage.pool.stop_spm(spm.pool_id)
    with pytest.raises(NotSpm):
        await spm.storage.versions.upgrade(spm.pool_id, 5)


async def test_an_older_domain_is_converted_when_it_is_activated(spm):
    domain_id, folder = await second(spm, version=3)
    await spm.storage.pool_domains.attach(spm.pool_id, domain_id)
    assert version(spm, domain_id, folder) == "3"
    await spm.storage.pool_domains.activate(spm.pool_id, domain_id)
    assert decoder.decode(folder / domain_id).fields["VERSION"] == "5"


async def test_a_domain_that_was_away_follows_when_it_is_there_again(spm):
    domain_id, folder = await second(spm, version=3)
    await spm.storage.pool_domains.attach(spm.pool_id, domain_id)
    metadata = folder / domain_id / "dom_md/metadata"
    await spm.storage.pool_domains.activate(spm.pool_id, domain_id)
    text = metadata.read_bytes()
    kept = [x for x in text.splitlines(keepends=True) if not x.startswith((b"_SHA", b"BLOCK", b"ALIGN"))]
    metadata.write_bytes(b"".join(kept).replace(b"VERSION=5", b"VERSION=4"))  # as if it had been away meanwhile
    await spm.storage.versions.bring_up(domain_id)
    await until(lambda: b"VERSION=5" in metadata.read_bytes())


async def test_a_newer_domain_does_not_come_into_an_older_pool(old):
    domain_id, _ = await second(old, version=4)
    await start(old, None)
    with pytest.raises((MixedDomainVersions, RemoteError), match="version 4, its pool's master has 3"):
        await old.storage.pool_domains.attach(old.pool_id, domain_id)


async def test_a_pool_is_made_of_data_domains_of_one_version(old):
    await old.storage.pool.disconnect(old.pool_id)
    old_id, _ = await second(old, version=4)
    new_id, _ = await second(old, version=5)
    iso_id, _ = await second(old, **ISO)
    backup_id, _ = await second(old, **BACKUP)
    create = old.storage.new_pools.create
    with pytest.raises((MixedDomainVersions, RemoteError), match="version 4, its pool's master has 5"):
        await create(new_uuid(), "mixed", new_id, 1, [new_id, old_id], {})
    for domain_id, refused in ((iso_id, IsoMaster), (backup_id, BackupMaster)):
        with pytest.raises((refused, RemoteError), match="only a data domain"):
            await create(new_uuid(), "none", domain_id, 1, [domain_id], {})


async def test_an_iso_domain_belongs_to_many_pools_and_leaves_one_at_a_time(spm):
    domain_id, folder = await second(spm, **ISO)
    (folder / domain_id / "images/11111111-1111-1111-1111-111111111111/a.iso").write_bytes(b"x")
    other = new_uuid()
    domain = await spm.storage.domains.get(domain_id)
    await domain.change_metadata(lambda _: {"POOL_UUID": other})
    await spm.storage.pool_domains.attach(spm.pool_id, domain_id)
    assert decoder.decode(folder / domain_id).fields["POOL_UUID"] == f"{other},{spm.pool_id}"
    await spm.storage.pool_domains.activate(spm.pool_id, domain_id)
    await until(lambda: spm.storage.repo_stats([domain_id])[domain_id]["acquired"])
    link = os.path.join(spm.paths.repository, spm.pool_id, domain_id, "images")
    assert os.listdir(link) == ["11111111-1111-1111-1111-111111111111"]
    await spm.storage.pool_domains.deactivate(spm.pool_id, domain_id)
    await spm.storage.pool_domains.detach(spm.pool_id, domain_id)
    assert decoder.decode(folder / domain_id).fields["POOL_UUID"] == other


async def test_an_iso_domain_is_not_attached_or_detached_without_its_lock(spm):
    domain_id, folder = await second(spm, **ISO)
    lock = folder / domain_id / "dom_md/leases"
    free = lock.read_bytes()
    lock.write_bytes(b"no tag that anybody wrote")
    with pytest.raises((InvalidContent, RemoteError), match="its tag is"):
        await spm.storage.pool_domains.attach(spm.pool_id, domain_id)
    lock.write_bytes(free)
    assert decoder.decode(folder / domain_id).fields["POOL_UUID"] == ""
    await spm.storage.pool_domains.attach(spm.pool_id, domain_id)
    lock.write_bytes(b"no tag that anybody wrote")
    with pytest.raises((InvalidContent, RemoteError), match="its tag is"):
        await spm.storage.pool_domains.detach(spm.pool_id, domain_id)
    lock.write_bytes(free)
    assert decoder.decode(folder / domain_id).fields["POOL_UUID"] == spm.pool_id


async def test_an_export_domain_has_one_pool_and_gets_a_masters_folders(spm):
    domain_id, folder = await second(spm, **BACKUP)
    domain = await spm.storage.domains.get(domain_id)
    await domain.change_metadata(lambda _: {"POOL_UUID": new_uuid()})
    with pytest.raises((DomainHasPool, RemoteError), match="pool"):
        await spm.storage.pool_domains.attach(spm.pool_id, domain_id)
    await domain.change_metadata(lambda _: {"POOL_UUID": ""})
    await spm.storage.pool_domains.attach(spm.pool_id, domain_id)
    assert not (folder / domain_id / "master").exists()
    await spm.storage.pool_domains.activate(spm.pool_id, domain_id)
    assert sorted(os.listdir(folder / domain_id / "master")) == ["tasks", "vms"]
    assert version(spm, domain_id, folder) == "0"


async def test_files_of_an_iso_domain_are_listed_by_pattern(spm, monkeypatch):
    domain_id, folder = await second(spm, **ISO)
    top = folder / domain_id / "images/11111111-1111-1111-1111-111111111111"
    (top / "below").mkdir()
    for name, mode in (("Debian.iso", 0o644), ("below/drivers.vfd", 0o644), ("secret.iso", 0o600)):
        (top / name).write_bytes(b"x" * 10)
        (top / name).chmod(mode)
    (top / "link.iso").symlink_to("/etc/passwd")
    stats = spm.storage.iso_files

    async def names(pattern, *, case_sensitive=True):
        return sorted(await stats.matching(domain_id, pattern, case_sensitive=case_sensitive))

    assert await names("*") == ["Debian.iso", "below/drivers.vfd", "secret.iso"]
    assert await names("debian.*") == []
    assert await names("debian.*", case_sensitive=False) == ["Debian.iso"]
    found = await stats.matching(domain_id, "*", case_sensitive=True)
    assert found["Debian.iso"].file.size == 10
    assert await stats.matching(spm.domain_id, "*", case_sensitive=True) == {}
    monkeypatch.setattr(stats, "_qemu_users", [Identity("qemu", 4_000_000_001, frozenset({36}))])
    found = await stats.matching(domain_id, "*.iso", case_sensitive=True)
    assert {name: iso.readable for name, iso in found.items()} == {"Debian.iso": True, "secret.iso": False}
