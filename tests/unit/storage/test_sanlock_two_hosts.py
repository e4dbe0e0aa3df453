# SPDX-License-Identifier: GPL-2.0-or-later
"""Leases beside a second host, with two real sanlock daemons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from two_sanlocks import SanlockHost, line_of, make_areas, missing, tell

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "-"), pytest.mark.timeout(120)]

TRIES = 8

PRELUDE = """
import asyncio, json, sys, time
from storage.leases.model import Lease, Lockspace
from storage.leases.sanlock_edge import SanlockLeases
from storage.file.host_ids import read_owner
from storage.file.io import FileIo
from storage.leases import joining
args = json.loads(sys.argv[1])
MIB = 1 << 20
L = SanlockLeases()
def areas(name, ids, leases):
    return Lockspace(name, ids, MIB, 512, 1), lambda n: Lease(name, f"r{n}", leases, n * MIB, MIB, 512)
class Place:
    def __init__(self, space):
        self.lockspace = space
        self.io = FileIo(space.path)
    async def host_id_owner(self, host_id):
        return await read_owner(self.io, self.lockspace, host_id)
async def join(space, host_id, *, timeout_s):
    await joining.join(L, Place(space), host_id, timeout_s=timeout_s)
async def line():
    return (await asyncio.to_thread(sys.stdin.readline)).strip()
def say(**what):
    print(json.dumps(what), flush=True)
async def outcome(call):
    start = time.monotonic()
    try:
        answer = await call
    except Exception as e:
        answer = f"{type(e).__name__}: {e}"
    return [answer, round(time.monotonic() - start, 1)]
"""

HOLDER = (
    PRELUDE
    + """
async def main():
    space, lease = areas("shared", *args[0])
    twin, _ = areas("twin", *args[1])
    for s in (space, twin):
        await L.format_lockspace(s)
    await L.format_lease(lease(1))
    await asyncio.gather(join(space, 2, timeout_s=60), join(twin, 1, timeout_s=60))
    say(ready=True)
    await line()
    await L.acquire(lease(1), timeout_s=60)
    say(taken=True)
    await line()
asyncio.run(main())
"""
)

CALLER = (
    PRELUDE
    + """
async def main():
    shared, taken = areas("shared", *args[0])
    twin, _ = areas("twin", *args[1])
    own, lease = areas("own", *args[2])
    await L.format_lockspace(own)
    for n in (1, 2):
        await L.format_lease(lease(n))
    twin_join = asyncio.create_task(outcome(join(twin, 1, timeout_s=100)))
    await join(own, 3, timeout_s=60)
    await L.acquire(lease(1), timeout_s=60)
    say(twin=await twin_join, another_id=await outcome(L.start_join(own, 4)))
    await L.leave(twin, 1)
    say(left_while_joining=await L.joined(twin, 1))
    waits = False
    while not waits:
        await line()  # host two is paused. We join afterwards, so our daemon never saw it alive and waits
        await join(shared, 1, timeout_s=60)
        waiting = asyncio.create_task(outcome(L.acquire(taken(1), timeout_s=100)))
        waits = not (await asyncio.wait([waiting], timeout=0.3))[0]
        say(waits=waits)
        if not waits:  # it had looked at the hosts of the lockspace before: whom it sees first counts as alive
            await L.leave(shared, 1)
    held, others, waited_for = [], [], []
    for _ in range(5):
        await asyncio.sleep(0.2)
        held.append(await outcome(L.held(lease(1))))
        others.append(await outcome(L.acquire(lease(2), timeout_s=20)))
        await L.release(lease(2))
        waited_for.append(await outcome(L.held(taken(1))))
    say(waits=not waiting.done(), held=held, others=others, waited_for=waited_for)
    owned = {"other": await L.owners(taken(1)), "own": await L.owners(lease(1)), "free": await L.owners(lease(2))}
    owned = {name: [o.host_id for o in found if not await L.is_gone(own if name != "other" else shared, o)]
        for name, found in owned.items()}
    nowhere = await outcome(L.read_lease(Lease("own", "gone", args[2][1] + ".none", 0, MIB, 512)))
    empty = await outcome(L.read_lease(lease(3)))
    say(owned=owned, nowhere=nowhere, empty=empty)
    say(acquire=await waiting, free=await outcome(L.held(taken(1))), first=await L.held(lease(1)))
    await L.release(lease(1))
    released = await L.held(lease(1))
    again = await outcome(L.acquire(lease(1), timeout_s=20))
    say(released=released, again=again, held=await L.held(lease(1)))
    await line()  # our daemon is dead
    say(without_daemon=await outcome(L.held(lease(1))), asked=await outcome(L.joined(own, 3)))
