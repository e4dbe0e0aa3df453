# SPDX-License-Identifier: GPL-2.0-or-later
"""A change of networks that died at any of its points, by kill -9 or a power cut, ends as the old networks or the new.

Agent and root helper are real, the kernel is a model of it. A power cut leaves of the folder what was synced, of the
kernel nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from test_plan import START, Model
from test_transaction import Switch

from network import journal, rollback, transaction
from network.journal import Folder
from network.kernel import StepFailed
from network.plan import Step, problems
from network.service import Network
from vdsm.common.crashpoints import REGISTRY, CrashPoint
from vdsm.common.errors import AgentError
from vdsm.common.events import Events
from vdsm.common.paths import Paths
from vdsm.root.server import network as verbs
from vdsm.root.server.registry import Helper, dispatch

POINTS = {name for name in REGISTRY if name.startswith("network.")}
KEPT = "network.commit."
BLUE = {"nic": "eth0", "ipaddr": "10.0.0.2", "prefix": "24", "gateway": "10.0.0.1", "defaultRoute": True}
PERSISTENT = {"connectivityCheck": "false", "commitOnSuccess": True}
FLOWS = ("add", "remove", "fail")


class DiedError(BaseException):
    """As kill -9: nothing above it acts."""


class Disk:
    """What a power cut leaves of a folder: its names as they were synced, each file's content as it was synced."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._content: dict[int, bytes] = {}
        self._names: dict[str, bytes] = {}
        monkeypatch.setattr(os, "fsync", self._take)

    def _take(self, fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.parent == self._folder:
            self._content[os.fstat(fd).st_ino] = path.read_bytes()
        elif path == self._folder:
            inodes = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
            self._names = {name: self._content.get(inode, b"") for name, inode in inodes.items()}
            self._content = {inode: self._content[inode] for inode in inodes.values() if inode in self._content}

    def cut(self) -> None:
        for entry in self._folder.iterdir():
            entry.unlink()
        for name, content in self._names.items():
            (self._folder / name).write_bytes(content)


class Host:
    """One host: ``died`` is where, ``reached`` all the points of the change."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = Paths(root_state=str(top))
        self.kernel = Model(START)
        self.fails = False
        self.boots = 0
        self.at = 0
        self.reached: list[str] = []
        self.disk = Disk(top / "network", monkeypatch)
        monkeypatch.setattr(CrashPoint, "reach", lambda point: self._reach(point))
        monkeypatch.setattr(journal, "boot_id", lambda: f"boot {self.boots}")
        for module in (transaction, rollback):
            monkeypatch.setattr(module, "boot_id", lambda: f"boot {self.boots}")
        for module in (transaction, rollback, verbs):
            monkeypatch.setattr(module, "opened", self._opened)
        monkeypatch.setattr(transaction, "Switch", Switch)

    @property
    def folder(self) -> Folder:
        return Folder(f"{self.paths.root_state}/network")

    def _reach(self, point: CrashPoint) -> None:
        self.reached.append(point.name)
        if len(self.reached) == self.at:
            raise DiedError(point.name)

    @contextmanager
    def _opened(self) -> Iterator[Host]:
        yield self

    def state(self) -> object:
        return self.kernel.state()

    def link(self, name: str) -> object:
        return self.kernel.link(name)

    def do(self, step: Step) -> None:
        if self.fails and step.op == "route_add":
            self.fails = False
            raise StepFailed(str(step), "no")
        self.kernel.do(step)

    async def call(self, verb: str, params: Any, *, timeout_s: float) -> Any:
        return await dispatch(Helper(self.paths, os.geteuid(), os.getegid()), verb, params)

    async def change(self, networks: dict[str, Any]) -> None:
        await self._agent().setup_networks(networks, {}, PERSISTENT)

    async def come_back(self, *, after_a_cut: bool) -> None:
        """The root helper starts, then the agent."""
        if after_a_cut:
            self.boots += 1
            self.kernel = Model(START)
            self.disk.cut()
        self.at, self.fails = 0, False
        verbs._transactions.clear()
        await verbs.recover(Helper(self.paths, os.geteuid(), os.getegid()))
        await self._agent().start()

    def _agent(self) -> Network:
        async def run_hook(_point: str, data: object) -> object:
            return data

        return Network(paths=self.paths, root=self, events=cast(Events, _Unheard()), run_hook=run_hook)


class _Unheard:
    def publish(self, *_: object) -> None: ...


async def _die(host: Host, flow: str, at: int) -> bool:
    """Whether the change had as many points."""
    if flow == "remove":
        await host.change({"blue": BLUE})
    host.reached, host.at, host.fails = [], at, flow == "fail"
    try:
        await host.change({"blue": {"remove": "true"} if flow == "remove" else BLUE})
    except DiedError:
        return True
    except AgentError:
        assert flow == "fail"
    return False


@pytest.mark.parametrize("cut", [False, True], ids=["killed", "power cut"])
@pytest.mark.parametrize("flow", FLOWS)
async def test_death_at_any_point_leads_to_the_old_networks_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow: str, cut: bool
) -> None:
    at = 0
    while True:
        at += 1
        with monkeypatch.context() as patched:
            host = Host(tmp_path / str(at), patched)
            if not await _die(host, flow, at):
                break
            died = host.reached[-1]
            where = f"{flow}: died at {died} ({at})"
            await host.come_back(after_a_cut=cut)
            folder = host.folder
            expected = {"blue"} if died.startswith(KEPT) != (flow == "remove") else set()
            assert folder.journal() is None, where
            assert (set(folder.running()), set(folder.persistent())) == (expected, expected), where
            assert ("blue" in host.kernel.links) == bool(expected), where
            assert problems(folder.running(), host.kernel.state()) == [], where
            if flow != "remove" and not expected:  # a removed network's address goes with it
                assert host.kernel.seen() == Model(START).seen(), where
            await host.change({"red": {"nic": "eth1"}})  # and the next change goes on
            assert set(host.folder.running()) == {"red", *expected}, where
    assert at > 4


@pytest.mark.parametrize("flow", ["add", "remove"])
async def test_a_power_cut_after_the_answer_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow: str
) -> None:
    host = Host(tmp_path, monkeypatch)
    await _die(host, flow, 0)
    await host.come_back(after_a_cut=True)
    assert ("blue" in host.kernel.links) == (flow == "add")


async def test_these_changes_have_every_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: set[str] = set()
    for flow in FLOWS:
        with monkeypatch.context() as patched:
            host = Host(tmp_path / flow, patched)
            await _die(host, flow, 0)
            reached |= set(host.reached)
    assert reached == POINTS
