# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock of a local domain: given back also when it came too late."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from pathlib import Path

import pytest

from storage.leases import Lease, flock_edge
from storage.leases.flock_edge import FlockLeases
from vdsm.common.errors import DeadlineExceeded


async def test_a_lock_that_came_too_late_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ids").touch()
    lease = Lease("sd", "SDM", str(tmp_path / "leases"), 0, 1 << 20, 512)
    go, locked = threading.Event(), threading.Event()
    lock = flock_edge._lock

    def slow(operation: str, path: str, kind: int) -> int | None:
        go.wait(10)
        found = lock(operation, path, kind)
        locked.set()
        return found

    with monkeypatch.context() as hanging:
        hanging.setattr(flock_edge, "_lock", slow)
        with pytest.raises((DeadlineExceeded, TimeoutError)):
            await FlockLeases().acquire(lease, timeout_s=0.05)
        go.set()
        assert await asyncio.to_thread(locked.wait, 5)
    with open(tmp_path / "ids") as ids:
        async with asyncio.timeout(5):
            while not _is_free(ids.fileno()):
                await asyncio.sleep(0.01)


async def test_closing_gives_back_what_is_still_held(tmp_path: Path) -> None:
    leases = FlockLeases()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ids").touch()
        await leases.acquire(Lease("sd", "SDM", str(tmp_path / name / "leases"), 0, 1 << 20, 512), timeout_s=5)
    await leases.close()
    for name in ("one", "two"):
        with open(tmp_path / name / "ids") as ids:
            assert _is_free(ids.fileno())


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
