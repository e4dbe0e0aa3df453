# SPDX-License-Identifier: GPL-2.0-or-later
"""No host gets a lease whose last writer on another host still lives: two real sanlock daemons, real writers."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from two_sanlocks import SanlockHost, line_of, make_areas, missing, tell

from tests.undying import undying

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "-"), pytest.mark.timeout(60)]

PRELUDE = """
import asyncio, json, os, sys, time
from storage import qemu_img
from storage.file.host_ids import read_owner
from storage.file.io import FileIo
from storage.file.iopool import IoPools
from storage.leases import joining
from storage.leases.kept import Kept
from storage.leases.model import Lease, Lockspace
from storage.leases.sanlock_edge import SanlockLeases
from storage.ondisk.values import VolumeFormat
from vdsm.common import groups
ids, leases, folder = json.loads(sys.argv[1])
MIB = 1 << 20
SPACE, LEASE = Lockspace("shared", ids, MIB, 512, 1), Lease("shared", "SDM", leases, MIB, MIB, 512)
kept = Kept()
L = SanlockLeases(kept)
class Place:
    lockspace, io = SPACE, FileIo(folder)
    async def host_id_owner(self, host_id):
        return await read_owner(self.io, SPACE, host_id)
async def line():
    return (await asyncio.to_thread(sys.stdin.readline)).strip()
def say(**what):
    print(json.dumps(what), flush=True)
async def acquired():
    try:
        await L.acquire(LEASE, timeout_s=60)
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    return "acquired"
"""

HOLDER = (
    PRELUDE
    + """
async def main():
    os.setsid()
    await L.format_lockspace(SPACE)
    await L.format_lease(LEASE)
    await joining.join(L, Place(), 1, timeout_s=60)
    say(joined=True)
    await L.acquire(LEASE, timeout_s=60)
    pools, silent = IoPools(), f"nbd+unix:///?socket={folder}/silent"
    pools.keep(kept.descriptors)
    io = FileIo(folder, pools=pools)
    begun = [
        asyncio.create_task(io.write_direct(folder + "/pipe", bytes(512))),
        asyncio.create_task(io.allocate(folder + "/other", MIB, timeout_s=60)),
        asyncio.create_task(qemu_img.create(silent, MIB, VolumeFormat.RAW, mount=folder, held=io.kept)),
    ]
    while True:
        me = os.getpid()  # a child of mine is qemu-img, or bears the I/O helpers
        writers = [m for m in groups.session_members(me) if m.pid != me and (m.name == "qemu-img" or m.parent != me)]
        if len(writers) == 3:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # until each is in its write
    say(writers={m.pid: m.name for m in writers}, ended=[task.done() for task in begun])
    await line()
asyncio.run(main())
"""
)

OTHER = (
    PRELUDE
    + """
async def main():
    await joining.join(L, Place(), 2, timeout_s=60)
    say(joined=True)
    while (wanted := await line()) == "try":
        say(said=[await acquired() for _ in range(3)])
    say(tries=True)
    while (said := await acquired()) != "acquired":
        await asyncio.sleep(0.005)
    say(at=time.monotonic(), held=await L.held(LEASE))
    await line()
asyncio.run(main())
"""
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the second host was told, while the writers of the first end one after the other."""
    folder: Path = tmp_path_factory.mktemp("writers")
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "other")
    one, two = SanlockHost(folder, "one"), SanlockHost(folder, "two")
    seen: dict[str, Any] = {"refused": []}
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / "silent"))
        silent.listen()
        try:
            one.wait()
            two.wait()
            areas = make_areas(folder, "shared")
            holder = one.start(HOLDER, *areas, str(folder))
            assert json.loads(line_of(holder))["joined"]
            other = two.start(OTHER, *areas, str(folder))
            said = json.loads(line_of(holder))
            seen.update(said)
            assert json.loads(line_of(other))["joined"]
            writers = [int(pid) for pid in said["writers"]]
            _end_one_by_one(holder.pid, writers, other, seen)
            yield seen
        finally:
            one.stop()
            two.stop()


def _end_one_by_one(holder: int, writers: list[int], other: Any, seen: dict[str, Any]) -> None:
    first, second, last = writers
    with undying(first) as one, undying(second) as two, undying(last) as three:
        seen["session"] = [os.getsid(pid) for pid in writers]
        os.kill(last, signal.SIGSTOP)
        os.kill(holder, signal.SIGKILL)
        one.killed()
        two.killed()
        for ended in (one, two):
            tell(other, "try")
            seen["refused"] += json.loads(line_of(other))["said"]
            ended.let_go()
        tell(other, "try")
        seen["refused"] += json.loads(line_of(other))["said"]
        tell(other, "now")
        assert json.loads(line_of(other))["tries"]
        time.sleep(0.5)  # it tries all the time
        freed = time.monotonic()
        three.let_go()
    taken = json.loads(line_of(other))
    seen["after_ms"] = (taken["at"] - freed) * 1000
    seen["held"] = taken["held"]


def test_io_helpers_and_qemu_img_are_in_their_writes(seen: dict[str, Any]) -> None:
    names = sorted(seen["writers"].values())
    assert names[2] == "qemu-img"
    assert all(name.startswith("python") for name in names[:2])
    assert seen["ended"] == [False] * 3


def test_while_one_writer_lives_the_lease_is_held_by_the_host_of_the_dead_process(seen: dict[str, Any]) -> None:
    assert len(seen["refused"]) == 9
    assert all(said.startswith("LeaseHeld") and "host with id 1" in said for said in seen["refused"]), seen["refused"]


def test_the_lease_is_taken_at_once_when_the_last_writer_has_ended(seen: dict[str, Any]) -> None:
    print(f"taken {seen['after_ms']:.0f} ms after the end of the last writer")
    assert seen["held"]
    assert 0 < seen["after_ms"] < 2000


def test_the_number_of_the_dead_process_stays_with_its_writers(seen: dict[str, Any]) -> None:
    assert len(set(seen["session"])) == 1
