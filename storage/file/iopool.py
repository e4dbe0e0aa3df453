# SPDX-License-Identifier: GPL-2.0-or-later
"""The I/O of one mount: all requests of a process to it, through few helper processes, in lanes.

- A request waits for its turn in its lane (`iolanes`) and, when it writes, for earlier writes to the same path
  (`ioclaims`); then it has a helper (`ioprocess`) to itself until it is answered. Idle helpers are shared by all lanes
  and domains of the mount (`ioidle`).
- A helper that does not answer within the request's deadline is given up: killed, and no longer waited for. That
  takes no other request's helper down. While `hanging.MOST` processes hang on the mount, whoever had them, nothing
  is begun on it, and who waits is refused. So there are never more than `iolanes.MOST_HELPERS`.
- Who is cancelled leaves at once. A small write that has begun goes on to its end or deadline, and what became of it is
  logged; a read, and what takes long, is given up.
- Whatever descriptors are to be `kept` as long as something may still be written, each helper that writes holds copies
  of: until its process is gone, however it ends. One that only reads holds none: it may hang without keeping a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from storage.errors import IoFailed, StorageError, StorageNotResponding
from storage.file.ioclaims import Claim, Claims, EarlierWriteHangs
from storage.file.ioidle import KEPT_S, SPARE_S, Idle
from storage.file.iolanes import MOST_HELPERS, WIDTHS, Lane, Turns
from storage.file.ionursery import Nursery
from storage.file.ioprocess import HELPER_ENDED, Helper, Progress
from vdsm.common import hanging, masking, metrics

log = logging.getLogger("vdsm.storage.io")

CLOSE_S = 1.0
REQUEST_S = 60.0
"""The default deadline: the time after which a mount with the field's options gives up by itself."""

_SECONDS = metrics.histogram(
    "vdsm_storage_io_seconds", "Requests to mounts from asking to the answer, their wait included", ("lane", "result")
)


class User(Protocol):
    """Whose requests are told apart: a domain, or one look at a mount."""

    @property
    def name(self) -> str: ...
    @property
    def order(self) -> asyncio.Lock:
        """Held by each request of the metadata lane."""

    @property
    def closed(self) -> bool: ...


def _unheard(_done: int, _size: int) -> None:
    return


@dataclass(eq=False)
class Request:
    user: User
    lane: Lane
    op: str
    params: Mapping[str, Any]
    limit_s: float
    """In all, its wait included; in the bulk lane the longest silence."""
    writes: tuple[str, ...] = ()
    """The paths that it changes; none of what only reads."""
    replaces: bool = False
    progress: Progress = _unheard
    begun: bool = field(default=False, init=False)


