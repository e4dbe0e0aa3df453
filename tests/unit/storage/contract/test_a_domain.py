# SPDX-License-Identifier: GPL-2.0-or-later
"""`Domain`: its metadata, its task store, its health."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from grounds import Ground
from wanted import made, raw

from storage.conversion import ConversionUnsupported
from storage.domain import Domain
from storage.errors import IoFailed
from storage.ondisk.domain_fields import DomainMetadata
from storage.tasks.record import TaskRecord
from storage.tasks.states import State
from storage.tasks.store import TaskStore
from vdsm.common.ids import new_uuid


async def test_a_domain_is_what_its_metadata_says(domain: Domain, ground: Ground) -> None:
    for one in (domain, await ground.open()):
        metadata = await one.read_metadata()
        assert (one.domain_id, one.kind, one.version) == (metadata.domain_id, metadata.kind, metadata.version)
        assert (one.domain_class, one.block_size) == (metadata.domain_class, metadata.block_size)
        assert one.alignment == metadata.alignment == one.lockspace.align == one.sdm_lease.align
        assert one.lockspace.name == one.sdm_lease.lockspace == one.domain_id
        assert one.sdm_lease.resource == "SDM" and one.sdm_lease.offset == one.alignment


async def test_changes_of_the_metadata_made_at_once_lose_nothing(domain: Domain, ground: Ground) -> None:
    await asyncio.gather(
        domain.change_metadata(lambda _: {"DESCRIPTION": "new"}),
        domain.change_metadata(lambda found: {"POOL_UUID": found.description}),
        domain.change_metadata(lambda _: {"MASTER_VERSION": "3"}),
    )
    found = (await (await ground.open()).read_metadata()).fields
    assert (found["DESCRIPTION"], found["POOL_UUID"], found["MASTER_VERSION"]) == ("new", "new", "3")
    changed = await domain.change_metadata(lambda _: {"MASTER_VERSION": None})
    assert "MASTER_VERSION" not in changed.fields
    assert await domain.read_metadata() == changed


async def test_nothing_is_written_when_nothing_changes_or_the_change_is_refused(domain: Domain, ground: Ground) -> None:
    await domain.change_metadata(lambda _: {"DESCRIPTION": "one"})
    written = ground.metadata_version()
    await domain.change_metadata(lambda _: {"DESCRIPTION": "one"})
    await domain.change_metadata(lambda _: {})

    def refuse(found: DomainMetadata) -> Mapping[str, str]:
        raise IoFailed("change", found.domain_id, "EPERM", "refused")

    with pytest.raises(IoFailed, match="refused"):
        await domain.change_metadata(refuse)
    assert ground.metadata_version() == written
    await domain.change_metadata(lambda _: {"DESCRIPTION": "two"})
    assert ground.metadata_version() != written


async def test_a_domain_is_converted_to_later_versions_only(domain: Domain) -> None:
    before = await domain.read_metadata()
    assert not await domain.convert(int(before.version))
    for version in (int(before.version) - 1, 9):
        with pytest.raises(ConversionUnsupported):
            await domain.convert(version)
    assert await domain.read_metadata() == before


async def test_stored_tasks_are_there_for_the_next_spm(domain: Domain, ground: Ground) -> None:
    task = TaskRecord(new_uuid(), "createVolume", State.RUNNING, "/store")
    async with domain.master_files() as folders:
        files = folders.tasks
        store = TaskStore(files)
        assert (await store.load()).tasks == []
        await store.save(task)
    other = await ground.open()
    async with other.master_files() as folders:
        files = folders.tasks
        store = TaskStore(files)
        assert (await store.load()).tasks == [task]
        await store.remove(task.task_id)
        assert await files.listdir() == []


async def test_the_files_of_a_master(domain: Domain) -> None:
    async with domain.master_files() as folders:
        files = folders.tasks
        assert (files.folder[-13:], folders.ovfs.folder[-11:]) == ("/master/tasks", "/master/vms")
        await files.remove_tree("none")
        await files.write_tree("a", {"x": b"1", "y": b"22"})
        await files.write_tree("a", {"y": b"333"})  # in place of the older one
        await files.rename("a", "b")
        await files.sync()
        assert (await files.listdir(), await files.listdir("b")) == (["b"], ["y"])
        assert await files.read("b/y", 3) == b"333"
        for call in (files.read("b/y", 2), files.read("b/x", 9), files.listdir("a"), files.rename("a", "c")):
            with pytest.raises(IoFailed):
                await call
        await files.remove_tree("b")
        assert await files.listdir() == []


async def test_health_is_measured(domain: Domain) -> None:
    assert await domain.probe() > 0
    space = await domain.space()
    assert 0 < space.free <= space.total


async def test_a_domain_of_one_host_has_no_host_ids(domain: Domain) -> None:
    assert await domain.host_id_owner(1) is None
    assert await domain.host_id_owners() == {}


async def test_nothing_of_a_formatted_domain_is_left(domain: Domain, ground: Ground) -> None:
    await made(domain.volumes, raw(new_uuid(), new_uuid()))
    async with domain.master_files() as folders:
        await folders.tasks.write_tree("a", {"x": b"1"})
    await domain.format()
    assert not ground.is_left()
