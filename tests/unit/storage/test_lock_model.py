# SPDX-License-Identifier: GPL-2.0-or-later
"""Any life of a host's lock table: flows of the agent, of its processes, verbs that lend, cancels, time-outs, deaths.

Time stands still unless it is set forward, and links, deaths and late writers are played, so a life costs nothing
and is the same each time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage import grants as grants_module
from storage import locks
from storage.grants import Grants
from storage.lock_link import LENT, LocksByLink
from storage.lock_table import Locks
from storage.locks import Lock, LockTable, LockTimeout, Mode
from vdsm.common import errors
from vdsm.common.deadlines import deadline
from vdsm.common.groups import Left
from vdsm.common.link import LinkClosed

DOMAINS = {"d": "/mnt/a", "e": "/mnt/b"}
PLACES = ["/mnt/a", "/mnt/b", ""]
PROCESSES = 2
TURNS = 40
LATEST_S = 1000.0

modes = st.sampled_from([Mode.SHARED, Mode.EXCLUSIVE])
domain_locks = st.builds(locks.domain, st.sampled_from("de"), modes)
image_locks = st.builds(locks.image, st.sampled_from("de"), st.just("i"), modes)
wanted_locks = st.lists(st.one_of(domain_locks, image_locks), min_size=1, max_size=3).map(locks.merge)


class LoopOfOurTime(asyncio.SelectorEventLoop):
    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def timers(self) -> list[float]:
        return [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]


class Wire:
    """A link: a call is served to its end whoever waits for it; the last word was spoken when it is closed."""

    def __init__(self, loop: LoopOfOurTime, grants: Grants) -> None:
        self._loop, self._grants = loop, grants
        self._waiting: set[asyncio.Future[Any]] = set()
        self.closed = False

    async def call(self, verb: str, params: Mapping[str, Any], *, timeout_s: float) -> Any:
        if self.closed:
            raise LinkClosed("the agent")
        answer: asyncio.Future[Any] = self._loop.create_future()
        serving = self._loop.create_task(self._grants.serve(verb, json.loads(json.dumps(params))))
        serving.add_done_callback(lambda done: self._tell(done, answer))
        self._waiting.add(answer)
        try:
            async with deadline(verb, timeout_s):
                return await answer
        finally:
            self._waiting.discard(answer)

    def close(self) -> None:
        self.closed = True
        for answer in self._waiting:
            answer.set_exception(LinkClosed("the agent"))
        self._waiting.clear()

    @staticmethod
    def _tell(done: asyncio.Task[Any], answer: asyncio.Future[Any]) -> None:
        failed = None if done.cancelled() else done.exception()
        if answer.done() or done.cancelled():
            return
        if failed is None:
            answer.set_result(json.loads(json.dumps(done.result())))
        else:
            answer.set_exception(errors.decode(errors.encode(failed)))


class Process:
    """One that the agent started; ``writers``: what outlives it, by pid."""

    def __init__(self, loop: LoopOfOurTime, table: Locks, pid: int) -> None:
        self.pid = pid
        self.grants = Grants(table, lambda ids: {d: DOMAINS[d] for d in ids}, "a process")
        self.wire = Wire(loop, self.grants)
        self.held = LocksByLink()
        self.held.link = self.wire  # type: ignore[assignment]
        self.writers: dict[int, str] = {}
        self.dead = False
        self.changed = asyncio.Event()


@dataclass(eq=False)
class Flow:
    who: str
    wanted: list[Lock]
    process: Process | None
    entered: bool = False
    left: bool = False
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] = field(init=False)
    lent_to: Process | None = None
    served: asyncio.Task[Any] | None = None

    @property
    def waits(self) -> bool:
        return not self.entered and not self.task.done()

    @property
    def holds(self) -> bool:
        return self.entered and not self.left


class TableLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = LoopOfOurTime()
        asyncio.set_event_loop(self.loop)
        self.table = Locks()
        self.processes = [self.new_process(number) for number in range(PROCESSES)]
        self.gone: list[Process] = []
        self.flows: list[Flow] = []
        self.queues: dict[str, list[str]] = {}
        self.holders: dict[str, set[str]] = {}
        self.patches = [
            mock.patch.object(grants_module.groups, "left_by", self.left_by),
            mock.patch.object(grants_module.ends, "first_end", self.first_end),
        ]
        for patch in self.patches:
            patch.start()

    # The world

    def new_process(self, number: int) -> Process:
        return Process(self.loop, self.table, 100 + number)

    def left_by(self, pid: int) -> list[Left]:
        [process] = [process for process in self.gone if process.pid == pid]
        return [Left(writer, place) for writer, place in process.writers.items()]

    async def first_end(self, pids: Iterable[int]) -> None:
        asked = set(pids)
        [process] = [process for process in self.gone if asked & process.writers.keys()]
        process.changed.clear()
        await process.changed.wait()

    def settle(self) -> None:
        self.loop.run_until_complete(_turns(TURNS))

    async def _run(self, flow: Flow, wait_s: float) -> None:
        held: LockTable = self.table if flow.process is None else flow.process.held
        try:
            async with held.hold(flow.wanted, who=flow.who, wait_s=wait_s) as grant:
                flow.entered = True
                if flow.lent_to is not None and not flow.lent_to.dead:
                    number = flow.lent_to.grants.lend(grant)  # type: ignore[arg-type]
                    served = flow.lent_to.held.under_grants(self._until_left(flow))
                    flow.served = self.loop.create_task(served("verb", {LENT: number}))
                else:
                    await flow.leave.wait()
                    flow.left = True
        except LockTimeout as e:
            assert flow.who not in e.holders.replace(",", "").split()  # noqa: PT017 - of the flow itself
            assert e.holders  # noqa: PT017
        except LinkClosed:
            assert flow.process is not None
            assert flow.process.dead

    def _until_left(self, flow: Flow) -> Any:
        async def serve(verb: str, params: dict[str, Any]) -> None:
            await flow.leave.wait()
            flow.left = True

        return serve

    # What happens

    @rule(wanted=wanted_locks, where=st.sampled_from([None, 0, 1]), wait_s=st.sampled_from([1.0, 50.0, 5000.0]))
    def a_flow_begins(self, wanted: list[Lock], where: int | None, wait_s: float) -> None:
        self.begin(Flow(f"f{len(self.flows)}", wanted, None if where is None else self.processes[where]), wait_s)

    @rule(wanted=wanted_locks, to=st.sampled_from([0, 1]))
    def a_verb_lends_what_it_gets_and_goes_away(self, wanted: list[Lock], to: int) -> None:
        self.begin(Flow(f"f{len(self.flows)}", wanted, None, lent_to=self.processes[to]), 50.0)

    def begin(self, flow: Flow, wait_s: float) -> None:
        self.flows.append(flow)
        flow.task = self.loop.create_task(self._run(flow, wait_s))
        self.settle()

    @precondition(lambda self: any(flow.holds for flow in self.flows))
    @rule(data=st.data())
    def a_flow_ends(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([flow for flow in self.flows if flow.holds])).leave.set()
        self.settle()

    @precondition(lambda self: any(flow.waits for flow in self.flows))
    @rule(data=st.data(), together=st.booleans(), turns=st.integers(0, 6))
    def one_that_waits_is_cancelled(self, data: st.DataObject, together: bool, turns: int) -> None:
        """Maybe just when its turn comes."""
        holding = [flow for flow in self.flows if flow.holds]
        if together and holding:
            data.draw(st.sampled_from(holding)).leave.set()
            self.loop.run_until_complete(_turns(turns))
        waiting = [flow for flow in self.flows if flow.waits]
        if waiting:
            data.draw(st.sampled_from(waiting)).task.cancel()
        self.queues = {}  # who came in meanwhile is not known
        self.settle()
        for flow in self.flows:
            if flow.task.done() and flow.process is None and flow.lent_to is None:
                flow.left = flow.entered

    @rule(seconds=st.sampled_from([0.5, 1.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.skip(seconds)

    def skip(self, seconds: float) -> None:
        until_s = self.loop.now_s + seconds
        while times := [when for when in self.loop.timers() if when <= until_s]:
            self.loop.now_s = max(self.loop.now_s, min(times))
            self.settle()
        self.loop.now_s = until_s
        self.settle()

    @precondition(lambda self: len(self.gone) < PROCESSES)
    @rule(which=st.sampled_from([0, 1]), places=st.lists(st.sampled_from(PLACES), max_size=2))
    def a_process_dies(self, which: int, places: list[str]) -> None:
        process = self.processes[which]
        process.dead = True
        process.wire.close()
        process.writers = {1000 * process.pid + at: place for at, place in enumerate(places)}
        self.gone.append(process)
        for flow in self.flows:
            if flow.process is process:
                flow.task.cancel()
            if flow.lent_to is process and flow.served is not None:
                flow.served.cancel()
                flow.lent_to, flow.process = None, process
        self.processes[which] = self.new_process(PROCESSES + len(self.gone))
        self.queues = {}
        self.loop.run_until_complete(_end(process))
        self.settle()

    @precondition(lambda self: any(process.writers for process in self.gone))
    @rule(data=st.data())
    def a_late_writer_ends(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from([process for process in self.gone if process.writers]))
        process.writers.pop(data.draw(st.sampled_from(sorted(process.writers))))
        process.changed.set()
        self.settle()

    # What must be

    def kept(self, flow: Flow) -> list[Lock]:
        """What must be held of a flow that had all its locks when its process died."""
        assert flow.process is not None
        places = flow.process.writers.values()
        mounts = {DOMAINS[lock.domain_id] for lock in flow.wanted}
        return flow.wanted if any(place in mounts or not place for place in places) else []

    def must_hold(self, flow: Flow) -> list[Lock]:
        if not flow.holds:
            return []
        return self.kept(flow) if flow.process is not None and flow.process.dead else flow.wanted

    @invariant()
    def nobody_is_beside_who_is_alone(self) -> None:
        for state in self.table.states():
            assert len(state.holders) == 1 or state.mode is Mode.SHARED, state
            assert state.holders, state

    @invariant()
    def who_is_in_has_all_its_locks_and_their_mode(self) -> None:
        states = {state.lock: state for state in self.table.states()}
        for flow in self.flows:
            for lock in self.must_hold(flow):
                state = states[str(lock)]
                assert flow.who in [_name(who) for who, _ in state.holders], (flow.who, state)
                assert lock.mode is Mode.SHARED or state.mode is Mode.EXCLUSIVE

    @invariant()
    def nobody_else_has_any(self) -> None:
        alive = {flow.who for flow in self.flows if flow.waits or self.must_hold(flow)}
        for state in self.table.states():
            assert {_name(who) for who, _ in state.holders} <= alive, state
            assert {_name(who) for who, _, _ in state.waiting} <= alive, state

    @invariant()
    def who_can_come_in_does_not_wait(self) -> None:
        for state in self.table.states():
            if state.waiting:
                assert Mode.EXCLUSIVE in (state.waiting[0][1], state.mode), state

    @invariant()
    def nobody_passes_who_came_before(self) -> None:
        now = {state.lock: state for state in self.table.states()}
        for lock, before in self.queues.items():
            waiting = [_name(who) for who, _, _ in now[lock].waiting] if lock in now else []
            still = [who for who in before if who in waiting]
            assert waiting[: len(still)] == still, (lock, before, waiting)
            if still and (came := {_name(who) for who, _ in now[lock].holders} - self.holders.get(lock, set())):
                assert came <= set(before[: before.index(still[0])]), (lock, before, came)
        self.queues = {lock: [_name(who) for who, _, _ in state.waiting] for lock, state in now.items()}
        self.holders = {lock: {_name(who) for who, _ in state.holders} for lock, state in now.items()}

    @invariant()
    def of_the_dead_the_writer_is_named(self) -> None:
        for state in self.table.states():
            for who, _ in state.holders:
                flow = self.flows[int(_name(who)[1:])]
                if flow.process is not None and flow.process.dead:
                    assert any(f"writer {pid} still" in who for pid in flow.process.writers), who

    def teardown(self) -> None:
        """With no writer left and nobody giving up, everybody gets what it waits for, and nothing stays."""
        for process in self.gone:
            process.writers.clear()
            process.changed.set()
        self.settle()
        for _ in self.flows:
            for flow in self.flows:
                if flow.entered:
                    flow.leave.set()
            self.settle()
        assert not [flow.who for flow in self.flows if flow.waits], self.table.states()
        assert self.table.states() == []
        for process in (*self.processes, *self.gone):
            assert process.grants._taking == {}
            assert process.grants._held == {}
        for patch in self.patches:
            patch.stop()
        broken = [flow.task.exception() for flow in self.flows if not flow.task.cancelled()]
        assert not any(broken), broken
        left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        self.loop.close()
        assert left == []


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _end(process: Process) -> None:
    process.grants.end(process.pid)


def _name(who: str) -> str:
    return who.partition(" ")[0]


TestTableLife = TableLife.TestCase
TestTableLife.settings = settings(max_examples=40, stateful_step_count=30)