class IoPool:
    """``mount`` is what hangs as one when it hangs."""

    def __init__(self, mount: str, nursery: Nursery, kept: Sequence[int] = ()) -> None:
        self.mount = mount
        self._nursery = nursery
        self._lanes = {lane: Turns(mount, width) for lane, width in WIDTHS.items()}
        self._claims = Claims()
        self._idle = Idle()
        self._idle.kept = tuple(kept)
        self._busy: set[Helper] = set()
        self._starting = 0
        self._running: dict[asyncio.Task[Any], Request] = {}
        self._users: set[User] = set()

    @property
    def kept(self) -> tuple[int, ...]:
        return self._idle.kept

    @property
    def in_use(self) -> bool:
        return bool(self._users or self._running or self._idle.helpers or self._claims)

    @property
    def stuck(self) -> int:
        """Processes that were given up on this mount and still exist."""
        return len(hanging.pids(self.mount))

    @property
    def pids(self) -> list[int]:
        """Process ids of the helpers and of whatever was given up on the mount, for memory figures."""
        return [helper.pid for helper in (*self._busy, *self._idle.helpers)] + hanging.pids(self.mount)

    def keep(self, descriptors: Sequence[int]) -> None:
        """Helpers that write hold copies of these from now on; one that holds others ends with the request that it
        has."""
        self._idle.kept = tuple(descriptors)
        self._idle.end_all()

    def join(self, user: User) -> None:
        """``user`` has the mount open until `leave`."""
        self._users.add(user)
        self._idle.kept_s = KEPT_S

    async def leave(self, user: User) -> None:
        """Its requests end. One that hangs is killed and left to the kernel."""
        self._users.discard(user)
        if not self._users:
            self._idle.kept_s = SPARE_S
            self._idle.see()
        await self._end([task for task, request in self._running.items() if request.user is user])

    async def end(self) -> None:
        """All requests and all helpers; it can be used again."""
        await self._end(list(self._running))
        self._idle.end_all()
        await self._idle.ended(CLOSE_S)

    async def ask(self, request: Request) -> Any:
        """The answer. Raises `IoFailed`, `StorageNotResponding`."""
        task = asyncio.get_running_loop().create_task(self._serve(request), context=masking.outside())
        self._running[task] = request
        task.add_done_callback(self._running.pop)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            asked_by = asyncio.current_task()
            assert asked_by is not None
            if not asked_by.cancelling():  # not the caller, the request was ended
                raise _closed(request) from None
            if request.begun and request.writes and request.lane is not Lane.BULK:
                task.add_done_callback(lambda ended: _tell_late(request, ended))
            else:
                task.cancel()
            raise

    async def _serve(self, request: Request) -> Any:
        started = asyncio.get_running_loop().time()
        result = "stopped"
        try:
            answer = await self._served(request)
            result = "answered"
            return answer
        except IoFailed:
            result = "failed"
            raise
        except StorageNotResponding:
            result = "silent"
            raise
        finally:
            _SECONDS.labels(request.lane, result).observe(asyncio.get_running_loop().time() - started)

    async def _served(self, request: Request) -> Any:
        await self._check(request)
        loop = asyncio.get_running_loop()
        lane = self._lanes[request.lane]
        claim = Claim(request.writes, replaces=request.replaces)
        asked = loop.time()
        async with contextlib.AsyncExitStack() as held:
            try:
                async with lane.patience(request.limit_s):
                    if request.lane is Lane.METADATA:
                        await held.enter_async_context(request.user.order)
                    await held.enter_async_context(self._claims.hold(claim))
                    await held.enter_async_context(lane.turn)
            except TimeoutError:
                await self._check(request)
                raise _silent(request, "waiting for its turn") from None
            except EarlierWriteHangs:
                raise _silent(request, "an earlier write to it hangs") from None
            left_s = request.limit_s if request.lane is Lane.BULK else request.limit_s - (loop.time() - asked)
            await self._check(request)
            return await self._exchange(request, claim, max(0.01, left_s))

    async def _exchange(self, request: Request, claim: Claim, left_s: float) -> Any:
        helper = self._idle.take(self._kept_by(request)) or await self._start(request)
        self._busy.add(helper)
        request.begun = True
        answered = False
        try:
            answer = await helper.ask({"op": request.op, **request.params}, left_s, self._told(request))
            answered = True
            return answer
        except IoFailed as e:
            answered = e.error != HELPER_ENDED
            raise
        except TimeoutError:
            raise _silent(request) from None
        finally:
            self._busy.discard(helper)
            if answered:
                self._put_back(helper, request)
            else:
                self._give_up(helper, claim)

    def _kept_by(self, request: Request) -> tuple[int, ...]:
        return self.kept if request.writes else ()

    async def _start(self, request: Request) -> Helper:
        self._starting += 1
        try:
            await self._make_room()
            while True:
                helper = await Helper.start(self._nursery, self.mount, self._kept_by(request))
                if helper.kept == self._kept_by(request):
                    return helper
                self._idle.end(helper)  # other descriptors are to be kept by now
        finally:
            self._starting -= 1

    async def _make_room(self) -> None:
        """Idle ones of the other kind give way."""
        ended = False
        while self._idle.helpers and self._starting + len(self.pids) > MOST_HELPERS:
            self._idle.end_first()
            ended = True
        if ended:
            await self._idle.ended(CLOSE_S)

    def _told(self, request: Request) -> Progress:
        def tell(done: int, size: int) -> None:
            self._lanes[request.lane].goes_forward()
            request.progress(done, size)

        return tell

    def _put_back(self, helper: Helper, request: Request) -> None:
        if request.lane is Lane.BULK:  # it has grown with its work
            self._lanes[Lane.BULK].goes_forward()
            self._idle.end(helper)
        elif helper.kept and helper.kept != self.kept:
            self._idle.end(helper)
        else:
            self._idle.put(helper)

    def _give_up(self, helper: Helper, claim: Claim) -> None:
        """One whose answer may be on its way, or never comes, cannot be asked again."""
        helper.kill()
        if helper.alive:
            claim.given_up = helper.end
            hanging.give_up(self.mount, helper.pid, helper.end)

    async def _end(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await hanging.settle(self.mount, CLOSE_S)

    async def _check(self, request: Request) -> None:
        """Raises when nothing may be begun."""
        if request.user.closed:
            raise _closed(request)
        try:
            await hanging.check(self.mount)
        except hanging.PlaceHangs as e:
            raise StorageNotResponding(
                request.user.name, f"{request.op} (refused: {e.count} helpers hang)", 0
            ) from None


class IoPools:
    """The pools of a process, by mount: one object, whose owner `close`s it."""

    def __init__(self, request_s: float = REQUEST_S) -> None:
        """``request_s``: for a request whose user says nothing else, its wait included."""
        self.request_s = request_s
        self._nursery = Nursery()
        self._kept: tuple[int, ...] = ()
        self._pools: dict[str, IoPool] = {}

    def of(self, mount: str) -> IoPool:
        if mount not in self._pools:
            self._pools = {name: pool for name, pool in self._pools.items() if pool.in_use}
            self._pools[mount] = IoPool(mount, self._nursery, self._kept)
        return self._pools[mount]

    def keep(self, descriptors: Sequence[int]) -> None:
        """What helpers of all mounts hold copies of until they are gone, as `IoPool.keep`; empty: nothing."""
        self._kept = tuple(descriptors)
        for pool in self._pools.values():
            pool.keep(descriptors)

    async def end(self, mount: str) -> None:
        """Of a mount that is about to go: no helper of it stays."""
        if mount in self._pools:
            await self._pools[mount].end()

    async def close(self) -> None:
        await asyncio.gather(*(pool.end() for pool in self._pools.values()))
        await self._nursery.close(CLOSE_S)


def _silent(request: Request, why: str = "") -> StorageNotResponding:
    what = f"{request.op} ({why})" if why else request.op
    return StorageNotResponding(request.user.name, what, request.limit_s)


def _closed(request: Request) -> IoFailed:
    return IoFailed(request.op, request.user.name, "EBADF", "the domain is closed")


def _tell_late(request: Request, ended: asyncio.Task[Any]) -> None:
    what = f"{request.op} of {', '.join(request.writes)}"
    if ended.cancelled():
        log.warning("%s was given up, after nobody waited for it any more", what)
    elif isinstance(error := ended.exception(), StorageError):
        log.warning("%s failed after nobody waited for it any more: %s", what, error)
    elif error is not None:
        log.error("%s failed after nobody waited for it any more", what, exc_info=error)
