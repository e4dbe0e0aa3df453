# SPDX-License-Identifier: GPL-2.0-or-later
"""Fair turns."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm.rpc.turns import HUNG_S, MAX_BEHIND, Kind, LineFull, Turns


async def settle(rounds=40):
    for _ in range(rounds):
        await asyncio.sleep(0)


class Workers:
    """Calls that run until told; ``order`` is the order in which they got their turn."""

    def __init__(self, turns):
        self.turns = turns
        self.order = []
        self.gates = {}

    def start(self, name, client, about="", **more):
        self.gates[name] = asyncio.Event()
        return asyncio.create_task(self._work(name, self.turns.turn(client, about, **{"verb": name} | more)))

    async def _work(self, name, turn):
        async with turn:
            self.order.append(name)
            await self.gates[name].wait()

    async def end(self, tasks):
        for gate in self.gates.values():
            gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_no_client_gets_more_than_its_share():
    workers = Workers(Turns(total=10, per_client=2))
    tasks = [workers.start(f"a{i}", "a") for i in range(5)]
    await settle()
    assert workers.order == ["a0", "a1"]
    workers.gates["a0"].set()
    await settle()
    assert workers.order == ["a0", "a1", "a2"]
    for gate in workers.gates.values():
        gate.set()
    await asyncio.gather(*tasks)
    assert workers.turns.waiting == 0


async def test_lines_are_served_in_rotation():
    workers = Workers(Turns(total=1, per_client=1))
    tasks = [workers.start(name, name[0]) for name in ("x0", "a0", "a1", "a2", "b0", "c0")]
    await settle()
    for gate in workers.gates.values():
        gate.set()
    await asyncio.gather(*tasks)
    assert workers.order == ["x0", "a0", "b0", "c0", "a1", "a2"]


@pytest.mark.parametrize("count", [1, 3])
async def test_cancelled_waiters_leave_no_trace(count):
    turns = Turns(total=1, per_client=1)
    workers = Workers(turns)
    first = workers.start("first", "a")
    await settle()
    waiting = [workers.start(f"w{i}", "b") for i in range(count)]
    await settle()
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert turns.waiting == 0
    workers.gates["first"].set()
    await first
    last = workers.start("last", "b")
    workers.gates["last"].set()
    await asyncio.wait_for(last, 1)


async def test_turn_that_comes_with_the_cancellation_is_passed_on():
    turns = Turns(total=1, per_client=1)
    workers = Workers(turns)
    first, second, third = (workers.start(name, name) for name in ("first", "second", "third"))
    await settle()
    workers.gates["first"].set()
    await asyncio.sleep(0)  # first ends and hands its turn to second, which has not run yet
    second.cancel()
    workers.gates["third"].set()
    await asyncio.wait_for(third, 1)
    await asyncio.wait([first, second])


async def test_all_clients_together_get_no_more_than_there_is():
    workers = Workers(Turns(total=3, per_client=2))
    tasks = [workers.start(f"{client}{i}", client) for client in "abc" for i in range(2)]
    await settle()
    assert sorted(workers.order) == ["a0", "b0", "c0"]
    workers.gates["b0"].set()
    await settle()
    assert len(workers.order) == 4
    for gate in workers.gates.values():
        gate.set()
    await asyncio.gather(*tasks)
    assert len(workers.order) == 6


async def test_a_full_line_says_how_long_it_is_and_what_is_vital_waits_all_the_same():
    turns = Turns(total=1, per_client=1, max_line=1)
    async with turns.turn("a"):
        waiting = asyncio.create_task(turns.turn("a").__aenter__())
        await settle()
        with pytest.raises(LineFull) as e:
            async with turns.turn("a"):
                pass
        assert (e.value.waiting, e.value.about) == (1, "")
        vital = asyncio.create_task(turns.turn("a", kind=Kind.VITAL).__aenter__())
        await settle()
        assert turns.waiting == 2
        for task in (waiting, vital):
            task.cancel()
        await asyncio.gather(waiting, vital, return_exceptions=True)
    assert not turns._clients


async def test_a_place_whose_turn_comes_while_it_is_being_cancelled_is_passed_over():
    turns = Turns(total=1, per_client=1)
    workers = Workers(turns)
    first, second, third = (workers.start(name, "a") for name in ("first", "second", "third"))
    await settle()
    workers.gates["first"].set()
    second.cancel()  # it has not heard of it when the first one ends
    workers.gates["third"].set()
    await asyncio.wait_for(third, 1)
    await first
    await asyncio.wait([second])
    assert workers.order == ["first", "third"]
    assert not turns._clients


async def test_lanes_of_one_client_are_served_in_rotation():
    workers = Workers(Turns(total=9, per_client=1))
    tasks = [workers.start(name, "a", name[0]) for name in ("x0", "y0", "y1", "y2", "z0")]
    await settle()
    for gate in workers.gates.values():
        gate.set()
    await asyncio.gather(*tasks)
    assert workers.order == ["x0", "y0", "z0", "y1", "y2"]


async def test_thirty_things_that_hang_delay_no_other():
    workers = Workers(Turns(total=2048, per_client=512))
    tasks = [workers.start(f"{thing}.{i}", "engine", f"VM {thing}", width=4) for thing in range(30) for i in range(20)]
    await settle(200)
    assert len(workers.order) == 30 * 4
    tasks.append(workers.start("other", "engine", "VM other", width=4))
    await settle()
    assert workers.order[-1] == "other"
    await workers.end(tasks)


async def test_a_call_that_overtakes_begins_though_nothing_else_could():
    workers = Workers(Turns(total=2, per_client=2))
    tasks = [workers.start(f"hung{i}", "a", f"VM {i % 2}") for i in range(4)]
    await settle()
    tasks.append(workers.start("destroy", "a", "VM 1", kind=Kind.OVERTAKING))
    await settle()
    assert workers.order == ["hung0", "hung1", "destroy"]
    await workers.end(tasks)


async def test_what_came_before_about_the_same_and_only_waits_for_its_turn_is_not_overtaken():
    workers = Workers(Turns(total=9, per_client=9))
    names = ["burst0", "create", "burst1", "destroy"]
    kinds = {"destroy": Kind.OVERTAKING}
    tasks = [
        workers.start(name, "a", "VM 2" if "burst" in name else "VM 1", kind=kinds.get(name, Kind.COMMON))
        for name in names
    ]
    await settle()
    assert workers.order.index("create") < workers.order.index("destroy")
    await workers.end(tasks)


async def test_no_more_than_the_width_of_what_overtakes_runs_about_one_thing():
    workers = Workers(Turns(total=9, per_client=9))
    tasks = [workers.start(f"destroy{i}", "a", "VM 1", width=2, kind=Kind.OVERTAKING) for i in range(3)]
    await settle()
    assert workers.order == ["destroy0", "destroy1"]
    await workers.end(tasks)
    assert workers.order[-1] == "destroy2"


async def test_behind_what_hangs_few_wait_and_a_refusal_says_what_hangs_and_for_how_long():
    now = [100.0]
    workers = Workers(Turns(total=9, per_client=9, clock=lambda: now[0]))
    tasks = [workers.start(f"call{i}", "a", "VM 1", width=2, verb="VM.freeze") for i in range(2 + MAX_BEHIND + 5)]
    await settle()
    assert workers.turns.waiting == MAX_BEHIND + 5, "nothing hangs yet"
    now[0] += HUNG_S + 5
    with pytest.raises(LineFull) as e:
        await workers.start("more", "a", "VM 1", width=2)
    assert (e.value.about, e.value.verb, e.value.for_s) == ("VM 1", "VM.freeze", HUNG_S + 5)
    assert e.value.waiting == MAX_BEHIND + 5
    tasks.append(workers.start("other", "a", "VM 2", width=2))
    await settle()
    assert workers.order[-1] == "other"
    await workers.end(tasks)


async def test_a_lane_in_which_something_ended_lately_does_not_hang():
    now = [100.0]
    workers = Workers(Turns(total=9, per_client=9, clock=lambda: now[0]))
    tasks = [workers.start(f"call{i}", "a", "VM 1", width=2) for i in range(2 + MAX_BEHIND + 1)]
    await settle()
    now[0] += HUNG_S - 1
    workers.gates["call0"].set()
    await settle()
    now[0] += 2
    tasks.append(workers.start("more", "a", "VM 1", width=2))
    await settle()
    assert workers.turns.waiting == MAX_BEHIND + 1
    await workers.end(tasks)
    assert workers.order[-1] == "more"


async def test_a_line_full_of_what_waits_for_a_hung_thing_makes_room_for_another_thing():
    now = [100.0]
    workers = Workers(Turns(total=9, per_client=2, max_line=MAX_BEHIND + 3, clock=lambda: now[0]))
    tasks = [workers.start(f"call{i}", "a", "VM 1", width=1) for i in range(1 + MAX_BEHIND + 2)]
    await settle()
    tasks += [workers.start(name, "a", "VM 2", width=1) for name in ("other0", "other1")]
    await settle()
    assert workers.turns.waiting == MAX_BEHIND + 3
    now[0] += HUNG_S
    tasks.append(workers.start("other2", "a", "VM 2", width=1))
    with pytest.raises(LineFull, match="VM 1"):
        await tasks[MAX_BEHIND + 2]
    assert workers.turns.waiting == MAX_BEHIND + 3
    await workers.end(tasks)
    assert "other2" in workers.order


# -- any calls, in any order


WIDTH, TOTAL, PER_CLIENT = 2, 6, 4
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(Kind)),
        st.tuples(st.just("end"), st.integers(0, 50)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.just(("settle",)),
    ),
    max_size=60,
)


class Model:
    """What was asked, by itself; ``workers`` says what began."""

    def __init__(self):
        self.workers = Workers(Turns(TOTAL, PER_CLIENT))
        self.calls = []  # (name, client, about, kind)
        self.tasks = {}
        self.ended = set()

    def step(self, what, *more):
        if what == "call":
            client, about, kind = more
            name = f"c{len(self.calls)}"
            self.calls.append((name, client, about, kind))
            self.tasks[name] = self.workers.start(name, client, about, width=WIDTH, kind=kind)
        elif what == "end" and self.running():
            name = self.running()[more[0] % len(self.running())][0]
            self.ended.add(name)
            self.workers.gates[name].set()
        elif what == "cancel" and self.calls:
            name = self.calls[more[0] % len(self.calls)][0]
            self.ended.add(name)
            self.tasks[name].cancel()

    def running(self):
        return [call for call in self.calls if call[0] in self.workers.order and call[0] not in self.ended]

    def waiting(self):
        return [call for call in self.calls if call[0] not in self.workers.order and call[0] not in self.ended]

    def check(self):
        running = self.running()
        common = [call for call in running if call[3] is not Kind.OVERTAKING]
        of_client = Counter(call[1] for call in common)
        of_lane = Counter((call[1], call[2], call[3] is Kind.OVERTAKING) for call in running)
        assert len(common) <= TOTAL
        assert all(count <= PER_CLIENT for count in of_client.values())
        assert all(count <= WIDTH for count in of_lane.values())
        for _, client, about, kind in self.waiting():
            overtakes = kind is Kind.OVERTAKING
            full = of_lane[client, about, overtakes] == WIDTH
            assert full or (not overtakes and (of_client[client] == PER_CLIENT or len(common) == TOTAL))

    def check_order(self):
        began = self.workers.order
        for lane in {(call[1], call[2], call[3] is Kind.OVERTAKING) for call in self.calls}:
            came = [call[0] for call in self.calls if (call[1], call[2], call[3] is Kind.OVERTAKING) == lane]
            assert [name for name in began if name in came] == [name for name in came if name in began]


@given(STEPS)
def test_any_calls_keep_the_limits_wait_only_for_their_own_and_are_all_served_in_order(steps):
    async def play():
        model = Model()
        for what, *more in steps:
            model.step(what, *more)
            if what in ("settle", "end"):
                await settle(80)
                model.check()
        await settle(80)
        model.check()
        asked = {call[0] for call in model.calls} - model.ended
        await model.workers.end(model.tasks.values())
        assert asked <= set(model.workers.order)
        model.check_order()
        assert not model.workers.turns._clients

    asyncio.run(play())
