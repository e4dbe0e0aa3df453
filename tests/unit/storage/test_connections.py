# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage connections: all at once, each with its own answer and reason."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from memory_source import MemorySource

from storage.access import Identity
from storage.connections import ConnectionResult, Connections
from storage.domains import Domains
from storage.file import folders, ioprocess
from storage.file import io as io_module
from storage.file.folders import MountedLooks
from storage.file.ionursery import Nursery
from storage.file.iopool import IoPools
from storage.images import Images
from storage.in_use import InUse
from storage.lock_table import Locks
from storage.ondisk.remote_path import mount_name
from storage.servers import mounts, room
from storage.servers.connectors import Connectors
from storage.servers.kinds import Connection, LocalFolder, NfsExport, NfsVersion, PosixMount
from storage.servers.local import LocalFolders
from storage.servers.mounts import Mounts
from storage.servers.records import ConnectionRecords, Record
from storage.source import MountedPlace
from vdsm.api.codes import code_for
from vdsm.common.errors import CommandFailed, DeadlineExceeded, RemoteError


class FakeRoot:
    """The root helper: records what was asked; answers when its server does."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.defined: list[dict[str, Any]] = []
        self.errors: dict[tuple[str, str], Exception] = {}
        self.dead: set[str] = set()
        self.answers = asyncio.Event()
        self.busy = 0
        self.most = 0

    async def call(self, verb: str, params: Mapping[str, Any], *, timeout_s: float) -> Any:
        name = str(params.get("mount_id") or params["spec"])
        self.calls.append((verb, name))
        if verb == "Mount.define":
            self.defined.append(dict(params))
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            if verb == "Mount.mount" and name in self.dead:
                await self.answers.wait()
                raise DeadlineExceeded("mount", 90)
            await asyncio.sleep(0)
        finally:
            self.busy -= 1
        if (verb, name) in self.errors:
            raise self.errors[verb, name]
        return {"path": name, "mounted": True, "notes": self.notes} if verb == "Mount.mount" else None

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.calls]


class FakeReach:
    """Servers that can't be reached, each with the reason; ``asked``: host and ports."""

    def __init__(self) -> None:
        self.gone: dict[str, str] = {}
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    async def lacking(self, host: str, ports: Sequence[int]) -> str:
        self.asked.append((host, tuple(ports)))
        return self.gone.get(host, "")


class Host:
    def __init__(self, top: Path) -> None:
        self.mounts = top / "mnt"
        self.mounts.mkdir()
        self.root = FakeRoot()
        self.pools = IoPools()
        self.source = MemorySource()
        self.domains = Domains(self.source)
        self.in_use = InUse(str(top / "prepared"))
        self.links = top / "links"
        images = Images(str(self.links), self.in_use, Locks(), self.domains.opened)
        self.reach = FakeReach()
        self.records = ConnectionRecords(str(top / "records"), clock=lambda: 7.0)
        self.users_below = images.users_below
        self.connections = self.with_users()

    def with_users(self, *qemu_users: Identity) -> Connections:
        looks = MountedLooks(self.pools)
        mounted = Mounts(str(self.mounts), self.root, looks, self.reach, 10)
        connectors: Connectors = {
            LocalFolder: LocalFolders(self.root, looks, qemu_users),
            PosixMount: mounted,
            NfsExport: mounted,
        }
        return Connections(
            str(self.mounts), connectors, self.domains, users_below=self.users_below, records=self.records
        )

    async def connect(self, *specs: str) -> list[ConnectionResult]:
        return await self.connections.connect([PosixMount(f"id {s}", s, "nfs") for s in specs])

    async def connect_local(self, *folders: str) -> list[ConnectionResult]:
        return await self.connections.connect([LocalFolder(f"id {f}", f) for f in folders])

    async def disconnect(self, spec: str) -> ConnectionResult:
        return (await self.connections.disconnect([PosixMount("c", spec, "nfs")]))[0]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.pools.close()


def code(result: ConnectionResult) -> int:
    assert result.error is not None
    return code_for(result.error, "StoragePool.connectStorageServer")


