# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system that really hangs: frozen, its writers wait in the kernel and cannot be killed."""

import asyncio
import os
import subprocess
import time

import pytest

from storage.errors import StorageNotResponding
from storage.file.io import FileIo
from vdsm.common import commands, hanging
from vdsm.common.errors import CommandHangs


@pytest.fixture
def mounted(tmp_path):
    image, target = tmp_path / "disk.img", tmp_path / "mnt"
    target.mkdir()
    with open(image, "wb") as f:
        f.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, target], check=True)
    try:
        yield str(target)
    finally:
        subprocess.run(["umount", target], check=True)


@pytest.fixture
def frozen(mounted):
    subprocess.run(["fsfreeze", "-f", mounted], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["fsfreeze", "-u", mounted], check=False)


async def test_hung_mount_costs_bounded_time_and_processes_and_comes_back(frozen):
    io = FileIo(frozen, timeout_s=0.5)
    path = os.path.join(frozen, "metadata")
    started = time.monotonic()
    for _ in range(hanging.MOST):
        with pytest.raises(StorageNotResponding, match=frozen):
            await io.write_atomic(path, b"x")
    assert time.monotonic() - started < 0.5 * hanging.MOST + 2
    stuck = io.pids
    assert len(stuck) == io.stuck == hanging.MOST  # killed, and still there: the kernel does not let them go
    refused = time.monotonic()
    with pytest.raises(StorageNotResponding, match="helpers hang"):
        await io.exists(path)
    assert time.monotonic() - refused < 1

    subprocess.run(["fsfreeze", "-u", frozen], check=True)
    async with asyncio.timeout(10):
        while io.stuck:
            await asyncio.sleep(0.02)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in stuck)
    io.timeout_s = 5.0
    await io.write_atomic(path, b"new")
    assert await io.read(path) == b"new"
    await io.close()


async def test_another_mount_is_not_delayed(frozen, tmp_path):
    hung, good = FileIo(frozen, timeout_s=1.0), FileIo(str(tmp_path))
    waiting = asyncio.ensure_future(hung.write_atomic(os.path.join(frozen, "metadata"), b"x"))
    await good.exists(str(tmp_path))
    started = time.monotonic()
    for _ in range(20):
        await good.write_atomic(str(tmp_path / "metadata"), b"x")
    assert time.monotonic() - started < 0.5
    assert not waiting.done()
    with pytest.raises(StorageNotResponding):
        await waiting
    subprocess.run(["fsfreeze", "-u", frozen], check=True)
    async with asyncio.timeout(10):
        while hung.stuck:
            await asyncio.sleep(0.02)
    await hung.close()
    await good.close()


async def test_commands_on_a_hung_mount_are_given_up_and_no_more_is_begun_there(frozen, monkeypatch):
    monkeypatch.setattr(commands, "DEATH_S", 0.3)
    ended = asyncio.Semaphore(0)
    argv = ["sh", "-c", 'echo > "$0"', f"{frozen}/x"]
    for _ in range(hanging.MOST):
        with pytest.raises(CommandHangs):
            await commands.run(argv, timeout_s=0.2, place=frozen, ended_late=ended.release)
    with pytest.raises(hanging.PlaceHangs, match="2 processes hang"):
        await commands.run(["true"], timeout_s=5, place=frozen)
    io = FileIo(frozen, timeout_s=5.0)
    with pytest.raises(StorageNotResponding, match="2 helpers hang"):
        await io.exists(frozen)

    subprocess.run(["fsfreeze", "-u", frozen], check=True)
    async with asyncio.timeout(10):
        for _ in range(hanging.MOST):
            await ended.acquire()
    await commands.run(["true"], timeout_s=5, place=frozen)
    await io.close()