asyncio.run(main())
"""
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What the client of host one saw, step by step (one run: joining takes seconds)."""
    folder: Path = tmp_path_factory.mktemp("sanlock")
    one, two = SanlockHost(folder, "one"), SanlockHost(folder, "two")
    try:
        one.wait()
        two.wait()
        shared, twin, own = (make_areas(folder, name) for name in ("shared", "twin", "own"))
        holder = two.start(HOLDER, shared, twin)
        assert json.loads(line_of(holder))["ready"]
        caller = one.start(CALLER, shared, twin, own)
        lines = [json.loads(line_of(caller)) for _ in range(2)]
        tell(holder, "take it")
        assert json.loads(line_of(holder))["taken"]
        for _ in range(TRIES):
            two.pause()
            tell(caller, "paused")
            if json.loads(line_of(caller))["waits"]:
                break
            two.resume()
        lines.append(json.loads(line_of(caller)))
        two.resume()
        lines += [json.loads(line_of(caller)) for _ in range(3)]
        one.daemon.kill()
        one.daemon.wait()
        tell(caller, "dead")
        lines.append(json.loads(line_of(caller)))
        yield lines
    finally:
        one.stop()
        two.stop()


def test_a_host_id_that_another_host_uses_is_told_with_its_name(seen: list[dict[str, Any]]) -> None:
    text, seconds = seen[0]["twin"]
    assert "HostIdNotAcquired" in text and "Host id 1 in domain twin" in text and "'two'" in text
    assert seconds < 30  # sanlock itself says so after 8 I/O timeouts and 60 s


def test_a_second_host_id_of_this_host_is_refused(seen: list[dict[str, Any]]) -> None:
    assert "joined with another id" in seen[0]["another_id"][0]


def test_a_lockspace_is_left_while_joining_is_under_way(seen: list[dict[str, Any]]) -> None:
    assert seen[1]["left_while_joining"] is False


def test_while_an_acquire_waits_other_leases_are_held_taken_and_given_back(seen: list[dict[str, Any]]) -> None:
    during = seen[2]
    assert during["waits"]
    assert [answer for answer, _ in during["held"]] == [True] * 5
    assert all(answer >= 1 for answer, _ in during["others"])
    assert all(answer is False and seconds < 1 for answer, seconds in during["waited_for"])


def test_owners_tell_held_free_and_missing_leases_apart(seen: list[dict[str, Any]]) -> None:
    found = seen[3]
    assert found["owned"] == {"other": [2], "own": [3], "free": []}
    assert found["nowhere"][0].startswith("LeaseError") and "(2)" in found["nowhere"][0]
    assert found["empty"][0].startswith("LeaseNotFormatted")


def test_a_lease_of_a_live_host_names_who_holds_it(seen: list[dict[str, Any]]) -> None:
    after = seen[4]
    assert after["acquire"][0].startswith("LeaseHeld") and "id 2" in after["acquire"][0]
    assert after["free"][0] is False
    assert after["first"] is True


def test_a_released_lease_is_not_held_and_can_be_taken_again(seen: list[dict[str, Any]]) -> None:
    assert seen[5]["released"] is False
    assert seen[5]["again"][0] >= 2
    assert seen[5]["held"] is True


def test_a_lease_is_not_held_once_its_daemon_is_gone(seen: list[dict[str, Any]]) -> None:
    assert seen[6]["without_daemon"][0] is False
    assert seen[6]["asked"][0].startswith("SanlockUnavailable")
