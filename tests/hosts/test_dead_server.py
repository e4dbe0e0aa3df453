# SPDX-License-Identifier: GPL-2.0-or-later
"""A storage server that answers nothing while each verb of storage is under way, in one window.

Two hosts see it: one is SPM of a pool whose master is well, one is in no pool.
The server is a file system in user space below their file systems (`contrib.lab.faulty_disk`): reads and writes hang in
the kernel, and never fail. What each verb may take is in docs/storage.md; R is there what `[irs] process_pool_timeout`
says, which is short here, and the default in `make soak`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from life_flows import faulty_disk
from storage_flows import image_params, join, new_id, new_volume, run_task, until_no_orphans, volume_params

from contrib.lab import engine, faults, vm_xml
from contrib.lab.host import PrivateHost
from tests.decoder import domain as decoder
from tests.failure_logs import watched
from tests.soak import SOAK
from vdsm.client import Client, ClientError, RpcError

R = 60.0 if SOAK else 6.0
SETTINGS = f"\n[irs]\nsd_health_check_delay = 1\nprocess_pool_timeout = {R:g}\n"
MOUNTS = "/rhev/data-center/mnt"
SLACK_S = 10.0
"""Starts of processes on a machine that does other work."""

LOOK_S = 10.0
LOCK_S = 60.0
LOST_LEASE_S = 60.0
"""A question to the lock daemon."""

MOUNT_S = 100.0

PATIENT_S = 200.0
OTHERS_S = 1.0
"""Of verbs about other domains: 49 of 50, and none `WAITS_S`."""
WAITS_S = 3.0
"""Who waits for the server waits for R at least: twice as long."""


@dataclass(frozen=True)
class Call:
    """``limit_s``: to the answer, of a task to its end. ``names``: what an error says, empty: it succeeds."""

    verb: str
    params: dict[str, Any]
    limit_s: float
    names: Sequence[str] = ()
    task: bool = False

    def __str__(self) -> str:
        return self.verb


@dataclass
class Outcome:
    call: Call
    seconds: float
    answer: Any = None
    error: str = ""

    def check(self) -> str:
        """What is wrong with it; empty when nothing is."""
        if self.seconds > self.call.limit_s + SLACK_S:
            return f"{self.call} took {self.seconds:.1f} s, at most {self.call.limit_s:g} are promised: {self.error}"
        missing = [name for name in self.call.names if not re.search(name, self.error)]
        if missing or (self.error and not self.call.names):
            return f"{self.call} ({self.seconds:.1f} s): {self.error or self.answer!r} does not say {missing}"
        return ""


@dataclass
class Place:
    """One export of the server."""

    name: str
    connection: dict[str, str]
    domain_id: str = ""
    images: list[engine.Volume] = field(default_factory=list)

    @property
    def ids(self) -> dict[str, str]:
        return {"storagedomainID": self.domain_id}

    @property
    def told(self) -> tuple[str, str]:
        """The domain, and where it lies."""
        return self.domain_id, rf"_srv_{self.name}\.img|/srv/{self.name}\.img"


class Server:
    """Exports of one host, which hang together."""

    def __init__(self, host: PrivateHost, stack: contextlib.ExitStack, *names: str) -> None:
        self.host = host
        self.behave: list[Callable[[str], None]] = []
        self.places: dict[str, Place] = {}
        for name in names:
            path = make(host, name)
            self.behave.append(stack.enter_context(faulty_disk(host, path)))
            self.places[name] = Place(name, engine.posix_connection(path))

    def __getitem__(self, name: str) -> Place:
        return self.places[name]

    def all(self, word: str) -> None:
        for behave in self.behave:
            behave(word)


def make(host: PrivateHost, name: str) -> str:
    path = f"/srv/{name}.img"
    host.run(["truncate", "-s", "256M", path])
    host.run(["mkfs.ext4", "-q", "-F", "-E", "root_owner=36:36", path])
    return path


async def ask(client: Client, call: Call) -> Outcome:
    began = time.monotonic()
    outcome = Outcome(call, 0.0)
    try:
        outcome.answer = await client.call(call.verb, call.params, timeout_s=PATIENT_S)
        if call.task:
            status = await ended(client, outcome.answer)
            outcome.error = "" if status["taskResult"] == "success" else status["message"]
            await client.call("Task.clear", {"taskID": outcome.answer}, timeout_s=PATIENT_S)
        elif call.verb.endswith("StorageServer"):
            outcome.error = "; ".join(answer.get("reason", "") for answer in outcome.answer)
    except RpcError as e:
        outcome.error = str(e)
    outcome.seconds = time.monotonic() - began
    return outcome


async def ended(client: Client, task_id: str) -> dict[str, Any]:
    async def look() -> Any:
        status = await client.call("Task.getStatus", {"taskID": task_id}, timeout_s=PATIENT_S)
        return status if status["taskState"] == "finished" else None

    status: dict[str, Any] = await engine.until(f"task {task_id}", look, timeout_s=PATIENT_S)
    return status


async def metrics(host: PrivateHost, *lines: str) -> list[float]:
    """Of one moment."""
    connector = aiohttp.UnixConnector(path=host.outer_socket("/run/vdsm/vdsm.sock"))
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://agent/metrics") as answer:
        text = await answer.text()
    found = dict(line.rpartition(" ")[::2] for line in text.splitlines())
    return [float(found[line]) for line in lines]


async def late_turns(host: PrivateHost) -> float:
    """How often the agent's loop was over 250 ms late."""
    every, in_time = await metrics(host, "vdsm_loop_lag_seconds_count", 'vdsm_loop_lag_seconds_bucket{le="0.25"}')
    return every - in_time


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[PrivateHost]]:
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(PrivateHost(settings=SETTINGS)) for _ in range(count)]
        stack.enter_context(watched(*made))
        yield made


