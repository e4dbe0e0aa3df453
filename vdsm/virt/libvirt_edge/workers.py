# SPDX-License-Identifier: GPL-2.0-or-later
"""A bounded pool of threads for calls that may hang in libvirt.

Python can't interrupt a thread in C code. A call whose caller left (its deadline passed, or it was cancelled) hangs:
its thread is lost until the call comes back by itself, and is used again then.

    waiting -> running -> slow -> hung (its caller left) -> back
       |          |        '--> done
       |          '--> done, or hung: nobody waits for it, and only when it is slow, too, it is told that it hangs
       '-> left before it began: it never runs

- ``size`` calls run at once. One that runs for longer than ``slow_s`` makes room for another, so that a few that
  hang delay the others by no more than that. All running ones together are at most ``limit`` threads.
- At most ``per_vm`` calls of one VM run; its further ones wait, and let others pass. Once so many of them hang,
  its calls are refused at once (`VmCallsHang`); once ``limit`` hang, all are (`TooManyStuckCalls`).
- Whoever's deadline passes while its call waits gets `NotBegun`: nothing was done, and nothing will be.

All of this is kept on the event loop, and counted from what there is: a call is in the set of those that run until
its thread says that it is back, whatever became of its caller. So when all calls have come back the pool is as new.
Threads only take a call, run it and tell. They are daemonic: a hung call can't keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vdsm.virt.errors import HypervisorError, NotBegun, TooManyStuckCalls, Unanswered, VirtError, VmCallsHang

log = logging.getLogger("vdsm.virt.libvirt")

T = TypeVar("T")


@dataclass(eq=False)
class _Call:
    what: str
    vm_id: str
    run: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    context: contextvars.Context
    began: float = 0.0
    slow: bool = False
    hung: bool = False
    timer: asyncio.TimerHandle | None = None
    _ticket: threading.Lock = field(default_factory=threading.Lock)

    @property
    def about(self) -> str:
        """Calls about the host share a bound by what they do."""
        return self.vm_id or self.what

    def take(self) -> bool:
        """True for whoever comes first: the thread that would run it, or the caller that leaves."""
        return self._ticket.acquire(blocking=False)


class Workers:
    """Used from one event loop."""

    def __init__(self, name: str, size: int, *, limit: int = 8, per_vm: int = 2, slow_s: float = 1.0) -> None:
        self.name = name
        self._size = size
        self._limit = limit
        self._per_vm = per_vm
        self._slow_s = slow_s
        self._waiting: dict[_Call, None] = {}
        self._running: set[_Call] = set()
        self._idle: list[_Thread] = []
        self._threads = 0
        self._stopped = False

    @property
    def stuck(self) -> int:
        """Calls that hang: nobody waits for them any more, and they are not back."""
        return sum(call.hung for call in self._running)

    async def call(self, what: str, timeout_s: float, run: Callable[[], T], *, vm_id: str = "") -> T:
        """Run ``run`` in a thread. `Unanswered` after ``timeout_s``; `NotBegun` when it never ran."""
        loop = asyncio.get_running_loop()
        call = _Call(what, vm_id, run, loop, loop.create_future(), contextvars.copy_context())
        refusal = self._refusal(call)
        if refusal is not None:
            raise refusal
        call.future.add_done_callback(_retrieved)
        self._waiting[call] = None
        self._dispatch()
        begun = True
        try:
            await asyncio.wait([call.future], timeout=timeout_s)
        finally:
            if not call.future.done():
                begun = self._leave(call)
        if call.future.cancelled():
            raise (Unanswered if begun else NotBegun)(what, timeout_s)
        try:
            result: T = call.future.result()
            return result
        finally:
            del call  # an error knows this frame: with the call in it, only the garbage collector would free both

    def check_back(self, vm_id: str) -> None:
        """Raises `VmCallsHang` while a call about the VM hangs."""
        about_it = [call for call in self._running if call.hung and call.vm_id == vm_id]
        if about_it:
            raise VmCallsHang(vm_id, self.name, len(about_it), _told(about_it))

    def stop(self) -> None:
        """Let the threads end; hung ones stay until they come back, or the process ends. Nothing begins any more."""
        self._stopped = True
        self._refuse()
        while self._idle:
            self._idle.pop().end()

    def _refusal(self, call: _Call) -> VirtError | None:
        """Why the call can't wait for its turn."""
        if self._stopped:
            return HypervisorError(call.what, 0, "the agent ends")
        hung = [one for one in self._running if one.hung]
        if len(hung) >= self._limit:
            return TooManyStuckCalls(self.name, len(hung), _told(hung))
        about_it = [one for one in hung if one.about == call.about]
        if len(about_it) < self._per_vm:
            return None
        if call.vm_id:
            return VmCallsHang(call.vm_id, self.name, len(about_it), _told(about_it))
        return TooManyStuckCalls(self.name, len(about_it), _told(about_it))

    def _refuse(self) -> None:
        for call in tuple(self._waiting):
            refusal = self._refusal(call)
            if refusal is not None:
                del self._waiting[call]
                call.future.set_exception(refusal)

    def _dispatch(self) -> None:
        """Begin what may begin, in the order in which it came."""
        if not self._has_room():
            return
        for call in tuple(self._waiting):
            if sum(one.about == call.about for one in self._running) >= self._per_vm:
                continue
            del self._waiting[call]
            self._begin(call)
            if not self._has_room():
                return

    def _has_room(self) -> bool:
        quick = sum(not (call.slow or call.hung) for call in self._running)
        return quick < self._size and len(self._running) < self._limit

    def _begin(self, call: _Call) -> None:
        try:
            thread = self._idle.pop() if self._idle else self._new_thread()
        except RuntimeError as e:  # the system has no more
            call.future.set_exception(HypervisorError(call.what, 0, str(e)))
            return
        call.began = call.loop.time()
        call.timer = call.loop.call_later(self._slow_s, self._is_slow, call)
        self._running.add(call)
        thread.give(call)

    def _new_thread(self) -> _Thread:
        self._threads += 1
        return _Thread(f"{self.name}/{self._threads}", self._came_back)

    def _is_slow(self, call: _Call) -> None:
        call.slow = True
        self._tell_if_it_hangs(call)
        self._dispatch()

    def _leave(self, call: _Call) -> bool:
        """The caller goes without an answer. False: the call never ran, and never will."""
        call.future.cancel()
        if call in self._waiting:
            del self._waiting[call]
            return False
        if call.take():  # its thread has not begun, and won't
            return False
        call.hung = True
        self._tell_if_it_hangs(call)
        self._refuse()
        self._dispatch()
        return True

    def _tell_if_it_hangs(self, call: _Call) -> None:
        """A caller that leaves at once, as a look that a newer one replaces, leaves no call that hangs."""
        if call.slow and call.hung:
            log.warning("%s: %r hangs; %d do", self.name, call.what, self.stuck)

    def _came_back(self, thread: _Thread, call: _Call, result: object, error: BaseException | None) -> None:
        """On the loop: whatever became of the caller, the thread is free."""
        self._running.remove(call)
        if call.timer is not None:
            call.timer.cancel()
        if call.slow and call.hung:
            log.info("%s: %r came back after %.0f s", self.name, call.what, call.loop.time() - call.began)
        self._idle.append(thread)
        self._dispatch()
        while len(self._idle) > (0 if self._stopped else self._size):
            self._idle.pop(0).end()
        if call.future.done():
            return
        if error is None:
            call.future.set_result(result)
        else:
            call.future.set_exception(error)


