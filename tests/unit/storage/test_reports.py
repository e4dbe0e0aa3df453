# SPDX-License-Identifier: GPL-2.0-or-later
"""What people ask about storage: a real local pool, and a shared domain whose storage answers, hangs or is bad."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import struct
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from local_world import World

from storage.errors import DomainNotFound, IoFailed, LeaseError
from storage.file.files import METADATA
from storage.leases import HostIdOwner, HostRecord, HostStatus, Lease, Lockspace, Membership, records
from storage.leases.records import Left
from storage.monitor import DomainHealth
from storage.ondisk import domain_fields
from storage.ondisk.crc32c import checksum
from storage.ondisk.values import DomainStatus
from storage.reports import Reports, asking
from storage.spm.control import SpmStatus
from storage.under_way import Step
from tests.undying import undying
from vdsm.api import storage_reports as api
from vdsm.common import groups
from vdsm.common.ids import new_uuid

PAXOS, IMAGE = 0x06152010, "image"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


# A local pool


def agent_of(world: World) -> Any:
    jobs = SimpleNamespace(all=list)
    return cast(Any, SimpleNamespace(agent=SimpleNamespace(storage=world.storage, jobs=jobs)))


async def test_a_pool_is_told_with_its_master_its_domains_and_its_spm(world: World) -> None:
    await until(lambda: world.storage.repo_stats()[world.domain_id]["valid"])
    (pool,) = await api.storage_get_pools(agent_of(world), api.NoParams())
    assert (pool["id"], pool["name"], pool["master"]) == (world.pool_id, "the pool", world.domain_id)
    assert (pool["version"], pool["masterVersion"], pool["hostId"]) == (5, 1, 1)
    assert pool["domains"] == {world.domain_id: "Active"}
    assert (pool["spmStatus"], pool["spmLease"]["hostId"], pool["trouble"]) == ("Free", None, "")


async def test_this_host_is_told_as_spm_with_the_processes_that_keep_the_lease(spm: World) -> None:
    (pool,) = await api.storage_get_pools(agent_of(spm), api.NoParams())
    lease = pool["spmLease"]
    assert (pool["spmStatus"], lease["hostId"], lease["here"], lease["ended"]) == ("SPM", 1, True, False)
    assert lease["pid"] == spm.storage.pool.spm.pid
    assert {int(writer.split()[0]) for writer in lease["writers"]} == {
        member.pid for member in groups.session_members(lease["pid"]) if member.pid != lease["pid"]
    }


async def test_writers_that_outlive_their_spm_process_are_told_as_keeping_its_lease(spm: World) -> None:
    pid = spm.storage.pool.spm.pid
    assert pid is not None
    writer = next(m for m in groups.session_members(pid) if pid not in (m.pid, m.parent))
    with undying(writer.pid) as held:
        await spm.storage.pool.stop_spm(spm.pool_id)
        ((told,),) = [d["leases"] for d in await api.storage_get_leases(agent_of(spm), api.OfDomain())]
        assert (told["pid"], told["ended"]) == (pid, True)
        assert [writer.split()[0] for writer in told["writers"]] == [str(held.pid)]


async def test_a_domain_is_told_with_who_it_is_how_it_is_and_where(world: World) -> None:
    await until(lambda: world.storage.repo_stats()[world.domain_id]["acquired"])
    (domain,) = await api.storage_get_domains(agent_of(world), api.OfDomain())
    assert (domain["name"], domain["kind"], domain["class"], domain["role"]) == ("name", "LOCALFS", "Data", "Master")
    assert (domain["version"], domain["status"], domain["hostId"]) == (5, "Active", 1)
    assert (domain["server"], domain["trouble"]) == (str(world.folder), "")
    assert domain["mount"].startswith(world.paths.mounts)
    health = domain["health"]
    assert (health["valid"], health["hostIdHeld"], health["code"], health["reason"]) == (True, True, 0, "")
    assert 0 < health["free"] <= health["total"]


async def test_a_domain_of_no_pool_is_told_by_its_metadata(world: World) -> None:
    other = new_uuid()
    await world.create_domain(other, world.top / "second")
    (domain,) = await api.storage_get_domains(agent_of(world), api.OfDomain(domain_id=other))
    assert (domain["status"], domain["health"], domain["pools"], domain["name"]) == (None, None, [], "name")
    assert [d["id"] for d in await api.storage_get_domains(agent_of(world), api.OfDomain())] == [world.domain_id, other]


@pytest.mark.parametrize("verb", [api.storage_get_domains, api.storage_get_hosts, api.storage_get_leases])
async def test_a_domain_that_there_is_not_is_refused(world: World, verb: Any) -> None:
    with pytest.raises(DomainNotFound):
        await verb(agent_of(world), api.OfDomain(domain_id=new_uuid()))


async def test_since_when_a_domain_is_bad_is_told_and_why(world: World) -> None:
    await until(lambda: world.storage.repo_stats()[world.domain_id]["valid"])
    before = time.monotonic()
    world.folder.rename(world.top / "away")
    await until(lambda: not world.storage.repo_stats()[world.domain_id]["valid"])
    await asyncio.sleep(0.5)  # more looks, which find the same
    (domain,) = await api.storage_get_domains(agent_of(world), api.OfDomain())
    assert 0.5 <= domain["health"]["sinceSeconds"] <= time.monotonic() - before
    assert (domain["health"]["valid"], domain["health"]["code"] in (200, 358)) == (False, True)
    assert domain["health"]["reason"]
    assert domain["name"] == "name"  # it was known before


async def test_what_another_host_changed_of_a_domain_is_known_after_the_next_look(world: World) -> None:
    await until(lambda: world.storage.repo_stats()[world.domain_id]["valid"])
    file = world.domain / METADATA
    found = domain_fields.decode(file.read_bytes(), "")
    there = replace(found, fields={**found.fields, "VERSION": "4", "DESCRIPTION": "renamed"})
    temporary = file.with_suffix(".new")
    temporary.write_bytes(domain_fields.encode(there))
    temporary.rename(file)
    await until(lambda: world.storage.repo_stats()[world.domain_id]["version"] == 4)
    (domain,) = await api.storage_get_domains(agent_of(world), api.OfDomain())
    assert (domain["version"], domain["name"]) == (4, "renamed")


async def test_damaged_metadata_makes_no_domain_bad(world: World) -> None:
    await until(lambda: world.storage.repo_stats()[world.domain_id]["valid"])
    (world.domain / METADATA).write_bytes(b"VERSION=5\nSDUUID=x\n_SHA_CKSUM=0\n")
    await asyncio.sleep(0.6)
    stats = world.storage.repo_stats()[world.domain_id]
    assert (stats["valid"], stats["version"]) == (True, 5)


async def test_tasks_are_told_with_how_far_they_are_and_their_end(spm: World) -> None:
    image_id, volume_id = new_uuid(), new_uuid()
    status = await spm.create_volume(image_id, volume_id, format="RAW", allocation="PREALLOCATED")
    told = {task["id"]: task for task in await api.storage_get_tasks(agent_of(spm), api.NoParams())}
    made = told[status["taskID"]]
    assert (made["verb"], made["isDone"], made["failed"], made["result"]) == ("createVolume", True, False, volume_id)
    assert made["progress"] == 100.0


async def test_a_change_that_is_under_way_is_told_with_what_it_is_at(world: World) -> None:
    go = asyncio.Event()
    change = asyncio.create_task(world.storage.under_way.wait("Making it", "about", Step("it writes"), go.wait()))
    await asyncio.sleep(0)
    (told,) = await api.storage_get_tasks(agent_of(world), api.NoParams())
    assert (told["id"], told["kind"], told["verb"], told["state"]) == ("about", "change", "Making it", "it writes")
    assert not told["isDone"]
    go.set()
    await change
    assert await api.storage_get_tasks(agent_of(world), api.NoParams()) == []


# A shared domain


def leader(resource: str, owner: int, generation: int, version: int, timestamp: int) -> bytes:
    head = struct.pack(
        "<IIIIQQQQQ48s48sQQ",
        *(PAXOS, 0x00060002, 0, 512, 0, 2000, owner, generation, version),
        b"d",
        resource.encode(),
        timestamp,
        0,
    )
    record = head[:168]
    return (record + struct.pack("<IHHQQQ", checksum(record), 0, 1, 0, 0, 0)).ljust(4096, b"\0")


class SharedLeases:
    on_storage = True

    def __init__(self) -> None:
        renewed = int(time.monotonic()) - 4
        self.records = [HostRecord(1, 3, HostStatus.LIVE, renewed), HostRecord(2, 1, HostStatus.DEAD, renewed)]
        self.joined = True
        self.error: Exception | None = None

    async def memberships(self) -> list[Membership]:
        if self.error is not None:
            raise self.error
        return [Membership("d", 1, "/ids")] if self.joined else []

    async def hosts(self, space: Any) -> list[HostRecord]:
        return self.records


class SharedDomain:
    domain_id = "d"
    seen = None
    version = 5
    lockspace = Lockspace("d", "/ids", 1 << 20, 512, 10)
    sdm_lease = Lease("d", "SDM", "/leases", 1 << 20, 1 << 20, 512)

    def __init__(self) -> None:
        self.leases = SharedLeases()
        self.owners = {1: HostIdOwner("one", 3, 100), 2: HostIdOwner("two", 1, 100)}
        self.leaders = {"SDM": leader("SDM", 1, 3, 7, 100)}
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0
        self.volumes = self

    async def host_id_owners(self) -> dict[int, HostIdOwner]:
        self.asked += 1
        await self.answers.wait()
        return self.owners

    async def read_leader(self, lease: Lease) -> bytes:
        await self.answers.wait()
        if lease.resource not in self.leaders:
            raise IoFailed("read_direct", lease.path, "ENOENT", "No such file or directory")
        return self.leaders[lease.resource]

    async def by_image(self) -> dict[str, tuple[str, ...]]:
        return {IMAGE: ("held", "free", "gone")}

    async def lease(self, image_id: str, volume_id: str) -> Lease:
        return Lease("d", volume_id, f"/{volume_id}.lease", 0, 1 << 20, 512)


class Shared:
    """One host of a pool with that domain."""

    def __init__(self, leased: str) -> None:
        self.domain = SharedDomain()
        self.health = DomainHealth("d", checked=True)
        pool = SimpleNamespace(
            connected=SimpleNamespace(
                pool_id="p", host_id=1, master_id="d", master_version=1, domains={"d": DomainStatus.ACTIVE}
            ),
            spm=SimpleNamespace(status=SpmStatus.FREE, ended_because=""),
        )

        @contextlib.asynccontextmanager
        async def look(_: str) -> AsyncIterator[SharedDomain]:
            yield self.domain

        domains = SimpleNamespace(opened=lambda _: self.domain, look=look, source=SimpleNamespace(seen=dict))
        monitors = SimpleNamespace(health=lambda: {"d": self.health})
        self.reports = Reports(cast(Any, pool), cast(Any, domains), cast(Any, monitors), leased)


@pytest.fixture
async def shared(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shared]:
    monkeypatch.setattr(asking, "PATIENCE_S", 0.1)
    made = Shared(str(tmp_path))
    yield made
    await made.reports.close()


async def test_hosts_are_told_with_their_names_and_which_one_this_is(shared: Shared) -> None:
    (found,) = await shared.reports.hosts.all()
    one, two = found.hosts
    assert (one.name, one.status, one.generation, one.here) == ("one", HostStatus.LIVE, 3, True)
    assert one.renewed_s is not None
    assert 3 < one.renewed_s < 8
    assert (two.name, two.status, two.here, two.renewed_s) == ("two", HostStatus.DEAD, False, None)
    assert (found.limit_s, found.trouble) == (80, "")


async def test_a_name_of_an_earlier_owner_is_not_told_for_a_host_id(shared: Shared) -> None:
    shared.domain.owners[2] = HostIdOwner("before", 9, 100)
    (found,) = await shared.reports.hosts.all()
    assert [host.name for host in found.hosts] == ["one", ""]


async def test_of_a_lockspace_that_is_not_joined_only_the_records_are_told(shared: Shared) -> None:
    shared.domain.leases.joined = False
    (found,) = await shared.reports.hosts.all()
    assert [(host.name, host.status) for host in found.hosts] == [
        ("one", HostStatus.UNKNOWN),
        ("two", HostStatus.UNKNOWN),
    ]


async def test_storage_that_hangs_is_told_after_the_patience_and_hosts_are_told_from_memory(shared: Shared) -> None:
    await shared.reports.hosts.all()
    shared.domain.answers.clear()
    began = time.monotonic()
    (found,) = await shared.reports.hosts.all()
    assert time.monotonic() - began < 1
    assert "did not answer" in found.trouble
    assert [(host.name, host.status) for host in found.hosts] == [("one", HostStatus.LIVE), ("two", HostStatus.DEAD)]
    (leases,) = await shared.reports.leases.all()
    assert ("did not answer" in leases.trouble, leases.leases) == (True, ())


async def test_who_asks_again_while_storage_hangs_begins_nothing_more_on_it(shared: Shared) -> None:
    shared.domain.answers.clear()
    for _ in range(3):
        await shared.reports.hosts.all()
    assert shared.domain.asked == 1
    shared.domain.answers.set()
    await asyncio.sleep(0)
    assert (await shared.reports.hosts.all())[0].trouble == ""


async def test_storage_that_is_known_to_be_bad_is_not_asked(shared: Shared) -> None:
    shared.health = DomainHealth("d", checked=True, error=IoFailed("read_timed", "/m", "EIO", "Input/output error"))
    (found,) = await shared.reports.hosts.all()
    assert shared.domain.asked == 0
    assert "Input/output error" in found.trouble
    assert [host.status for host in found.hosts] == [HostStatus.LIVE, HostStatus.DEAD]


async def test_a_lock_daemon_that_does_not_answer_is_told_and_names_are_shown(shared: Shared) -> None:
    shared.domain.leases.error = LeaseError("inquire", "all lockspaces", errno.EIO, "its words")
    (found,) = await shared.reports.hosts.all()
    assert "its words" in found.trouble
    assert [host.name for host in found.hosts] == ["one", "two"]


@pytest.mark.parametrize(
    ("owner", "generation", "timestamp", "expected"),
    [
        (1, 3, 100, (1, "one", HostStatus.LIVE, True)),
        (2, 1, 100, (2, "two", HostStatus.DEAD, False)),
        (1, 2, 100, (1, "", HostStatus.DEAD, True)),  # it joined anew since
        (7, 1, 100, (7, "", HostStatus.UNKNOWN, False)),
        (1, 3, 0, (None, "", HostStatus.FREE, False)),
    ],
)
async def test_the_holder_of_a_lease_is_told(
    shared: Shared, owner: int, generation: int, timestamp: int, expected: tuple[Any, ...]
) -> None:
    shared.domain.leaders["SDM"] = leader("SDM", owner, generation, 7, timestamp)
    (found,) = await shared.reports.leases.all()
    (lease,) = found.leases
    assert (lease.host_id, lease.name, lease.status, lease.here) == expected
    assert (lease.version, found.trouble) == (7, "")


async def test_leases_of_volumes_are_told_of_a_named_domain_when_they_are_held(shared: Shared) -> None:
    shared.domain.leaders |= {"held": leader("held", 2, 1, 5, 100), "free": leader("free", 2, 1, 5, 0)}
    found = await shared.reports.leases.of("d", volumes=True)
    assert [(lease.resource, lease.image_id, lease.host_id) for lease in found.leases] == [
        ("SDM", "", 1),
        ("held", IMAGE, 2),
    ]


async def test_no_more_leases_of_volumes_are_read_than_is_cheap(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.domain.leaders |= {"held": leader("held", 2, 1, 5, 100)}  # the last by its name
    monkeypatch.setattr("storage.reports.leases.MOST_VOLUMES", 1)
    found = await shared.reports.leases.of("d", volumes=True)
    assert ([lease.resource for lease in found.leases], found.unread) == (["SDM"], 2)


async def test_an_spm_that_is_another_host_is_told_by_the_masters_lease(shared: Shared) -> None:
    shared.domain.leaders["SDM"] = leader("SDM", 2, 1, 7, 100)
    (pool,) = await shared.reports.pools.all()
    assert pool.lease is not None
    assert (pool.role, pool.lease.host_id, pool.lease.name) == (SpmStatus.FREE, 2, "two")


async def test_an_spm_that_nobody_can_read_is_not_told_as_nobody(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.domain.answers.clear()
    monkeypatch.setattr(records, "left", lambda *_: Left(7, ()))
    (pool,) = await shared.reports.pools.all()
    assert (pool.lease, "did not answer" in pool.trouble) == (None, True)
