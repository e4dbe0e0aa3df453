# SPDX-License-Identifier: GPL-2.0-or-later
"""Any life of a pool: calls that end, fail, hang, come back late, get cancelled and time out, in any order.

Threads are real. Time is not: the loop's clock stands still unless it is set forward, so that a hang costs nothing and
a life is the same each time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import NotBegun, TooManyStuckCalls, VmCallsHang
from vdsm.virt.libvirt_edge.workers import Workers

SIZE, LIMIT, PER_VM, SLOW_S = 2, 5, 2, 1.0
ENDS_S = 10.0
# of the loop, until a caller has heard
TURNS = 8


class LoopOfOurTime(asyncio.SelectorEventLoop):
    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def timers(self) -> list[float]:
        return [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]


class Refused(Exception):
    """How a call fails in libvirt."""


@dataclass(eq=False)
class One:
    """A call as this test sees it."""

    vm_id: str
    fails: bool
    caller: asyncio.Task[Any] = field(init=False)
    release: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    must_not_run: bool = False

    def run(self) -> str:
        self.begun.set()
        self.release.wait(ENDS_S)
        self.ended.set()
        if self.fails:
            raise Refused
        return "done"

    @property
    def runs(self) -> bool:
        return self.begun.is_set() and not self.ended.is_set()


class PoolLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = LoopOfOurTime()
        self.workers = Workers("life", SIZE, limit=LIMIT, per_vm=PER_VM, slow_s=SLOW_S)
        self.calls: list[One] = []

    @property
    def running(self) -> list[One]:
        return [one for one in self.calls if one.runs]

    @property
    def waiting(self) -> list[One]:
        return [one for one in self.calls if not one.begun.is_set() and not one.caller.done()]

    def new(self, vm_id: str, timeout_s: float, *, fails: bool = False) -> One:
        one = One(vm_id, fails)
        timeout_s += len(self.calls) / 1000  # no two timers at once
        one.caller = self.loop.create_task(self.workers.call("call", timeout_s, one.run, vm_id=vm_id))
        one.caller.add_done_callback(lambda caller: caller.cancelled() or caller.exception())
        self.calls.append(one)
        self.settle()
        return one

    def settle(self) -> None:
        """Until every thread has begun what it was given, or has told that it is back."""
        limit = time.monotonic() + ENDS_S
        quiet = 0
        while quiet < TURNS:
            self.loop.run_until_complete(asyncio.sleep(0))
            given = {call.run.__self__ for call in self.workers._running}  # type: ignore[attr-defined]
            quiet = quiet + 1 if all(one.runs and not one.release.is_set() for one in given) else 0
            assert time.monotonic() < limit, "a thread does not tell"
        for one in self.calls:
            if one.caller.done() and not one.begun.is_set():
                one.must_not_run = True

    def skip(self, seconds: float) -> None:
        """One timer after the other: two at once may race, and then a life is not the same each time."""
        until_s = self.loop.now_s + seconds
        while times := [when for when in self.loop.timers() if when <= until_s]:
            self.loop.now_s = min(times)
            self.settle()
        self.loop.now_s = until_s
        self.settle()

    @rule(vm_id=st.sampled_from(["a", "b", "c"]), timeout_s=st.sampled_from([0.5, 5.0, 60.0]), fails=st.booleans())
    def call(self, vm_id: str, timeout_s: float, fails: bool) -> None:
        self.new(vm_id, timeout_s, fails=fails)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_ends(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.running))
        waited_for = not one.caller.done()
        one.release.set()
        self.settle()
        if waited_for:
            assert one.caller.done()
            assert isinstance(one.caller.exception(), Refused) if one.fails else one.caller.result() == "done"

    @precondition(lambda self: any(not one.caller.done() for one in self.calls))
    @rule(data=st.data())
    def a_caller_is_cancelled(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([one for one in self.calls if not one.caller.done()]))
        one.caller.cancel()
        one.must_not_run = not one.begun.is_set()
        self.settle()
        assert one.caller.cancelled()

    @rule(seconds=st.sampled_from([0.1, SLOW_S, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.skip(seconds)

    @precondition(lambda self: len(self.running) + len(self.waiting) < LIMIT)
    @rule()
    def a_new_vms_call_gets_a_thread_within_its_time(self) -> None:
        turns = len(self.waiting) + 1
        one = self.new(f"new {len(self.calls)}", (turns + 1) * SLOW_S)
        for _ in range(turns):
            self.skip(0 if one.begun.is_set() else SLOW_S)
        assert one.begun.is_set()
        one.release.set()
        self.settle()
        assert one.caller.result() == "done"

    @invariant()
    def no_more_run_than_may(self) -> None:
        running = self.running
        assert len(running) <= LIMIT
        assert all(sum(one.vm_id == vm_id for one in running) <= PER_VM for vm_id in "abc")

    @invariant()
    def what_hangs_is_counted(self) -> None:
        assert self.workers.stuck == sum(one.caller.done() for one in self.running)

    @invariant()
    def what_was_given_up_before_it_began_never_runs(self) -> None:
        assert not [one for one in self.calls if one.must_not_run and one.begun.is_set()]

    @invariant()
    def callers_hear_what_became_of_their_calls(self) -> None:
        for one in self.calls:
            if not one.caller.done() or one.caller.cancelled():
                continue
            error = one.caller.exception()
            if isinstance(error, (NotBegun, TooManyStuckCalls, VmCallsHang)):
                assert not one.begun.is_set()
            elif isinstance(error, DeadlineExceeded):
                assert one.begun.is_set()

    def teardown(self) -> None:
        for one in self.calls:
            one.release.set()
        self.settle()
        self.loop.run_until_complete(asyncio.sleep(0))
        assert (self.workers.stuck, self.waiting, self.running) == (0, [], [])
        self.as_new()
        self.workers.stop()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def as_new(self) -> None:
        """Once all are back: so many calls at once as a new pool takes, and not one more."""
        news = [self.new(f"{place}", 60.0) for place in range(SIZE + 1)]
        assert [one.begun.is_set() for one in news] == [True] * SIZE + [False]
        for one in news:
            one.release.set()
        self.settle()
        assert [one.caller.result() for one in news] == ["done"] * (SIZE + 1)


TestPoolLife = PoolLife.TestCase
TestPoolLife.settings = settings(stateful_step_count=25)