class _Thread:
    """Runs one call at a time, and tells the loop of its caller when it is back."""

    def __init__(self, name: str, came_back: Callable[[_Thread, _Call, object, BaseException | None], None]) -> None:
        self._came_back = came_back
        self._inbox: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def give(self, call: _Call) -> None:
        self._inbox.put(call)

    def end(self) -> None:
        self._inbox.put(None)

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """Its own function, so that a thread which waits holds nothing of its last call. False: the thread ends."""
        call = self._inbox.get()
        if call is None:
            return False
        result, error = None, None
        if call.take():
            _of_thread.call = call
            try:
                result = call.context.run(call.run)
            except BaseException as e:  # noqa: BLE001 - the caller's future carries it
                error = e
        try:
            call.loop.call_soon_threadsafe(self._came_back, self, call, result, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return False
        finally:
            _of_thread.call = None
            del call, error  # it knows this frame
        return True


_of_thread = threading.local()


def check_wanted() -> None:
    """For what runs in a call's thread, between two questions. Raises `HypervisorError` when its caller has left."""
    call: _Call | None = getattr(_of_thread, "call", None)
    if call is not None and call.hung:
        raise HypervisorError(call.what, 0, "nobody waits for it any more")


def _told(calls: list[_Call]) -> str:
    now = calls[0].loop.time()
    return ", ".join(f"{call.what} for {now - call.began:.0f} s" for call in sorted(calls, key=lambda one: one.began))


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Its caller may have left: asyncio need not tell of an error that nobody waits for."""
    if not future.cancelled():
        future.exception()
