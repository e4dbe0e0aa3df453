# SPDX-License-Identifier: GPL-2.0-or-later
"""The master's role goes to another domain, and what a death in the middle leaves is one whole pool."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from inside import Spm
from local_world import World

from storage.file.io import FileIo
from storage.ondisk.values import DomainStatus
from storage.pool_master import ConnectedPool
from storage.spm.control import SpmStatus
from storage.spm.errors import (
    DomainHasPool,
    DomainNotActive,
    DomainNotInPool,
    NotSpm,
    PoolConnected,
    WrongMaster,
)
from vdsm.common.errors import DeadlineExceeded
from vdsm.common.ids import new_uuid


class Second:
    """An active domain of the world's pool beside the master."""

    def __init__(self, world: World, domain_id: str) -> None:
        self.world = world
        self.domain_id = domain_id
        self.path = world.top / "second" / domain_id


@pytest.fixture
async def second(spm: World) -> Second:
    found = Second(spm, new_uuid())
    await spm.create_domain(found.domain_id, spm.top / "second")
    await spm.storage.pool_domains.attach(spm.pool_id, found.domain_id)
    await spm.storage.pool_domains.activate(spm.pool_id, found.domain_id)
    return found


def _fields(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (path / "dom_md" / "metadata").read_text().splitlines())


def _tasks(path: Path) -> list[str]:
    return sorted(os.listdir(path / "master" / "tasks"))


async def _switch(world: World, second: Second, version: int = 2) -> dict[str, object]:
    ids = (world.pool_id, world.domain_id, second.domain_id)
    return await world.finish(await world.storage.pool_domains.switch_master(*ids, version))


async def _ended_task(world: World) -> str:
    task_id = await world.start_volume(new_uuid(), new_uuid())
    await world.finish(task_id)
    return task_id


async def test_the_role_goes_over_with_all_that_is_stored(spm: World, second: Second) -> None:
    ovf = spm.domain / "master" / "vms" / "a-vm" / "a-vm.ovf"
    ovf.parent.mkdir()
    ovf.write_bytes(b"<ovf/>" * 1000)
    task_id = await _ended_task(spm)
    assert (await _switch(spm, second))["taskResult"] == "success"
    assert (_fields(spm.domain)["ROLE"], _fields(second.path)["ROLE"]) == ("Regular", "Master")
    assert (second.path / "master/vms/a-vm/a-vm.ovf").read_bytes() == b"<ovf/>" * 1000
    assert task_id in _tasks(second.path)
    assert (_tasks(spm.domain), os.listdir(spm.domain / "master" / "vms")) == ([], [])
    connected = spm.storage.pool.connected
    assert connected is not None
    assert (connected.master_id, connected.master_version) == (second.domain_id, 2)
    assert os.path.samefile(f"{spm.paths.repository}/{spm.pool_id}/mastersd", second.path)


async def test_the_next_spm_finds_the_tasks_on_the_new_master(spm: World, second: Second) -> None:
    before = await _ended_task(spm)
    await _switch(spm, second)
    after = await _ended_task(spm)
    await spm.storage.pool.stop_spm(spm.pool_id)
    assert (await spm.become_spm())["taskResult"] == "success"
    told = {
        task["taskID"]: task["taskResult"]
        for task in await spm.storage.tasks.of_spm()
        if task["verb"] != "switchMaster"
    }
    assert told == {before: "success", after: "success"}


async def test_the_lease_of_the_new_master_alone_is_held(spm: World, second: Second) -> None:
    await _switch(spm, second)
    report = await spm.storage.pool.spm_report(spm.pool_id)
    assert (report.status, report.host_id) == (SpmStatus.SPM, 1)
    async with asyncio.timeout(10):  # another process gets the old one's
        await spm.storage.pool_domains.deactivate(spm.pool_id, spm.domain_id)
        await spm.storage.pool_domains.detach(spm.pool_id, spm.domain_id)
        _edit(spm.domain, "POOL_UUID=\n", f"POOL_UUID={new_uuid()}\n")  # one that nobody knows: it is freed of it
        await spm.storage.forced_detach.free(spm.domain_id)
    assert _fields(spm.domain)["POOL_UUID"] == ""


