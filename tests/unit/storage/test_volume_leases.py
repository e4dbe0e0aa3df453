# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes whose lease a host holds are not removed: a fake stands for the lock daemon only."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator

import pytest
from inside import Spm, ids
from local_world import World

from storage.errors import LeaseError, LeaseNotFormatted
from storage.leases import Lease, LeaseOwner, LeaseRecord, Lockspace
from storage.leases.flock_edge import FlockLeases
from storage.tasks.record import TaskRecord
from vdsm.common.errors import DeadlineExceeded


class Daemon(FlockLeases):
    """Leases on storage, as the lock daemon tells of them: by volume who owns it, or what asking met."""

    on_storage = True

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, list[LeaseOwner] | Exception] = {}
        self.dead: set[int] = set()

    async def read_lease(self, lease: Lease) -> LeaseRecord:
        if isinstance(answer := self.answers.get(lease.resource), Exception):
            raise answer
        return await super().read_lease(lease)

    async def owners(self, lease: Lease) -> list[LeaseOwner]:
        answer = self.answers.get(lease.resource, [])
        assert not isinstance(answer, Exception)
        return answer

    async def is_gone(self, space: Lockspace, owner: LeaseOwner) -> bool:
        return owner.host_id in self.dead


@pytest.fixture
async def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
async def leased(world: World, daemon: Daemon) -> AsyncIterator[Spm]:
    """An SPM whose volumes have leases."""
    spm = Spm(world)
    spm.domains.source.leases_of = lambda _kind: daemon
    await spm.start()
    yield spm
    await spm.stop()


def _refused(record: TaskRecord, code: int, text: str) -> None:
    assert record.outcome is not None
    assert record.outcome.code == code
    assert text in record.outcome.message


async def test_a_volume_whose_lease_another_host_holds_is_not_deleted(leased: Spm, daemon: Daemon) -> None:
    image, base, leaf = ids(3)
    await leased.create(image, base)
    await leased.create(image, leaf, base)
    before = sorted(path.name for path in (leased.path / "images" / image).iterdir())
    daemon.answers[leaf] = [LeaseOwner(1, 5), LeaseOwner(7, 2)]
    daemon.dead.add(1)
    _refused(await leased.delete(image, leaf), 203, "hosts [7]")
    _refused(await leased.delete_image(image), 203, "hosts [7]")
    assert sorted(path.name for path in (leased.path / "images" / image).iterdir()) == before
    daemon.dead.add(7)
    assert (await leased.delete(image, leaf)).state == "finished"


async def test_of_several_volumes_none_is_deleted_when_one_is_held(leased: Spm, daemon: Daemon) -> None:
    image, base, leaf = ids(3)
    await leased.create(image, base)
    await leased.create(image, leaf, base)
    daemon.answers[base] = [LeaseOwner(7, 2)]
    _refused(await leased.delete(image, leaf, base), 203, base)
    assert (leased.path / "images" / image / f"{leaf}.meta").exists()


@pytest.mark.parametrize("met", [LeaseError("read owners", "x", errno.EIO, "broken"), DeadlineExceeded("read", 60)])
async def test_a_volume_whose_lease_cannot_be_read_is_not_deleted_and_says_why(
    leased: Spm, daemon: Daemon, met: Exception
) -> None:
    image, volume = ids(2)
    await leased.create(image, volume)
    daemon.answers[volume] = met
    _refused(await leased.delete(image, volume), 704, str(met))
    assert (leased.path / "images" / image / f"{volume}.meta").exists()


@pytest.mark.parametrize("met", [LeaseError("read owners", "x", errno.ENOENT, "no file"), LeaseNotFormatted("x")])
async def test_a_volume_without_lease_is_deleted(leased: Spm, daemon: Daemon, met: Exception) -> None:
    image, volume = ids(2)
    await leased.create(image, volume)
    daemon.answers[volume] = met
    assert (await leased.delete(image, volume)).state == "finished"


@pytest.mark.parametrize(("written", "told"), [(b"garbage!", "its magic is"), (b"\0" * 512 + b"garbage!", "")])
async def test_a_volume_whose_lease_is_no_record_any_more_is_not_deleted(
    leased: Spm, daemon: Daemon, written: bytes, told: str
) -> None:
    image, volume = ids(2)
    await leased.create(image, volume)
    daemon.answers[volume] = LeaseNotFormatted("x")
    (leased.path / "images" / image / f"{volume}.lease").write_bytes(written.ljust(4096, b"\0"))
    record = await leased.delete(image, volume)
    if told:
        _refused(record, 704, told)
    assert (leased.path / "images" / image / f"{volume}.meta").exists() is bool(told)


async def test_a_creation_is_not_reverted_while_a_host_holds_the_volumes_lease(leased: Spm, daemon: Daemon) -> None:
    image, volume = ids(2)
    task_id = await leased.create(image, volume)
    daemon.answers[volume] = [LeaseOwner(7, 2)]
    await leased.serve("task.revert", {"task_id": task_id})
    record = await leased.wait(task_id)
    assert record.state == "failed" and record.outcome is not None and "hosts [7]" in record.outcome.message
    assert (leased.path / "images" / image / f"{volume}.meta").exists()
