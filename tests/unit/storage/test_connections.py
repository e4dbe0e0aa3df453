# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage connections: all at once, each with its own answer and reason."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from storage import connections as connections_module
from storage.access import Identity
from storage.connections import Connection, ConnectionResult, Connections
from storage.domains import Domains
from storage.edges import lease_edges
from storage.file import io as io_module
from storage.file import ioprocess
from storage.file.iopool import IoPools
from storage.images import Images
from storage.in_use import InUse
from storage.lock_table import Locks
from storage.ondisk.remote_path import mount_name
from storage.ondisk.values import DomainKind
from vdsm.api.codes import code_for
from vdsm.common.errors import CommandFailed, DeadlineExceeded, RemoteError

POSIX, LOCAL = DomainKind.POSIXFS, DomainKind.LOCALFS


class FakeRoot:
    """The root helper: records what was asked; answers when its server does."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.errors: dict[tuple[str, str], Exception] = {}
        self.dead: set[str] = set()
        self.answers = asyncio.Event()
        self.busy = 0
        self.most = 0

    async def call(self, verb: str, params: Mapping[str, Any], *, timeout_s: float) -> Any:
        name = str(params.get("mount_id") or params["spec"])
        self.calls.append((verb, name))
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

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.calls]


class Host:
    def __init__(self, top: Path) -> None:
        self.mounts = top / "mnt"
        self.mounts.mkdir()
        self.root = FakeRoot()
        self.domains = Domains(str(self.mounts), lease_edges(), IoPools(), io_timeout_s=1)
        self.in_use = InUse(str(top / "prepared"))
        self.links = top / "links"
        images = Images(str(self.links), self.in_use, Locks(), lambda _domain_id: None)
        self.connections = Connections(
            str(self.mounts), self.root, self.domains, qemu_users=(), users_below=images.users_below
        )

    async def connect(self, *specs: str, kind: DomainKind = POSIX) -> list[ConnectionResult]:
        return await self.connections.connect(kind, [Connection(f"id {s}", s, "nfs") for s in specs])

    async def disconnect(self, spec: str) -> ConnectionResult:
        return (await self.connections.disconnect(POSIX, [Connection("c", spec)]))[0]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.domains.pools.close()


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
    assert 1 < host.root.most <= connections_module.AT_ONCE


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


async def test_storage_that_is_not_usable_has_the_fields_code_for_it(host: Host) -> None:
    refused = RemoteError("vdsm.root.server.mounts:MountAccessRefused", "user 36:36 cannot write it")
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

        async def started(cls: type, name: str, kept: tuple[int, ...]) -> object:
            helper = await start(cls, name, kept)
            if dead and name.startswith(str(self.path)):
                os.kill(helper.pid, signal.SIGSTOP)
            return helper

        monkeypatch.setattr(ioprocess.Helper, "start", classmethod(started))
        monkeypatch.setattr(connections_module, "ANSWER_S", 0.3 if dead else 10.0)
        monkeypatch.setattr(connections_module, "is_connected", lambda mount: mount == str(self.path))


async def test_a_mount_that_answers_is_unmounted_in_order(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    Mounted(host, "a:/x", monkeypatch, dead=False)
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
    assert "in use by ['vm:1']" in str(refused.error)
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

    async def asked(path: str, pools: IoPools) -> bool:
        return answers.pop(0)

    monkeypatch.setattr(connections_module, "_answers", asked)
    host.root.errors["Mount.unmount", "a:_x"] = DeadlineExceeded("umount", 60)
    result = await host.disconnect("a:/x")
    assert (result.error is None) is dead
    assert host.root.verbs() == ["Mount.unmount", "Mount.unmount_forced"][: 1 + dead]


# Local folders


async def test_a_folder_that_is_none_and_one_that_is_missing(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    results = await host.connect(str(tmp_path / "file"), str(tmp_path / "gone"), "relative", kind=LOCAL)
    assert [code(result) for result in results] == [453, 453, 453]
    assert "no folder" in str(results[0].error) and "no such folder" in str(results[1].error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
async def test_a_folder_in_one_that_cannot_be_entered_is_an_access_error(host: Host, tmp_path: Path) -> None:
    (tmp_path / "closed" / "data").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o600)
    result = (await host.connect(str(tmp_path / "closed" / "data"), kind=LOCAL))[0]
    assert code(result) == 469


async def test_a_refusal_to_look_at_a_folder_is_an_access_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(self: object, path: str) -> None:
        raise io_module.IoFailed("status", path, "EACCES", "Permission denied")

    monkeypatch.setattr(io_module.FileIo, "status", refused)
    assert code((await host.connect("/closed/data", kind=LOCAL))[0]) == 469


async def test_a_local_folder_that_qemu_cannot_enter_is_refused_by_name(tmp_path: Path) -> None:
    host = Host(tmp_path)
    stranger = Identity("libvirt-qemu", 4_000_000, frozenset({4_000_000}))
    host.connections = Connections(
        str(host.mounts), host.root, host.domains, qemu_users=(stranger,), users_below=lambda mount: []
    )
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    result = (await host.connect(str(folder), kind=LOCAL))[0]
    assert code(result) == 469
    assert "user libvirt-qemu" in str(result.error)
    assert not os.path.lexists(host.connections.mount_path(str(folder)))


async def test_a_local_folder_on_a_mount_that_hangs_is_told_in_time(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Mounted(host, "a:/x", monkeypatch, dead=True)
    async with asyncio.timeout(10):
        result = (await host.connect(str(dead.path), kind=LOCAL))[0]
    assert "did not answer" in str(result.error)