async def make_domain(client: Client, place: Place) -> None:
    place.domain_id = await engine.create_domain(client, engine.POSIXFS, place.connection, place.name)


async def attach(client: Client, pool_id: str, place: Place, *, active: bool = True) -> None:
    ids = {**place.ids, "storagepoolID": pool_id}
    await client.call("StorageDomain.attach", ids, timeout_s=60)
    if active:
        await client.call("StorageDomain.activate", ids, timeout_s=60)


async def make_images(client: Client, pool_id: str, place: Place, count: int) -> None:
    there = engine.Pool(pool_id, place.domain_id, engine.POSIXFS, place.connection)
    for _ in range(count):
        place.images.append(new_volume(there))
        await run_task(client, "Volume.create", volume_params(place.images[-1]))


class Window:
    """Verbs of other domains, again and again, for as long as the server hangs."""

    def __init__(self, host: PrivateHost, calls: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self._host = host
        self._calls = calls
        self.took: list[tuple[float, str]] = []
        self.rounds = 0

    async def run(self) -> None:
        async with self._host.client() as client:
            while True:
                for verb, params in self._calls:
                    began = time.monotonic()
                    await client.call(verb, params, timeout_s=PATIENT_S)
                    self.took.append((time.monotonic() - began, verb))
                self.rounds += 1
                await asyncio.sleep(0.2)


def without_volume(volume: engine.Volume) -> dict[str, str]:
    return {key: value for key, value in volume.ids.items() if key != "volumeID"}


def reads(place: Place) -> list[Call]:
    """One request, or its wait."""
    here, volume = place.ids, place.images[0].ids
    asked: list[tuple[str, dict[str, Any]]] = [
        ("StorageDomain.getInfo", here),
        ("StorageDomain.validate", here),
        ("StorageDomain.getImages", here),
        ("StorageDomain.getVolumes", here),
        ("StorageDomain.getFileStats", {**here, "pattern": "*", "caseSensitive": False}),
        ("Image.getVolumes", without_volume(place.images[0])),
        ("Image.prepare", place.images[0].ids),
        ("Volume.getInfo", volume),
        ("Volume.getSize", volume),
        ("Volume.getQemuImageInfo", volume),
        ("Volume.measure", {**volume, "dstVolFormat": 4}),
    ]
    return [Call(verb, params, R, place.told) for verb, params in asked]


def changes(place: Place, new: engine.Volume) -> list[Call]:
    """By the SPM process: a lock at most, then a request."""
    _, second, third, fourth, fifth, *_ = place.images
    removing = {"postZero": "false", "force": "false"}
    return [
        Call("StorageDomain.setDescription", {**place.ids, "description": "new"}, R, place.told),
        Call("Volume.setDescription", {**fifth.ids, "description": "new"}, R + LOCK_S, place.told),
        Call("Volume.setLegality", {**fifth.ids, "legality": "LEGAL"}, R + LOCK_S, place.told),
        Call("Volume.create", volume_params(new), R, place.told, task=True),
        Call("Volume.delete", {**third.ids, **removing}, R + LOST_LEASE_S, (place.domain_id,), task=True),
        Call("Image.delete", image_params(second), R, place.told, task=True),
        Call(
            "Image.deleteVolumes",
            {**without_volume(fourth), "volumeList": [fourth.volume_id], **removing},
            R + LOST_LEASE_S,
            (place.domain_id,),
            task=True,
        ),
    ]


def comings(server: Server, pool_id: str, master_id: str) -> list[Call]:
    """Domains that come to a pool whose master is well, and go."""

    def of(name: str) -> dict[str, str]:
        return {**server[name].ids, "storagepoolID": pool_id}

    switch = {"oldMasterUUID": master_id, "newMasterUUID": server["target"].domain_id, "masterVersion": 2}
    new = {"storagedomainID": new_id(), "domainType": engine.POSIXFS, "name": "x", "domainClass": 1, "version": "5"}
    place = {"typeArgs": server["empty"].connection["connection"]}
    connecting = {"storagepoolID": engine.BLANK, "domainType": engine.POSIXFS}
    mounting = Call(
        "StoragePool.connectStorageServer",
        {**connecting, "connectionParams": [server["new"].connection]},
        MOUNT_S,
        (r"/srv/new\.img",),
    )
    return [
        *([mounting] if SOAK else []),
        Call("StorageDomain.attach", of("free"), R + 30, server["free"].told),
        Call("StorageDomain.detach", of("attached"), R, server["attached"].told),
        Call("StorageDomain.activate", of("inactive"), R, server["inactive"].told),
        Call("StorageDomain.deactivate", of("leaving"), 30),
        Call("StorageDomain.detach", {**of("lost"), "force": True}, 30),
        Call("StoragePool.switchMaster", {"storagepoolID": pool_id, **switch}, R, server["target"].told),
        Call(
            "StorageDomain.create",
            {**new, **place},
            R + LOOK_S,
            (str(new["storagedomainID"]), r"/srv/empty\.img|_srv_empty\.img"),
        ),
        Call("StoragePool.upgrade", {"storagepoolID": pool_id, "targetDomVersion": 5}, R),
    ]


def from_memory(pool_id: str) -> list[Call]:
    """What needs no storage, or none of what hangs."""
    return [
        Call("StoragePool.getInfo", {"storagepoolID": pool_id}, 1),
        Call("StoragePool.getSpmStatus", {"storagepoolID": pool_id}, 1),
        Call("Host.getStorageRepoStats", {}, 1),
        Call("Host.getStats", {}, 1),
        Call("Host.getAllTasksStatuses", {}, 1),
        Call("Host.getStorageDomains", {}, LOOK_S + 20),
    ]


def of_no_pool(server: Server, pool_id: str) -> list[Call]:
    ids = {"storagepoolID": pool_id, "masterSdUUID": server["master"].domain_id, "masterVersion": 1}
    timeouts = {"lockRenewalIntervalSec": 5, "leaseTimeSec": 60, "ioOpTimeoutSec": 10, "leaseRetries": 3}
    master, second, gone = server["master"].told, server["second"].told, server["gone"]
    return [
        Call(
            "StoragePool.connect",
            {**ids, "hostID": 1, "scsiKey": "k", "domainDict": {server["master"].domain_id: "active"}},
            R,
            (pool_id, *master),
        ),
        Call(
            "StoragePool.create",
            {
                "storagepoolID": new_id(),
                "name": "n",
                "masterSdUUID": second[0],
                "masterVersion": 1,
                "domainList": [second[0]],
                **timeouts,
            },
            2 * R + 30,
            second,
        ),
        Call("StorageDomain.detach", {**gone.ids, "storagepoolID": engine.BLANK, "force": True}, R, gone.told),
        Call("StorageDomain.format", server["old"].ids, R, server["old"].told),
    ]


@pytest.mark.cost(80)
@pytest.mark.timeout(1200 if SOAK else 300)
async def test_no_verb_waits_longer_than_promised_for_a_server_that_hangs_and_all_goes_on_when_it_is_back() -> None:
    with hosts(2) as (spm, alone), contextlib.ExitStack() as stack:
        names = ("used", "free", "attached", "inactive", "leaving", "lost", "target", "empty", "new")
        server = Server(spm, stack, *names)
        other = Server(alone, stack, "master", "second", "gone", "old")
        good = Place("good", engine.posix_connection(make(spm, "good")))
        spm.start_agent()
        alone.start_agent()
        async with spm.client() as client, alone.client() as lonely:
            pool = await engine.new_pool(client)
            made = ("used", "free", "attached", "inactive", "leaving", "lost", "target")
            await asyncio.gather(
                *(make_domain(client, place) for place in (good, *(server[name] for name in made))),
                *(make_domain(lonely, place) for place in other.places.values()),
            )
            lost_pool = await engine.create_pool(lonely, other["master"].domain_id)
            await asyncio.gather(
                *(
                    attach(client, pool.pool_id, place)
                    for place in (good, *(server[n] for n in ("used", "leaving", "target")))
                ),
                *(attach(client, pool.pool_id, server[n], active=False) for n in ("attached", "inactive", "lost")),
                engine.connect_server(client, engine.POSIXFS, server["empty"].connection),
            )
            await asyncio.gather(
                make_images(client, pool.pool_id, good, 3), make_images(client, pool.pool_id, server["used"], 6)
            )
            used, ids = server["used"], {"storagepoolID": pool.pool_id}
            vm = vm_xml.Vm(new_id(), "waits", memory_mib=32, disks=(used.images[5].disk(),))
            watched_calls: list[tuple[str, dict[str, Any]]] = [
                ("StorageDomain.getInfo", good.ids),
                ("StorageDomain.getStats", good.ids),
                ("StorageDomain.getImages", good.ids),
                ("StorageDomain.activate", {**good.ids, **ids}),
                ("Volume.getInfo", good.images[0].ids),
                ("Volume.setDescription", {**good.images[0].ids, "description": "x"}),
                ("Image.prepare", good.images[1].ids),
                ("Image.teardown", without_volume(good.images[1])),
                ("StoragePool.getSpmStatus", ids),
                ("storage.getLocks", {}),
            ]
            others, late = Window(spm, watched_calls), await late_turns(spm)
            calls = [
                *reads(used),
                *changes(used, new_volume(engine.Pool(pool.pool_id, used.domain_id, 6, used.connection))),
                *comings(server, pool.pool_id, pool.domain_id),
                *from_memory(pool.pool_id),
            ]
            server.all("hang")
            other.all("hang")
            watching = asyncio.create_task(others.run())
            await engine.create_vm(client, vm)
            outcomes = await asyncio.gather(
                *(ask(client, call) for call in calls), *(ask(lonely, call) for call in of_no_pool(other, lost_pool))
            )
            destroyed = await ask(client, Call("VM.destroy", {"vmID": vm.vm_id}, R))
            watching.cancel()
            for outcome in sorted(outcomes, key=lambda one: -one.seconds):
                print(f"{outcome.seconds:6.1f} s of {outcome.call.limit_s:g}: {outcome.call} {outcome.error[:150]}")
            assert [wrong for one in (*outcomes, destroyed) if (wrong := one.check())] == []
            took = sorted(others.took)
            print(f"{len(took)} verbs about other domains, the slowest: {took[-3:]}")
            assert took[-1] < (WAITS_S, "")
            assert took[len(took) * 49 // 50] < (OTHERS_S, "")
            assert others.rounds > 3
            assert await late_turns(spm) == late

            server.all("well")
            other.all("well")
            await goes_on(spm, client, pool, server, good)


async def goes_on(host: PrivateHost, client: Client, pool: engine.Pool, server: Server, good: Place) -> None:
    """Without a restart: the same verbs succeed, and nothing of what failed is left."""
    used = server["used"]

    async def well() -> bool:
        stats = await client.call("Host.getStorageRepoStats", {})
        return all(stats[place.domain_id]["valid"] for place in (used, server["target"], good))

    await engine.until("the domains are well", well, timeout_s=30)

    async def none_hangs() -> bool:
        return await metrics(host, "vdsm_processes_hanging") == [0]

    await engine.until("no helper hangs", none_hangs, timeout_s=30)

    async def no_lock() -> bool:
        return not await client.call("storage.getLocks", {})

    await engine.until("no lock is held", no_lock, timeout_s=30)
    ids = {"storagepoolID": pool.pool_id}
    for call in (
        *reads(used),
        *changes(used, new_volume(engine.Pool(pool.pool_id, used.domain_id, 6, used.connection))),
    ):
        outcome = await ask(client, call)
        assert outcome.error == "", outcome
    await client.call("Image.teardown", without_volume(used.images[0]))
    for verb, name in (("attach", "free"), ("detach", "attached"), ("activate", "inactive"), ("activate", "leaving")):
        await client.call(f"StorageDomain.{verb}", {**server[name].ids, **ids}, timeout_s=60)
    assert await client.call("Host.getAllTasksStatuses", {}) == {}
    leases = [
        line for line in host.run(["sanlock", "client", "status"]).stdout.decode().splitlines() if line[:2] == "r "
    ]
    assert [line.split(":")[:2] for line in leases] == [[f"r {pool.domain_id}", "SDM"]]
    await until_no_orphans(host)
    decoder.decode(host.path(f"{MOUNTS}/_srv_used.img/{used.domain_id}"))


@pytest.mark.cost(25)
@pytest.mark.timeout(180)
async def test_an_image_waits_for_a_writer_that_hangs_since_before_the_agent_was_killed(
    fresh_host: PrivateHost,
) -> None:
    host = fresh_host
    host.start_agent()
    async with host.client() as client:
        pool = await engine.new_pool(client)
        volume = new_volume(pool)
        await run_task(client, "Volume.create", volume_params(volume))
        mount = f"{MOUNTS}/_srv_posixfs.img"
        with contextlib.ExitStack() as thaw:
            thaw.enter_context(faults.storage_hung(host, mount))
            changing = asyncio.ensure_future(
                client.call("Volume.setDescription", {**volume.ids, "description": "late"})
            )

            async def writes() -> bool:
                told = host.run(["ps", "-eo", "stat=,args="]).stdout.decode().splitlines()
                return any(line.startswith("D") and "iohelper" in line for line in told)

            await engine.until("a writer hangs", writes, timeout_s=20)
            host.kill_agent()
            with contextlib.suppress(ClientError):
                await changing
            host.start_agent()
            async with host.client() as again:
                await join(again, pool)
                preparing = asyncio.ensure_future(again.call("Image.prepare", volume.ids, timeout_s=90))

                async def waits() -> Any:
                    locks = await again.call("storage.getLocks", {})
                    return [lock for lock in locks if any(one["who"] == "Image.prepare" for one in lock["waiting"])]

                (lock,) = await engine.until("the image waits", waits, timeout_s=30)
                assert lock["lock"] == f"images on {mount}"
                assert "an earlier run of the agent, whose writer" in lock["holders"][0]["who"]
                assert not preparing.done()
                thaw.close()
                await preparing
                await again.call("Image.teardown", without_volume(volume))
                assert await again.call("storage.getLocks", {}) == []