async def test_an_active_master_is_deactivated_by_naming_its_successor(spm: World, second: Second) -> None:
    await spm.storage.pool_domains.deactivate(spm.pool_id, spm.domain_id, second.domain_id, 2)
    connected = spm.storage.pool.connected
    assert connected is not None
    assert connected.master_id == second.domain_id
    assert connected.domains == {spm.domain_id: DomainStatus.ATTACHED, second.domain_id: DomainStatus.ACTIVE}
    assert spm.domain_id not in spm.storage.repo_stats()


async def test_a_master_without_a_successor_stays_active(spm: World) -> None:
    await spm.storage.pool_domains.deactivate(spm.pool_id, spm.domain_id)
    assert spm.storage.pool.connected is not None
    assert spm.storage.pool.connected.domains == {spm.domain_id: DomainStatus.ACTIVE}


async def test_a_map_on_the_master_goes_along_with_its_version(spm: World, second: Second) -> None:
    pool = spm.storage.pool
    await pool.stop_spm(spm.pool_id)
    await pool.disconnect(spm.pool_id)
    await pool.connect(spm.pool_id, 1, spm.domain_id, 1, None)
    await spm.become_spm()
    await spm.storage.pool_domains.attach(spm.pool_id, second.domain_id)
    await spm.storage.pool_domains.activate(spm.pool_id, second.domain_id)
    assert (await _switch(spm, second, 5))["taskResult"] == "success"
    found = _fields(second.path)
    assert found["MASTER_VERSION"] == "5"
    assert found["POOL_DESCRIPTION"] == "the pool"
    assert sorted(found["POOL_DOMAINS"].split(",")) == sorted([f"{spm.domain_id}:Active", f"{second.domain_id}:Active"])
    assert _fields(spm.domain)["MASTER_VERSION"] == "0"


async def test_a_move_that_makes_no_sense_is_refused(spm: World, second: Second) -> None:
    domains, ids = spm.storage.pool_domains, (spm.pool_id, spm.domain_id)
    for old, new, version, refusal in (
        (second.domain_id, spm.domain_id, 2, WrongMaster),
        (spm.domain_id, second.domain_id, 1, WrongMaster),
        (spm.domain_id, new_uuid(), 2, DomainNotInPool),
        (spm.domain_id, spm.domain_id, 2, DomainNotInPool),
    ):
        with pytest.raises(refusal):
            await domains.switch_master(spm.pool_id, old, new, version)
    await domains.deactivate(spm.pool_id, second.domain_id)
    with pytest.raises(DomainNotActive):
        await domains.switch_master(*ids, second.domain_id, 2)
    assert _fields(spm.domain)["ROLE"] == "Master"


async def test_only_the_spm_moves_the_master(world: World) -> None:
    other = new_uuid()
    domains = {world.domain_id: DomainStatus.ACTIVE, other: DomainStatus.ACTIVE}
    await world.storage.pool.connect(world.pool_id, 1, world.domain_id, 1, domains)
    with pytest.raises(NotSpm):
        await world.storage.pool_domains.switch_master(world.pool_id, world.domain_id, other, 2)


async def test_a_new_master_of_an_older_format_is_converted(spm: World) -> None:
    old = Second(spm, new_uuid())
    await spm.create_domain(old.domain_id, spm.top / "second", version=4)
    await spm.storage.pool_domains.attach(spm.pool_id, old.domain_id)
    domains = {spm.domain_id: DomainStatus.ACTIVE, old.domain_id: DomainStatus.ACTIVE}
    await spm.storage.pool.connect(spm.pool_id, 1, spm.domain_id, 1, domains)
    assert _fields(old.path)["VERSION"] == "4"
    assert (await _switch(spm, old))["taskResult"] == "success"
    assert (_fields(old.path)["VERSION"], _fields(old.path)["ROLE"]) == ("5", "Master")


async def test_a_new_master_that_cannot_be_written_leaves_the_old_one(spm: World, second: Second) -> None:
    task_id = await _ended_task(spm)
    (second.path / "master").write_text("in the way")
    assert (await _switch(spm, second))["taskResult"] == "cleanSuccess"
    assert (_fields(spm.domain)["ROLE"], _fields(second.path)["ROLE"]) == ("Master", "Regular")
    assert task_id in _tasks(spm.domain)
    (second.path / "master").unlink()
    assert (await _switch(spm, second))["taskResult"] == "success"


