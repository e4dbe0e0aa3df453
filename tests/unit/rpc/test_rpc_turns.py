# SPDX-License-Identifier: GPL-2.0-or-later
"""Fair turns."""

import asyncio

import pytest

from vdsm.rpc.turns import LineFull, Turns


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


class Workers:
    """Calls that run until told; ``order`` is the order in which they got their turn."""

    def __init__(self, turns):
        self.turns = turns
        self.order = []
        self.gates = {}

    def start(self, name, client):
        self.gates[name] = asyncio.Event()
        return asyncio.create_task(self._work(name, client))

    async def _work(self, name, client):
        async with self.turns.turn(client):
            self.order.append(name)
            await self.gates[name].wait()


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
        assert e.value.waiting == 1
        vital = asyncio.create_task(turns.vital_turn("a").__aenter__())
        await settle()
        assert turns.waiting == 2
        for task in (waiting, vital):
            task.cancel()
        await asyncio.gather(waiting, vital, return_exceptions=True)
    assert turns.waiting == 0
