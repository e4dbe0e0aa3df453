# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of the lock daemon's lockspaces, and what is not: a fake stands for the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from storage import lockspaces
from storage.errors import HostIdInUse, SanlockUnavailable
from storage.leases import Leases, Membership
from storage.lockspaces import Lockspaces

MOUNTS = "/rhev/data-center/mnt"


def _member(name: str, host_id: int, path: str = "") -> Membership:
    return Membership(name, host_id, path or f"{MOUNTS}/srv:_x/{name}/dom_md/ids")


class Daemon:
    def __init__(self, *members: Membership) -> None:
        self.members = list(members)
        self.busy: dict[str, int] = {}
        self.error: Exception | None = None
        self.hangs = False

    async def memberships(self) -> list[Membership]:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return list(self.members)

    async def leave(self, space: Membership, host_id: int) -> None:
        if self.busy.get(space.name, 0) > 0:
            self.busy[space.name] -= 1
            raise HostIdInUse(space.name, host_id)
        self.members.remove(space)

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.members]


@pytest.fixture(autouse=True)
def socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SANLOCK_RUN_DIR", str(tmp_path))
    made = tmp_path / "sanlock.sock"
    made.touch()
    return made


def _of(daemon: Daemon) -> Lockspaces:
    def leases_of(_kind: Any) -> Leases:
        return cast(Leases, daemon)

    return Lockspaces(MOUNTS, leases_of)


async def test_lockspaces_of_others_stay_whatever_their_id() -> None:
    elsewhere = _member("a", 250, "/var/other/a/dom_md/ids")
    no_domain = _member("hosted-engine", 250, f"{MOUNTS}/srv:_x/he/hosted-engine.lockspace")
    daemon = Daemon(elsewhere, no_domain, _member("ours", 250))
    await _of(daemon).leave_reserved()
    await _of(daemon).keep_only([], 1)
    assert daemon.members == [elsewhere, no_domain]


async def test_what_is_active_stays_unless_it_is_joined_with_another_id() -> None:
    daemon = Daemon(_member("active", 1), _member("old-id", 2), _member("away", 1))
    await _of(daemon).keep_only(["active", "old-id"], 1)
    assert daemon.names == ["active"]


async def test_leases_of_a_process_that_just_died_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockspaces, "TRY_AGAIN_S", 0.001)
    daemon = Daemon(_member("a", 250))
    daemon.busy["a"] = 3
    await _of(daemon).leave_reserved()
    assert daemon.names == []


async def test_leases_in_use_keep_a_lockspace_and_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lockspaces, "FREED_S", 0.0)
    monkeypatch.setattr(lockspaces, "TRY_AGAIN_S", 0.001)
    daemon = Daemon(_member("a", 1), _member("b", 1))
    daemon.busy["a"] = 1000
    await _of(daemon).keep_only([], 1)
    assert daemon.names == ["a"]
    assert "leases in use" in caplog.text


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_daemon_that_does_not_answer_fails_nothing_and_leaves_nothing(
    hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockspaces, "ASK_S", 0.01)
    daemon = Daemon(_member("a", 250))
    daemon.hangs, daemon.error = hangs, SanlockUnavailable("refused")
    await _of(daemon).leave_reserved()
    assert await _of(daemon).is_joined("b") is True  # not known: then nothing is left after it
    assert daemon.names == ["a"]


async def test_without_a_daemon_nothing_is_joined(socket: Path) -> None:
    socket.unlink()
    assert await _of(Daemon(_member("a", 250))).is_joined("a") is False


async def _attach(daemon: Daemon, *, dies: bool) -> None:
    """A change that joins the domain for a moment."""
    async with _of(daemon).joined_for_once("a"):
        if "a" not in daemon.names:
            daemon.members.append(_member("a", 1))
        if dies:
            raise SanlockUnavailable("killed")


async def test_what_a_change_joined_is_left_after_it() -> None:
    daemon = Daemon(_member("other", 1))
    await _attach(daemon, dies=False)
    with pytest.raises(SanlockUnavailable):
        await _attach(daemon, dies=True)
    assert daemon.names == ["other"]


async def test_what_was_joined_before_a_change_stays_joined() -> None:
    daemon = Daemon(_member("a", 1))
    await _attach(daemon, dies=False)
    assert daemon.names == ["a"]


async def test_a_lockspace_that_is_not_left_in_time_keeps_nobody_waiting_and_takes_no_other_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lockspaces, "LEAVE_S", 0.05)
    daemon = Daemon(_member("hangs", 1), _member("b", 1))
    leave = daemon.leave

    async def hangs(space: Membership, host_id: int) -> None:
        if space.name == "hangs":
            await asyncio.Event().wait()
        await leave(space, host_id)

    daemon.leave = hangs  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        await _of(daemon).keep_only([], 1)
    assert daemon.names == ["hangs"]