async def test_a_dead_server_delays_no_other_connection_of_the_call(host: Host) -> None:
    host.root.dead = {mount_name("a:/dead"), mount_name("b:/dead")}
    connecting = asyncio.ensure_future(host.connect("a:/dead", "c:/good", "b:/dead"))
    async with asyncio.timeout(5):
        while host.root.busy < 2 or ("Mount.mount", mount_name("c:/good")) not in host.root.calls:
            await asyncio.sleep(0)
    assert not connecting.done()
    host.root.answers.set()
    results = await connecting
    assert [r.connection_id for r in results] == ["id a:/dead", "id c:/good", "id b:/dead"]
    assert [r.error is None for r in results] == [False, True, False]
    assert "a:/dead" in str(results[0].error) and "90 s" in str(results[0].error)
    assert code(results[0]) == 477


async def test_a_dead_server_delays_no_other_call(host: Host) -> None:
    host.root.dead = {mount_name("a:/dead")}
    connecting = asyncio.ensure_future(host.connect("a:/dead"))
    async with asyncio.timeout(5):
        assert (await host.connect("c:/good"))[0].error is None
    host.root.answers.set()
    await connecting


async def test_calls_about_one_folder_come_one_after_the_other(host: Host) -> None:
    host.root.dead = {mount_name("a:/x")}
    connecting = asyncio.ensure_future(host.connect("a:/x"))
    while host.root.verbs() != ["Mount.define", "Mount.mount"]:
        await asyncio.sleep(0)
    leaving = asyncio.ensure_future(host.disconnect("a:/x//"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert "Mount.unmount" not in host.root.verbs()
    host.root.answers.set()
    await asyncio.gather(connecting, leaving)
    assert host.root.verbs()[-1] == "Mount.unmount"


async def test_many_connections_are_made_in_bounded_numbers(host: Host) -> None:
    await host.connect(*(f"s:/{n}" for n in range(60)))
    assert 1 < host.root.most <= room.AT_ONCE


async def test_many_dead_servers_delay_the_living_by_seconds(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SLOW_S", 0.05)
    dead, good = [f"d{n}:/x" for n in range(40)], [f"g{n}:/x" for n in range(10)]
    host.root.dead = {mount_name(spec) for spec in dead}
    connecting = asyncio.ensure_future(host.connect(*dead, *good))
    async with asyncio.timeout(5):
        while not {("Mount.mount", mount_name(spec)) for spec in good} <= set(host.root.calls):
            await asyncio.sleep(0.01)
    host.root.answers.set()
    assert [r.error is None for r in await connecting] == [False] * 40 + [True] * 10


async def test_however_many_are_dead_the_root_helper_keeps_room_for_others(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SLOW_S", 0.01)
    specs = [f"d{n}:/x" for n in range(70)]
    host.root.dead = {mount_name(spec) for spec in specs}
    connecting = asyncio.ensure_future(host.connect(*specs))
    async with asyncio.timeout(5):
        while host.root.busy < room.MOST:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert host.root.most == room.MOST < 64
    host.root.answers.set()
    await connecting


async def test_who_asks_for_the_same_joins_who_asked_before(host: Host) -> None:
    host.root.dead = {mount_name("a:/x")}
    callers = [asyncio.ensure_future(host.connect("a:/x")) for _ in range(5)]
    while "Mount.mount" not in host.root.verbs():
        await asyncio.sleep(0)
    host.root.answers.set()
    results = [await caller for caller in callers]
    assert host.root.verbs() == ["Mount.define", "Mount.mount"]
    assert {code(result) for (result,) in results} == {477}


async def test_what_was_asked_last_is_how_it_ends(host: Host) -> None:
    host.root.dead = {mount_name("a:/x")}
    first = asyncio.ensure_future(host.connect("a:/x"))
    while "Mount.mount" not in host.root.verbs():
        await asyncio.sleep(0)
    host.root.dead.clear()
    others = [asyncio.ensure_future(host.disconnect("a:/x")), asyncio.ensure_future(host.connect("a:/x"))]
    await asyncio.sleep(0)
    host.root.answers.set()
    await asyncio.gather(first, *others)
    verbs = [verb for verb in host.root.verbs() if verb != "Mount.define"]
    assert verbs == ["Mount.mount", "Mount.unmount", "Mount.mount"]


async def test_the_order_is_that_of_asking_whoever_waits_first(host: Host) -> None:
    """So who asks in order need not wait for answers: a dead server keeps what comes behind it from no other."""
    host.root.dead = {mount_name("a:/dead")}
    dead, good = (PosixMount("c", spec, "nfs") for spec in ("a:/dead", "b:/good"))
    first, second = host.connections.connect([dead, good]), host.connections.disconnect([good])
    async with asyncio.timeout(5):
        assert [result.error for result in await second] == [None]
    of_good = [verb for verb, name in host.root.calls if name == mount_name("b:/good")]
    assert of_good == ["Mount.mount", "Mount.unmount"]
    host.root.answers.set()
    assert [result.error is None for result in await first] == [False, True]


async def test_a_caller_that_goes_away_takes_nothing_along(host: Host) -> None:
    host.root.dead = {mount_name("a:/x")}
    gone, stays = (asyncio.ensure_future(host.connect("a:/x")) for _ in range(2))
    while "Mount.mount" not in host.root.verbs():
        await asyncio.sleep(0)
    gone.cancel()
    host.root.dead.clear()
    host.root.answers.set()
    assert code((await stays)[0]) == 477
    assert gone.cancelled()


async def test_an_agent_that_ends_waits_for_no_server(host: Host) -> None:
    host.root.dead = {mount_name("a:/x"), mount_name("b:/x")}
    callers = [asyncio.ensure_future(host.connect(spec)) for spec in ("a:/x", "b:/x")]
    while host.root.busy < 2:
        await asyncio.sleep(0)
    await host.connections.close()
    assert host.root.busy == 0
    async with asyncio.timeout(5):
        await asyncio.wait(callers)
    assert all(caller.cancelled() for caller in callers)


async def test_the_same_folder_with_other_options_is_asked_again(host: Host) -> None:
    one, other = NfsExport("1", "a:/x"), NfsExport("2", "a:/x", retrans=4)
    await host.connections.connect([one, other])
    assert host.root.verbs().count("Mount.define") == 2


async def test_a_refusal_leaves_the_order_of_the_same_folder_alone(host: Host) -> None:
    host.root.dead = {mount_name("a:/b")}
    first = asyncio.ensure_future(host.connect("a:/b"))
    while "Mount.mount" not in host.root.verbs():
        await asyncio.sleep(0)
    # of the same folder, and refused at once
    refused = await host.connections.connect([LocalFolder("c", "a:/x/../b")])
    leaving = asyncio.ensure_future(host.disconnect("a:/b"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert code(refused[0]) == 453
    assert "Mount.unmount" not in host.root.verbs()
    host.root.answers.set()
    await asyncio.gather(first, leaving)


# Records


async def test_what_is_wanted_and_what_came_of_it_is_on_record_until_it_is_disconnected(host: Host) -> None:
    host.root.errors["Mount.mount", "b:_x"] = CommandFailed("mount", 32, "no such device")
    await host.connections.connect([NfsExport("2", "a:/x"), NfsExport("3", "b:/x"), NfsExport("4", "nothing")])
    await host.connections.connect([NfsExport("1", "a:/x")])
    found = host.records.all()
    assert found["a:_x"] == Record("NFS", "a:/x", ["1", "2"], 7.0)
    assert "no such device" in found.pop("b:_x").error
    assert list(found) == ["a:_x"]
    host.root.errors["Mount.unmount", "a:_x"] = CommandFailed("umount", 32, "target is busy")
    await host.disconnect("a:/x")
    assert "target is busy" in host.records.all()["a:_x"].error
    host.root.errors.clear()
    await host.disconnect("a:/x")
    assert list(host.records.all()) == ["b:_x"]


async def test_no_option_is_on_record(host: Host, tmp_path: Path) -> None:
    await host.connections.connect([PosixMount("c", "//srv/x", "cifs", "password=geheim")])
    (record,) = (tmp_path / "records").iterdir()
    assert "geheim" not in record.read_text()


async def test_a_secret_in_a_reason_is_not_on_record(host: Host, tmp_path: Path) -> None:
    host.root.errors["Mount.mount", "_srv_x"] = CommandFailed("mount", 32, "bad option password=geheim1")
    await host.connections.connect([PosixMount("c", "//srv/x", "cifs")])
    text = "".join(record.read_text() for record in (tmp_path / "records").iterdir())
    assert "bad option" in text and "geheim1" not in text


async def test_a_record_that_cannot_be_read_or_written_stops_nothing(host: Host, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a:_x.json").write_text("{")
    assert host.records.all() == {}
    assert (await host.connect("a:/x"))[0].error is None
    assert host.records.all()["a:_x"].wanted_by == ["id a:/x"]
    (tmp_path / "records" / "b:_x.json").mkdir()
    assert (await host.connect("b:/x"))[0].error is None


# NFS


async def test_an_export_is_mounted_with_the_fields_options(host: Host) -> None:
    (result,) = await host.connections.connect([NfsExport("c", "srv://x/", NfsVersion.V4_1)])
    assert result.error is None
    assert host.root.defined == [
        {
            "spec": "srv:/x",
            "vfs_type": "nfs",
            "options": "soft,nosharecache,timeo=100,retrans=3,nfsvers=4,minorversion=1",
        }
    ]
    assert host.reach.asked == [("srv", (2049,))]


async def test_a_server_that_cannot_be_reached_is_not_mounted(host: Host) -> None:
    host.reach.gone["srv"] = "server srv can't be reached at TCP port 2049: Connection refused"
    gone, good = await host.connections.connect([NfsExport("1", "srv:/x"), NfsExport("2", "other:/x")])
    assert (code(gone), good.error) == (477, None)
    assert "Connection refused; look at the server" in str(gone.error)
    assert {name for _, name in host.root.calls} == {"other:/x", "other:_x"}


async def test_what_is_mounted_is_connected_again_without_its_server(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "mount_points", lambda: {str(host.mounts / "srv:_x")})
    host.reach.gone["srv"] = "gone"
    (result,) = await host.connections.connect([NfsExport("c", "srv:/x")])
    assert result.error is None


@pytest.mark.parametrize(
    "connection", [NfsExport("c", "srv:/x", options="hard"), PosixMount("c", "srv:/x", "nfs", "hard")]
)
async def test_an_unsafe_option_is_the_connections_own_refusal(host: Host, connection: Connection) -> None:
    refused, good = await host.connections.connect([connection, NfsExport("2", "srv:/y")])
    assert (code(refused), good.error) == (453, None)
    assert "'hard' is not taken: I/O on a server that is gone would never end" in str(refused.error)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("mount.nfs: access denied by server while mounting srv:/x", "add it to the exports"),
        ("mount.nfs: mounting srv:/x failed, reason given by server: No such file or directory", "no such export"),
        ("mount.nfs: Protocol not supported", "another protocol_version"),
        ("mount.nfs: Connection refused", "service does not run"),
        ("mount: need a helper program", "install the NFS client"),
    ],
)
async def test_what_mount_says_comes_with_what_to_do(host: Host, said: str, advice: str) -> None:
    host.root.errors["Mount.mount", "srv:_x"] = CommandFailed("mount", 32, said)
    (result,) = await host.connections.connect([NfsExport("c", "srv:/x")])
    assert code(result) == 477
    assert said in str(result.error) and advice in str(result.error)


async def test_what_is_good_to_know_of_an_export_is_in_the_log(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.root.notes = ["it is full"]
    (result,) = await host.connections.connect([NfsExport("c", "srv:/x")])
    assert result.error is None
    assert "storage srv:/x: it is full" in caplog.text


async def test_an_export_that_is_not_usable_says_what_the_server_has_to_change(host: Host) -> None:
    refused = RemoteError("vdsm.root.server.mount_errors:ExportAccessRefused", "on the server: chown 36:36")
    host.root.errors["Mount.mount", "srv:_x"] = refused
    (result,) = await host.connections.connect([NfsExport("c", "srv:/x")])
    assert code(result) == 469
    assert "on the server: chown 36:36" in str(result.error)


async def test_storage_without_direct_io_has_the_fields_code(host: Host) -> None:
    refused = RemoteError("vdsm.root.server.mount_errors:MountNoDirectIo", "it refuses direct I/O")
    host.root.errors["Mount.mount", "srv:_x"] = refused
    (result,) = await host.connections.connect([NfsExport("c", "srv:/x")])
    assert code(result) == 399


async def test_what_is_in_use_is_not_disconnected_and_its_users_are_named(host: Host) -> None:
    host.users_below = lambda mount: ["domain d of the pool"] if mount.endswith("srv:_x") else []
    host.connections = host.with_users()
    used, free = await host.connections.disconnect([NfsExport("1", "srv:/x"), NfsExport("2", "srv:/y")])
    assert (code(used), free.error) == (452, None)
    assert "in use by domain d of the pool" in str(used.error)
    assert host.root.calls == [("Mount.unmount", "srv:_y")]


async def test_a_surprise_of_one_connection_leaves_the_others_their_answers(host: Host) -> None:
    host.root.errors["Mount.define", "a:/odd"] = KeyError("odd")
    results = await host.connect("a:/odd", "b:/good")
    assert [r.error is None for r in results] == [False, True]
    assert code(results[0]) == 451 and "KeyError" in str(results[0].error)


async def test_the_specification_is_resolved_before_it_is_mounted(host: Host) -> None:
    await host.connect("srv:/a//../b/", "srv:/")
    assert host.root.calls == [
        ("Mount.define", "srv:/b"),
        ("Mount.define", "srv:/"),
        ("Mount.mount", "srv:_b"),
        ("Mount.mount", "srv:_"),
    ]


async def test_what_was_connected_is_looked_at_and_what_was_not_is_not(host: Host) -> None:
    host.root.errors["Mount.mount", "b:_bad"] = CommandFailed("mount", 32, "no such device")
    await host.connect("a:/good", "b:/bad")
    assert host.source.looked == [MountedPlace(str(host.mounts / mount_name("a:/good")))]


async def test_storage_that_is_not_usable_has_the_fields_code_for_it(host: Host) -> None:
    refused = RemoteError("vdsm.root.server.mount_errors:MountAccessRefused", "user 36:36 cannot write it")
    host.root.errors["Mount.mount", "s:_closed"] = refused
    host.root.errors["Mount.mount", "s:_broken"] = CommandFailed("mount", 32, "no such device")
    closed, broken = await host.connect("s:/closed", "s:/broken")
    assert (code(closed), code(broken)) == (469, 477)
    assert "cannot write it" in str(closed.error) and "no such device" in str(broken.error)


# Leaving


class Mounted:
    """Something that counts as mounted; its I/O helpers never answer when it is dead."""

    def __init__(self, host: Host, spec: str, monkeypatch: pytest.MonkeyPatch, *, dead: bool) -> None:
        self.path = host.mounts / mount_name(spec)
        self.path.mkdir()
        start = ioprocess.Helper.start.__func__  # type: ignore[attr-defined]

        async def started(cls: type, nursery: Nursery, name: str, kept: tuple[int, ...]) -> object:
            helper = await start(cls, nursery, name, kept)
            if dead and name.startswith(str(self.path)):
                os.kill(helper.pid, signal.SIGSTOP)
            return helper

        monkeypatch.setattr(ioprocess.Helper, "start", classmethod(started))
        monkeypatch.setattr(folders, "ANSWER_S", 0.3 if dead else 10.0)
        monkeypatch.setattr(mounts, "mount_points", lambda: {str(self.path)})


async def test_a_mount_that_answers_is_unmounted_in_order(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = Mounted(host, "a:/x", monkeypatch, dead=False)
    asked, space = [], io_module.FileIo.space

    async def counted(self: io_module.FileIo, path: str) -> object:
        asked.append(path)
        return await space(self, path)

    monkeypatch.setattr(io_module.FileIo, "space", counted)
    assert (await host.disconnect("a:/x")).error is None
    assert asked == [str(mounted.path)]
    assert host.root.verbs() == ["Mount.unmount"]


async def test_what_is_not_mounted_is_not_asked_whether_it_answers(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def asked(self: object, path: str) -> object:
        raise AssertionError(path)

    monkeypatch.setattr(io_module.FileIo, "space", asked)
    assert (await host.disconnect("a:/x")).error is None
    assert host.root.verbs() == ["Mount.unmount"]


async def test_a_mount_that_does_not_answer_is_cut_off(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    Mounted(host, "a:/x", monkeypatch, dead=True)
    assert (await host.disconnect("a:/x")).error is None
    assert host.root.verbs() == ["Mount.unmount_forced"]


async def test_a_dead_mount_whose_images_are_in_use_is_not_cut_off(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Mounted(host, "a:/x", monkeypatch, dead=True)
    for domain, mount, user in (("d1", dead.path, "vm:1"), ("d2", f"{dead.path}2", "vm:2")):
        host.in_use.add(domain, "image", user, ["volume"])
        (host.links / domain).mkdir(parents=True)
        (host.links / domain / "image").symlink_to(f"{mount}/{domain}/images/image")
    refused = await host.disconnect("a:/x")
    assert "in use by vm:1" in str(refused.error)
    assert host.root.verbs() == []
    host.in_use.restore("d1", "image", {})
    assert (await host.disconnect("a:/x")).error is None
    assert host.root.verbs() == ["Mount.unmount_forced"]


async def test_a_mount_whose_answer_is_an_error_is_not_cut_off(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stale(self: object, path: str) -> object:
        raise io_module.IoFailed("space", path, "ESTALE", "Stale file handle")

    Mounted(host, "a:/x", monkeypatch, dead=False)
    monkeypatch.setattr(io_module.FileIo, "space", stale)
    assert (await host.disconnect("a:/x")).error is None
    assert host.root.verbs() == ["Mount.unmount"]


async def test_a_mount_in_use_that_answers_stays_and_says_why(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    Mounted(host, "a:/x", monkeypatch, dead=False)
    host.root.errors["Mount.unmount", "a:_x"] = CommandFailed("umount", 32, "target is busy")
    assert "target is busy" in str((await host.disconnect("a:/x")).error)
    assert host.root.verbs() == ["Mount.unmount"]


@pytest.mark.parametrize("dead", [True, False])
async def test_a_mount_that_dies_while_it_is_unmounted_is_cut_off(
    host: Host, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    answers = [True, not dead]

    async def asked(_looks: MountedLooks, path: str) -> bool:
        return answers.pop(0)

    monkeypatch.setattr(mounts, "mount_points", lambda: {str(host.mounts / "a:_x")})
    monkeypatch.setattr(MountedLooks, "answers", asked)
    host.root.errors["Mount.unmount", "a:_x"] = DeadlineExceeded("umount", 60)
    result = await host.disconnect("a:/x")
    assert (result.error is None) is dead
    assert host.root.verbs() == ["Mount.unmount", "Mount.unmount_forced"][: 1 + dead]


# Local folders


async def test_a_folder_that_is_none_and_one_that_is_missing(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    results = await host.connect_local(str(tmp_path / "file"), str(tmp_path / "gone"), "relative")
    assert [code(result) for result in results] == [453, 453, 453]
    assert "no folder" in str(results[0].error) and "no such folder" in str(results[1].error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
async def test_a_folder_in_one_that_cannot_be_entered_is_an_access_error(host: Host, tmp_path: Path) -> None:
    (tmp_path / "closed" / "data").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o600)
    result = (await host.connect_local(str(tmp_path / "closed" / "data")))[0]
    assert code(result) == 469


async def test_a_refusal_to_look_at_a_folder_is_an_access_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(self: object, path: str) -> None:
        raise io_module.IoFailed("status", path, "EACCES", "Permission denied")

    monkeypatch.setattr(io_module.FileIo, "status", refused)
    assert code((await host.connect_local("/closed/data"))[0]) == 469


async def test_a_local_folder_that_qemu_cannot_enter_is_refused_by_name(tmp_path: Path) -> None:
    host = Host(tmp_path)
    stranger = Identity("libvirt-qemu", 4_000_000, frozenset({4_000_000}))
    host.connections = host.with_users(stranger)
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    result = (await host.connect_local(str(folder)))[0]
    assert code(result) == 469
    assert "user libvirt-qemu" in str(result.error)
    assert not os.path.lexists(host.connections.mount_path(str(folder)))


async def test_a_local_folder_on_a_mount_that_hangs_is_told_in_time(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Mounted(host, "a:/x", monkeypatch, dead=True)
    async with asyncio.timeout(10):
        result = (await host.connect_local(str(dead.path)))[0]
    assert "did not answer" in str(result.error)
