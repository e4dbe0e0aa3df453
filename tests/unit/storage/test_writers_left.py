# SPDX-License-Identifier: GPL-2.0-or-later
"""A lease outlives the process that took it while a writer of that process does: a local folder, real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from inside import ids
from local_world import World

from storage import locks
from storage.leases import records
from storage.locks import LockTimeout
from storage.spm import process as spm_process
from storage.spm.control import SpmStatus
from tests.undying import Undying, undying
from vdsm.common import groups


async def _until_free(world: World) -> None:
    async with asyncio.timeout(10):
        while world.storage.pool.spm.status is not SpmStatus.FREE:
            await asyncio.sleep(0.01)


def _spm_pid(world: World) -> int:
    pid = world.storage.pool.spm.pid
    assert pid is not None
    return pid


def _writers(spm_pid: int) -> list[groups.Member]:
    """I/O helpers: their parent is a child of the SPM process, which bears them."""
    found = [member for member in groups.session_members(spm_pid) if spm_pid not in (member.pid, member.parent)]
    assert found
    return found


@contextlib.contextmanager
def _hanging_writer(spm_pid: int) -> Iterator[Undying]:
    with undying(_writers(spm_pid)[0].pid) as held:
        yield held


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spm_process, "WRITERS_S", 0.1)


async def test_every_writer_is_a_member_of_its_spm_process_s_session(spm: World) -> None:
    await spm.create_volume(*ids(2))
    lock = (spm.domain / "dom_md" / "ids").stat()
    for writer in _writers(_spm_pid(spm)):
        opened = [Path(f"/proc/{writer.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{writer.pid}/fd")]
        assert any(path.stat().st_ino == lock.st_ino for path in opened)


async def test_after_a_kill_the_lease_is_not_taken_before_the_last_writer_is_gone(
    spm: World, caplog: pytest.LogCaptureFixture
) -> None:
    pid = _spm_pid(spm)
    with _hanging_writer(pid) as writer:
        os.kill(pid, signal.SIGKILL)
        writer.killed()
        await _until_free(spm)
        assert f"process {pid} is gone, its writers are not: {writer.pid} (" in caplog.text
        refused = await spm.become_spm()
        assert (refused["code"], refused["taskResult"]) == (651, "cleanSuccess")
        assert f"held on this host by what is left of process {pid}: {writer.pid} (" in refused["message"]
        again = await spm.become_spm()  # the attempt that failed hides nothing
        assert f"process {pid}: {writer.pid} (" in again["message"]
        assert records.all_left(spm.paths.leased)[spm.domain_id].pid == pid
        writer.let_go()
    assert (await spm.become_spm())["taskResult"] == "success"
    assert records.all_left(spm.paths.leased) == {}


async def test_a_role_that_is_stopped_keeps_its_lease_until_the_last_writer_is_gone(spm: World) -> None:
    pid = _spm_pid(spm)
    with _hanging_writer(pid) as writer:
        await spm.storage.pool.stop_spm(spm.pool_id)
        writer.killed()
        assert (await spm.storage.pool.spm_report(spm.pool_id)).host_id == 1
        assert (await spm.become_spm())["code"] == 651
        writer.let_go()
    assert (await spm.become_spm())["taskResult"] == "success"


async def test_a_stopped_writer_ends_with_its_process(spm: World) -> None:
    pid = _spm_pid(spm)
    for writer in _writers(pid):
        os.kill(writer.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    await _until_free(spm)
    assert groups.session_members(pid) == []
    assert (await spm.become_spm())["taskResult"] == "success"


async def test_a_reader_of_the_agent_keeps_no_lease(spm: World) -> None:
    pid = _spm_pid(spm)
    (reader, *_) = (await spm.storage.domains.get(spm.domain_id)).files.io.pids  # type: ignore[attr-defined]
    with undying(reader) as held:
        os.kill(reader, signal.SIGKILL)
        held.killed()
        os.kill(pid, signal.SIGKILL)
        await _until_free(spm)
        assert (await spm.storage.pool.spm_report(spm.pool_id)).host_id == -1
        held.let_go()


async def test_what_a_dead_spm_process_held_is_free_after_its_last_writer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, volume = ids(2)
    with monkeypatch.context() as patched:
        patched.setenv("VDSM_CRASH_AT", f"volume.create.metadata:{world.top / 'reached'}")
        assert (await world.become_spm())["taskResult"] == "success"
    with _hanging_writer(_spm_pid(world)) as writer:
        task_id = await world.start_volume(image, volume)
        await _until_free(world)
        writer.killed()
        with pytest.raises(LockTimeout) as e:
            async with world.storage.locks.hold([locks.image(world.domain_id, image)], who="one", wait_s=0.01):
                pass
        told = (
            f"task {task_id} (createVolume) of an SPM process that ended, whose writer {writer.pid} still runs had it"
        )
        assert told in str(e.value)
        writer.let_go()
    async with asyncio.timeout(10):
        while world.storage.locks.names:
            await asyncio.sleep(0.01)
