# SPDX-License-Identifier: GPL-2.0-or-later
"""A move of the master that storage refuses somewhere: before the new one is written all is as it was, after it the
move is done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inside import Spm
from test_spm_locks import stop_at

from storage.errors import IoFailed, LeaseError, LeaseHeld
from storage.file.domain import FileDomain
from storage.leases import Lease
from storage.leases.flock_edge import FlockLeases
from storage.spm import master_move
from storage.spm.errors import SpmLeaseNotAcquired
from storage.tasks.runner import TaskNotStoppable
from vdsm.common.ids import new_uuid

EIO = IoFailed("write", "metadata", "EIO", "Input/output error")


class Pair:
    """The pool's master, which has a task, and a second domain."""

    def __init__(self, spm: Spm, second: str, task_id: str) -> None:
        self.spm, self.second, self.task_id = spm, second, task_id
        self.old = spm.path
        self.new = spm.world.top / "second" / second

    async def move(self, verb: str = "master.move") -> Any:
        return await self.spm.serve(verb, {"domain_id": self.second, "version": 2, "map_on_master": False})

    def roles(self) -> tuple[str, str]:
        old, new = (
            dict(line.split("=", 1) for line in (path / "dom_md" / "metadata").read_text().splitlines())
            for path in (self.old, self.new)
        )
        return old["ROLE"], new["ROLE"]

    def tasks(self) -> tuple[list[str], list[str]]:
        old, new = (sorted(os.listdir(path / "master" / "tasks")) for path in (self.old, self.new))
        return old, new

    async def free_leases(self) -> tuple[bool, bool]:
        """Whether another process gets the lease of each."""
        old, new = [await _is_free(path) for path in (self.old, self.new)]
        return old, new


async def _is_free(path: Path) -> bool:
    other = FlockLeases()
    try:
        await other.acquire(Lease(path.name, "SDM", str(path / "dom_md" / "leases"), 0, 1 << 20, 512), timeout_s=5)
    except LeaseHeld:
        return False
    finally:
        await other.close()
    return True


@pytest.fixture
async def pair(inside: Spm) -> Pair:
    second = new_uuid()
    await inside.world.create_domain(second, inside.world.top / "second")
    domain = await inside.domains.get(second)
    await domain.change_metadata(lambda _: {"POOL_UUID": inside.pool_id})
    return Pair(inside, second, await inside.create(new_uuid(), new_uuid()))


def refuse(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception, when: Callable[..., bool], *, late: bool
) -> None:
    """``late``: it is done all the same, as by a write whose answer is lost."""
    real = getattr(owner, name)

    async def call(*args: Any, **named: Any) -> Any:
        if not when(*args):
            return await real(*args, **named)
        if late:
            await real(*args, **named)
        raise error

    monkeypatch.setattr(owner, name, call)


async def test_a_move_whose_old_master_cannot_be_written_is_done_and_keeps_its_tasks_there(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = pair.spm.domain_id
    refuse(monkeypatch, FileDomain, "change_metadata", EIO, lambda domain, _: domain.domain_id == old, late=False)
    await pair.move()
    assert pair.roles() == ("Master", "Master")
    assert pair.tasks() == ([pair.task_id], [pair.task_id])
    assert await pair.free_leases() == (True, False)
    assert pair.spm.agent.moved == [(pair.second, 2)]
    later = await pair.spm.create(new_uuid(), new_uuid())
    assert pair.tasks() == ([pair.task_id], sorted([pair.task_id, later]))


async def test_a_move_whose_old_lease_is_not_released_is_done(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    error = LeaseError("release", "lease", 5, "EIO")
    refuse(monkeypatch, FlockLeases, "release", error, lambda *_: True, late=False)
    await pair.move()
    assert pair.roles() == ("Regular", "Master")
    assert pair.tasks() == ([], [pair.task_id])


@pytest.mark.parametrize("late", [False, True])
async def test_a_move_whose_new_master_was_perhaps_written_is_put_back(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    written: list[str] = []

    def first(domain: FileDomain, _change: object) -> bool:
        written.append(domain.domain_id)
        return written.count(pair.second) == 1 and domain.domain_id == pair.second

    with monkeypatch.context() as patched:
        refuse(patched, FileDomain, "change_metadata", EIO, first, late=late)
        with pytest.raises(IoFailed, match="Input/output"):
            await pair.move()
    assert pair.roles() == ("Master", "Regular")
    assert await pair.free_leases() == (False, True)
    assert pair.spm.agent.moved == []
    later = await pair.spm.create(new_uuid(), new_uuid())
    assert later in pair.tasks()[0] and later not in pair.tasks()[1]
    await pair.move()
    assert pair.roles() == ("Regular", "Master")


async def test_a_new_master_that_is_not_put_back_keeps_no_lease(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        refuse(
            patched, FileDomain, "change_metadata", EIO, lambda domain, _: domain.domain_id == pair.second, late=False
        )
        with pytest.raises(IoFailed, match="Input/output"):
            await pair.move()
    assert await pair.free_leases() == (False, True)


async def test_a_domain_whose_lease_another_host_holds_becomes_no_master(pair: Pair) -> None:
    other = FlockLeases()
    await other.acquire((await pair.spm.domains.get(pair.second)).sdm_lease, timeout_s=5)
    with pytest.raises(SpmLeaseNotAcquired, match=f"{pair.second}:SDM is held"):
        await pair.move()
    assert pair.roles() == ("Master", "Regular")
    await other.close()
    await pair.move()


async def test_a_move_that_has_begun_is_not_stopped(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    copying = stop_at(monkeypatch, master_move, "copy_all")
    task_id = await pair.move("master.switch")
    await copying.reached.wait()
    with pytest.raises(TaskNotStoppable):
        await pair.spm.serve("task.stop", {"task_id": task_id})
    copying.go.set()
    assert (await pair.spm.wait(task_id)).state == "finished"
    assert pair.roles() == ("Regular", "Master")


async def test_a_move_goes_to_its_end_when_its_caller_goes_away(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    copying = stop_at(monkeypatch, master_move, "copy_all")
    moving = asyncio.ensure_future(pair.move())
    await copying.reached.wait()
    moving.cancel()
    copying.go.set()
    await asyncio.wait([moving])
    assert pair.roles() == ("Regular", "Master")
    assert await pair.free_leases() == (True, False)
