# SPDX-License-Identifier: GPL-2.0-or-later
"""Random requests, hangs, cancels and closes over the lanes of one mount, in a time that jumps.

The helper processes are a model: each is told to die and does so soon, late, or when the mount comes back. Whatever
happens: nobody waits beyond a deadline, health and mail are behind nothing but themselves, there are never more helpers
than allowed, no write begins while an earlier one to its path may still land, and those of one lane of a domain land in
their order.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import IoFailed, StorageNotResponding
from storage.file import iopool
from storage.file.ioclaims import GONE_S
from storage.file.iolanes import MOST_HELPERS, WIDTHS, Lane
from storage.file.iopool import IoPools, Request
from tests.unit.virt.virtual_time import Clock, VirtualLoop
from vdsm.common import hanging

MOUNT = "/mnt"
LIMIT_S = 10.0
NEVER_S = 1e6
START_S = 0.05
SLACK_S = 2 * hanging.SETTLE_S + GONE_S + 2 * START_S
"""What is waited for beside storage: the end of what was killed, and starts."""


@dataclass(eq=False)
class User:
    name: str
    order: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False


KEPT = (7,)
"""What is to be kept; nobody looks at it here."""


@dataclass(frozen=True)
class Ask:
    lane: Lane
    user: int
    takes_s: float
    path: str = ""
    """Written in place; empty: only read."""
    dies_s: float = 0.01
    """Until its helper is gone once it was killed."""
    leaves_s: float = 0.0
    """When its caller leaves, after it asked; 0: never."""


@dataclass(frozen=True)
class Pass:
    seconds: float


@dataclass(frozen=True)
class Close:
    user: int


class Process:
    numbers = itertools.count(1)

    def __init__(self, world: "World", kept: tuple[int, ...]) -> None:
        self.world = world
        self.kept = kept
        self.pid = next(self.numbers)
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.dies_s = 0.01
        self.killed = False
        world.alive.add(self)
        assert len(world.alive) <= MOST_HELPERS

    @property
    def alive(self) -> bool:
        return not self.end.done()

    async def ask(self, request: dict[str, Any], silence_s: float, progress: Any) -> str:
        assert not self.killed
        self.dies_s = request["dies_s"]
        path = request["path"]
        assert self.kept == (KEPT if path else ()), "who reads keeps a lease, or who writes none"
        if path:
            self.world.begins(path, request["whose"], request["number"], self)
        left = request["takes_s"]
        if request["op"] == "allocate" and left < NEVER_S:
            while left > 0:
                await asyncio.sleep(min(1.0, left))
                left -= 1.0
                progress(1, 2)
        else:
            async with asyncio.timeout(silence_s):
                await asyncio.sleep(left)
        if path:
            self.world.ends(path)
        self.dies_s = 0.01  # it does nothing any more
        return "done"

    def kill(self) -> None:
        if not self.killed:
            self.killed = True
            asyncio.get_running_loop().call_later(self.dies_s if self.world.dead else 0.01, self.dies)

    def dies(self) -> None:
        self.world.alive.discard(self)
        self.world.under_way = {path: one for path, one in self.world.under_way.items() if one is not self}
        if not self.end.done():
            self.end.set_result(None)


class World:
    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.alive: set[Process] = set()
        self.dead = True
        self.under_way: dict[str, Process] = {}
        self.begun: dict[tuple[str, str], int] = {}
        self.pools = IoPools()
        self.pools.keep(KEPT)
        self.pool = self.pools.of(MOUNT)
        self.users = [User(f"domain{n}") for n in range(3)]
        for user in self.users:
            self.pool.join(user)
        self.numbers = itertools.count(1)
        self.asked: list[tuple[asyncio.Task[None], Ask]] = []

    def begins(self, path: str, whose: str, number: int, process: Process) -> None:
        assert path not in self.under_way, "two writes at once"
        assert number > self.begun.get((path, whose), 0), "an older write after a newer one"
        self.begun[path, whose] = number
        self.under_way[path] = process

    def ends(self, path: str) -> None:
        del self.under_way[path]

    async def start(self, _nursery: object, _mount: str, kept: tuple[int, ...]) -> Process:
        await asyncio.sleep(START_S)
        return Process(self, kept)

    def ask(self, ask: Ask) -> None:
        op = "allocate" if ask.lane is Lane.BULK else "request"
        whose = f"{self.users[ask.user].name} {ask.lane}"
        params = _params(ask.takes_s, next(self.numbers), ask.path, whose, ask.dies_s)
        writes = (ask.path,) if ask.path else ()
        request = Request(self.users[ask.user], ask.lane, op, params, LIMIT_S, writes)
        before = [other for task, other in self.asked if not task.done() and other.lane is ask.lane]
        self.asked.append((asyncio.ensure_future(self._watch(request, ask, before)), ask))

    async def _watch(self, request: Request, ask: Ask, before: list[Ask]) -> None:
        started = self.loop.time()
        asking = asyncio.ensure_future(self.pool.ask(request))
        if ask.leaves_s:
            self.loop.call_later(ask.leaves_s, asking.cancel)
        try:
            await asyncio.shield(asking)
        except asyncio.CancelledError:
            assert self.loop.time() - started <= ask.leaves_s + 0.001
            return
        except (StorageNotResponding, IoFailed) as e:
            answer: Exception | None = e
        else:
            answer = None
        took_s = self.loop.time() - started
        if ask.lane is Lane.BULK:
            return
        assert took_s <= LIMIT_S + SLACK_S
        if ask.lane in (Lane.HEALTH, Lane.MAIL) and not ask.path:
            front_s = sum(min(other.takes_s, LIMIT_S) + SLACK_S for other in before)
            assert took_s <= front_s + min(ask.takes_s, LIMIT_S) + SLACK_S, "behind another lane"
        if answer is None:
            assert ask.takes_s < LIMIT_S

    async def close(self, user: User) -> None:
        user.closed = True
        await self.pool.leave(user)


asks = st.builds(
    Ask,
    lane=st.sampled_from(Lane),
    user=st.integers(0, 2),
    takes_s=st.sampled_from([0.01, 0.5, 3.0, 9.0, 25.0, NEVER_S]),
    path=st.sampled_from(["", "", "a", "b"]),
    dies_s=st.sampled_from([0.01, 0.01, 0.5, 30.0, NEVER_S]),
    leaves_s=st.sampled_from([0.0, 0.0, 0.2, 4.0]),
)
steps = st.lists(
    st.one_of(
        asks, asks, asks, st.builds(Pass, st.sampled_from([0.1, 2.0, 11.0, 40.0])), st.builds(Close, st.integers(0, 2))
    ),
    max_size=40,
)


async def _live(world: World, wanted: list[Any]) -> None:
    for step in wanted:
        if isinstance(step, Ask):
            world.ask(step)
        elif isinstance(step, Pass):
            await asyncio.sleep(step.seconds)
        else:
            await world.close(world.users[step.user])
            world.users[step.user] = User(f"{world.users[step.user].name}+")
            world.pool.join(world.users[step.user])
    await asyncio.wait_for(asyncio.gather(*(task for task, _ in world.asked)), 100 * LIMIT_S)
    world.dead = False  # the mount comes back
    for process in list(world.alive):
        if process.killed:
            process.dies()
    await asyncio.sleep(LIMIT_S + 1)  # writes that nobody waits for
    for lane in Lane:
        assert await world.pool.ask(Request(world.users[0], lane, "request", _params(0.01, 0), LIMIT_S)) == "done"
    for user in world.users:
        await world.close(user)
    await world.pools.close()
    await asyncio.sleep(1)
    assert not world.alive
    assert not hanging.pids(MOUNT)
    assert not world.pool.in_use


def _params(takes_s: float, number: int, path: str = "", whose: str = "", dies_s: float = 0.01) -> dict[str, Any]:
    return {"takes_s": takes_s, "path": path, "dies_s": dies_s, "number": number, "whose": whose}


def _run(monkeypatch: pytest.MonkeyPatch, live: Callable[[World], Awaitable[None]]) -> None:
    failed: list[str] = []
    loop = VirtualLoop(Clock(), failed.append, lambda: 0.0)
    asyncio.set_event_loop(loop)

    async def run() -> None:
        world = World(loop)
        monkeypatch.setattr(iopool.Helper, "start", world.start)
        await live(world)

    try:
        loop.run(run())
    finally:
        loop.bury()
        asyncio.set_event_loop(None)
    assert not failed


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=steps)
def test_whatever_happens_lanes_keep_their_promises(monkeypatch: pytest.MonkeyPatch, wanted: list[Any]) -> None:
    _run(monkeypatch, lambda world: _live(world, wanted))


def test_who_waits_behind_bulk_that_goes_forward_is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the silence that is allowed, while a piece is told each second."""

    async def live(world: World) -> None:
        asks = [
            world.pool.ask(Request(world.users[0], Lane.BULK, "allocate", _params(3 * LIMIT_S, n), LIMIT_S))
            for n in range(3 * WIDTHS[Lane.BULK])
        ]
        assert await asyncio.gather(*asks) == ["done"] * len(asks)

    _run(monkeypatch, live)


def test_who_is_idle_after_reading_makes_room_for_who_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `Process` counts those that live."""

    async def live(world: World) -> None:
        lanes = [lane for lane, width in WIDTHS.items() for _ in range(width)]
        users = itertools.cycle(world.users)
        for paths in ([""] * len(lanes), [f"path{n}" for n in range(len(lanes))]):
            asks = [
                world.pool.ask(
                    Request(next(users), lane, "request", _params(0.5, n, path), LIMIT_S, (path,)[: len(path)])
                )
                for n, (lane, path) in enumerate(zip(lanes, paths, strict=True), 1)
            ]
            assert await asyncio.gather(*asks) == ["done"] * len(asks)

    _run(monkeypatch, live)