def _edit(path: Path, old: str, new: str) -> None:
    """By hand: without its checksum."""
    metadata = path / "dom_md" / "metadata"
    lines = metadata.read_text().replace(old, new).splitlines(keepends=True)
    metadata.write_text("".join(line for line in lines if not line.startswith("_SHA")))


async def test_an_agent_that_does_not_answer_keeps_no_master_half_moved(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, second = inside.world, Second(inside.world, new_uuid())
    await world.create_domain(second.domain_id, world.top / "second")
    _edit(second.path, "POOL_UUID=\n", f"POOL_UUID={world.pool_id}\n")

    async def deaf(_domain_id: str, _version: int) -> None:
        raise DeadlineExceeded("master.moved", 30.0)

    monkeypatch.setattr(inside.agent, "master_moved", deaf)
    task_id = await inside.create(new_uuid(), new_uuid())
    await inside.serve("master.move", {"domain_id": second.domain_id, "version": 2, "map_on_master": False})
    assert (_fields(world.domain)["ROLE"], _fields(second.path)["ROLE"]) == ("Regular", "Master")
    assert (_tasks(world.domain), _tasks(second.path)) == ([], [task_id])


async def test_whichever_master_counts_holds_every_task_before_each_request(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever dies there, or loses the storage, leaves this."""
    world, second = inside.world, Second(inside.world, new_uuid())
    await world.create_domain(second.domain_id, world.top / "second")
    _edit(second.path, "POOL_UUID=\n", f"POOL_UUID={world.pool_id}\n")
    task_id = await inside.create(new_uuid(), new_uuid())
    ask = FileIo._ask
    seen: list[tuple[str, str]] = []

    async def looked(io: FileIo, *args: object, **params: object) -> object:
        roles = (_fields(world.domain)["ROLE"], _fields(second.path)["ROLE"])
        for path, role in zip((world.domain, second.path), roles, strict=True):
            # where both say so, the engine may name either
            assert role == "Regular" or task_id in _tasks(path), roles
        seen.append(roles)
        return await ask(io, *args, **params)

    monkeypatch.setattr(FileIo, "_ask", looked)
    await inside.serve("master.move", {"domain_id": second.domain_id, "version": 2, "map_on_master": False})
    assert list(dict.fromkeys(seen)) == [("Master", "Regular"), ("Master", "Master"), ("Regular", "Master")]


async def test_an_activated_domain_is_no_leftover_master(spm: World, second: Second) -> None:
    await spm.storage.pool_domains.deactivate(spm.pool_id, second.domain_id)
    _edit(second.path, "ROLE=Regular", "ROLE=Master")
    await spm.storage.pool_domains.activate(spm.pool_id, second.domain_id)
    assert _fields(second.path)["ROLE"] == "Regular"
    assert _fields(spm.domain)["ROLE"] == "Master"


async def test_whoever_becomes_spm_puts_back_a_leftover_master(spm: World, second: Second) -> None:
    """However long ago this host saw that the domain is well. Its tasks are copies, or were never seen."""
    task_id = await _ended_task(spm)
    (second.path / "master" / "tasks").mkdir(parents=True)
    _leave_task(spm, task_id, second.path)
    await spm.storage.pool.stop_spm(spm.pool_id)
    _edit(second.path, "ROLE=Regular", "ROLE=Master")
    await spm.become_spm()
    async with asyncio.timeout(10):
        while _fields(second.path)["ROLE"] != "Regular" or _tasks(second.path):
            await asyncio.sleep(0.01)
    assert _fields(spm.domain)["ROLE"] == "Master"


# A master that is lost


def _wanted(world: World, master_id: str) -> ConnectedPool:
    domains = {world.domain_id: DomainStatus.ATTACHED, master_id: DomainStatus.ACTIVE}
    return ConnectedPool(world.pool_id, 1, master_id, 7, domains, True)


async def _lost(world: World, second: Second) -> None:
    await world.storage.pool.stop_spm(world.pool_id)
    await world.storage.pool.disconnect(world.pool_id)
    (world.domain / "dom_md").rename(world.domain / "away")


async def test_a_pool_is_made_anew_on_another_of_its_domains(spm: World, second: Second) -> None:
    await _lost(spm, second)
    await spm.storage.new_pools.reconstruct(_wanted(spm, second.domain_id), "again", {"LOCKPOLICY": "ON"})
    found = _fields(second.path)
    assert (found["ROLE"], found["MASTER_VERSION"], found["POOL_DESCRIPTION"]) == ("Master", "7", "again")
    assert sorted(found["POOL_DOMAINS"].split(",")) == sorted(
        [f"{spm.domain_id}:Attached", f"{second.domain_id}:Active"]
    )
    assert (found["POOL_SPM_ID"], found["LOCKPOLICY"]) == ("-1", "ON")
    await spm.storage.pool.connect(spm.pool_id, 1, second.domain_id, 7, None)
    assert (await spm.become_spm())["taskResult"] == "success"


def _leave_task(spm: World, task_id: str, path: Path) -> None:
    """Of a creation that runs still, as far as this domain knows."""
    left = path / "master" / "tasks" / task_id
    shutil.copytree(spm.domain / "master" / "tasks" / task_id, left)
    for file in left.iterdir():
        file.write_bytes(file.read_bytes().replace(b"state = finished", b"state = running"))


async def test_a_master_that_is_made_anew_undoes_nothing_of_an_earlier_time(spm: World, second: Second) -> None:
    image = new_uuid()
    task_id = await spm.start_volume(image, new_uuid(), domain_id=second.domain_id)
    await spm.finish(task_id)
    (second.path / "master" / "tasks").mkdir(parents=True)
    _leave_task(spm, task_id, second.path)
    await _lost(spm, second)
    await spm.storage.new_pools.reconstruct(_wanted(spm, second.domain_id), "again", {})
    await spm.storage.pool.connect(spm.pool_id, 1, second.domain_id, 7, None)
    assert (await spm.become_spm())["taskResult"] == "success"
    assert await spm.storage.tasks.of_spm() == []
    assert await spm.storage.volumes.images(second.domain_id) == [image]


async def test_a_master_that_is_made_anew_on_itself_keeps_its_tasks(spm: World) -> None:
    task_id = await _ended_task(spm)
    await spm.storage.pool.stop_spm(spm.pool_id)
    await spm.storage.pool.disconnect(spm.pool_id)
    wanted = ConnectedPool(spm.pool_id, 1, spm.domain_id, 7, {spm.domain_id: DomainStatus.ACTIVE}, True)
    await spm.storage.new_pools.reconstruct(wanted, "again", {})
    assert _tasks(spm.domain) == [task_id]


async def test_a_new_pool_undoes_nothing_of_an_earlier_one(spm: World, second: Second) -> None:
    task_id = await _ended_task(spm)
    (second.path / "master" / "tasks").mkdir(parents=True)
    _leave_task(spm, task_id, second.path)
    await spm.storage.pool_domains.deactivate(spm.pool_id, second.domain_id)
    await spm.storage.pool_domains.detach(spm.pool_id, second.domain_id)
    await spm.storage.pool.stop_spm(spm.pool_id)
    await spm.storage.pool.disconnect(spm.pool_id)
    await spm.storage.new_pools.create(new_uuid(), "new", second.domain_id, 1, [second.domain_id], {})
    assert _tasks(second.path) == []


async def test_a_pool_is_made_anew_by_a_host_that_is_in_none(spm: World, second: Second) -> None:
    with pytest.raises(PoolConnected):
        await spm.storage.new_pools.reconstruct(_wanted(spm, second.domain_id), "again", {})
    assert _fields(second.path)["ROLE"] == "Regular"


async def test_the_domain_of_another_pool_is_no_new_master(spm: World, second: Second) -> None:
    await _lost(spm, second)
    wanted = ConnectedPool(new_uuid(), 1, second.domain_id, 7, {second.domain_id: DomainStatus.ACTIVE}, True)
    with pytest.raises(DomainHasPool):
        await spm.storage.new_pools.reconstruct(wanted, "thief", {})
    assert _fields(second.path)["ROLE"] == "Regular"
