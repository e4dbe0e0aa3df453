# SPDX-License-Identifier: GPL-2.0-or-later
"""The order of one connection's calls."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm.rpc.order import MAX_IN_LINE, Order
from vdsm.rpc.turns import HUNG_S, MAX_BEHIND, LineFull


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


class Calls:
    """Calls that run until told; ``told`` is what began and ended, in order."""

    def __init__(self, order):
        self.order = order
        self.told = []
        self.gates = {}

    def start(self, name, *lines, **more):
        self.gates[name] = asyncio.Event()
        return asyncio.create_task(self._run(name, self.order.place(lines, name, **more)))

    async def _run(self, name, place):
        async with place:
            self.told.append(f"{name} begins")
            await self.gates[name].wait()
            self.told.append(f"{name} ends")

    async def end(self, tasks):
        for gate in self.gates.values():
            gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_later_begins_when_the_earlier_has_ended():
    calls = Calls(Order())
    tasks = [calls.start("pause", "run"), calls.start("cont", "run")]
    await settle()
    assert calls.told == ["pause begins"]
    await calls.end(tasks)
    assert calls.told == ["pause begins", "pause ends", "cont begins", "cont ends"]
    assert not calls.order._lines


async def test_lines_know_nothing_of_each_other():
    calls = Calls(Order())
    tasks = [calls.start("freeze", "guest of 1"), calls.start("pause", "run of 1"), calls.start("other", "guest of 2")]
    await settle()
    assert calls.told == ["freeze begins", "pause begins", "other begins"]
    await calls.end(tasks)


async def test_what_overtakes_waits_for_none_and_is_waited_for():
    calls = Calls(Order())
    tasks = [
        calls.start("freeze", "guest"),
        calls.start("thaw", "guest", overtakes=True),
        calls.start("again", "guest"),
    ]
    await settle()
    assert calls.told == ["freeze begins", "thaw begins"]
    calls.gates["freeze"].set()
    await settle()
    assert calls.told[2:] == ["freeze ends"]
    await calls.end(tasks)
    assert calls.told[3:] == ["thaw ends", "again begins", "again ends"]


async def test_one_that_stands_in_several_lines_waits_for_all_of_them():
    calls = Calls(Order())
    tasks = [calls.start("a", "server 1"), calls.start("b", "server 2"), calls.start("both", "server 1", "server 2")]
    await settle()
    calls.gates["a"].set()
    await settle()
    assert "both begins" not in calls.told
    await calls.end(tasks)
    assert calls.told[-1] == "both ends"
    assert not calls.order._lines


async def test_one_that_gives_up_lets_nobody_pass_who_may_not():
    calls = Calls(Order())
    tasks = [calls.start(name, "run") for name in ("first", "second", "third")]
    await settle()
    tasks[1].cancel()
    await settle()
    assert calls.told == ["first begins"]
    await calls.end(tasks)
    assert calls.told[-2:] == ["third begins", "third ends"]
    assert not calls.order._lines


async def test_one_that_is_told_to_begin_and_to_end_at_once_passes_its_place_on():
    calls = Calls(Order())
    tasks = [calls.start(name, "run") for name in ("first", "second", "third")]
    await settle()
    calls.gates["first"].set()
    await asyncio.sleep(0)
    tasks[1].cancel()
    await settle()
    assert "third begins" in calls.told
    await calls.end(tasks)
    assert not calls.order._lines


async def test_a_line_is_as_long_as_a_batch_and_then_says_behind_what_it_waits():
    calls = Calls(Order())
    tasks = [calls.start(f"VM.pause {i}", "line run of VM 1") for i in range(MAX_IN_LINE + 1)]
    await settle()
    with pytest.raises(LineFull) as e:
        await calls.start("more", "line run of VM 1")
    assert (e.value.waiting, e.value.about, e.value.verb) == (MAX_IN_LINE, "line run of VM 1", "VM.pause 0")
    await calls.end(tasks)
    assert not calls.order._lines


async def test_a_line_behind_what_hangs_is_short():
    now = [100.0]
    calls = Calls(Order(lambda: now[0]))
    tasks = [calls.start(f"c{i}", "run") for i in range(MAX_BEHIND + 1)]
    await settle()
    now[0] += HUNG_S
    with pytest.raises(LineFull) as e:
        await calls.start("more", "run")
    assert (e.value.waiting, e.value.for_s) == (MAX_BEHIND, HUNG_S)
    tasks.append(calls.start("thaw", "run", overtakes=True))
    await settle()
    assert calls.told[-1] == "thaw begins"
    await calls.end(tasks)


async def test_a_line_that_moves_on_is_no_line_that_hangs():
    now = [100.0]
    calls = Calls(Order(lambda: now[0]))
    tasks = [calls.start(f"c{i}", "run") for i in range(MAX_BEHIND + 2)]
    await settle()
    now[0] += HUNG_S
    calls.gates["c0"].set()
    await settle()
    tasks.append(calls.start("more", "run"))
    await calls.end(tasks)
    assert calls.told[-1] == "more ends"


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("call"), st.lists(st.sampled_from("xyz"), min_size=1, max_size=2, unique=True), st.booleans()
        ),
        st.tuples(st.just("end"), st.integers(0, 50)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.just(("settle",)),
    ),
    max_size=40,
)


@given(STEPS)
def test_any_calls_begin_in_order_wait_only_for_their_line_and_all_end(steps):
    async def play():
        calls, tasks, lines, overtaking, over = Calls(Order()), [], [], set(), set()

        def has_begun(number):
            return f"{number} begins" in calls.told

        def check():
            for number, its in enumerate(lines):
                if number in over:
                    continue
                ahead = any(set(lines[n]) & set(its) for n in range(number) if n not in over)
                assert has_begun(number) is (number in overtaking or not ahead)

        for what, *more in steps:
            if what == "call":
                number = len(tasks)
                lines.append(more[0])
                overtaking |= {number} if more[1] else set()
                tasks.append(calls.start(number, *more[0], overtakes=more[1]))
            elif what == "settle":
                await settle()
                check()
            elif tasks:
                number = more[0] % len(tasks)
                if what == "cancel":
                    tasks[number].cancel()
                    over.add(number)
                elif has_begun(number):
                    calls.gates[number].set()
                    over.add(number)
        await settle()
        check()
        await calls.end(tasks)
        assert all(has_begun(number) for number in range(len(tasks)) if number not in over)
        assert not calls.order._lines

    asyncio.run(play())
