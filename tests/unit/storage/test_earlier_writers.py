# SPDX-License-Identifier: GPL-2.0-or-later
"""Writers that an earlier run of the agent left: who changes an image waits for them, nobody else does."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import pytest
from inside import ids
from local_world import World

from storage import images, locks
from storage.earlier_writers import EarlierWriters
from storage.lock_table import Locks
from storage.locks import LockTimeout
from vdsm.common import groups
from vdsm.common.groups import Left

PLACES = {"near": "/mnt/a", "far": "/mnt/b"}


@pytest.fixture
def writer() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def _table(monkeypatch: pytest.MonkeyPatch, *left: Left) -> Locks:
    monkeypatch.setattr(groups, "left_by_earlier", lambda: list(left))
    earlier = EarlierWriters(lambda domain_ids: {d: PLACES[d] for d in domain_ids if d in PLACES})
    earlier.learn("/nowhere")
    return Locks(earlier)


async def test_who_changes_an_image_on_its_mount_waits_for_its_end_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, writer: subprocess.Popen[bytes]
) -> None:
    table = _table(monkeypatch, Left(writer.pid, "/mnt/a"))
    near = [locks.domain("near"), locks.image("near", "i")]
    with pytest.raises(LockTimeout, match=f"an earlier run of the agent, whose writer {writer.pid} still runs had it"):
        await table.take(near, who="task 1", wait_s=0.05)
    with pytest.raises(LockTimeout):  # nobody knows yet where it lies
        await table.take([locks.image("unseen", "i")], who="task 1", wait_s=0.05)
    for free in (
        [locks.image("far", "i")],
        [locks.domain("near", locks.Mode.EXCLUSIVE)],
        [locks.prepared("near", "i")],
    ):
        table.give_back(await table.take(free, who="other", wait_s=0.05))
    waiting = asyncio.ensure_future(table.take(near, who="task 2", wait_s=10))
    await asyncio.sleep(0)
    (state,) = table.states()
    assert (state.lock, [who for who, _, _ in state.waiting]) == ("images on /mnt/a", ["task 2"])
    writer.kill()
    writer.wait()
    table.give_back(await waiting)
    assert table.states() == []


async def test_an_image_is_prepared_when_a_writer_from_before_the_restart_has_ended(
    spm: World, monkeypatch: pytest.MonkeyPatch, writer: subprocess.Popen[bytes]
) -> None:
    image, volume = ids(2)
    await spm.create_volume(image, volume)
    await spm.stop()
    (mount,) = spm.storage.domains.source.hang_with([spm.domain_id]).values()
    monkeypatch.setattr(groups, "left_by_earlier", lambda: [Left(writer.pid, mount)])
    monkeypatch.setattr(images, "API_WAIT_S", 0.05)
    await spm.start()
    await spm.connect()
    with pytest.raises(LockTimeout, match=f"whose writer {writer.pid} still runs"):
        await spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, volume)
    writer.kill()
    writer.wait()
    monkeypatch.setattr(images, "API_WAIT_S", 10.0)
    await spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, volume)
    await spm.storage.teardown_image(spm.pool_id, spm.domain_id, image)
