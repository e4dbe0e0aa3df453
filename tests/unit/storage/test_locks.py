# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import asyncio

import pytest

from storage import locks
from storage.lock_table import Locks
from storage.locks import LockModesConflict, LockTimeout, Mode

A = locks.image("d", "a")
B = locks.image("d", "b")
A_SHARED = locks.image("d", "a", Mode.SHARED)


async def _enter(held: Locks, wanted: list[locks.Lock], order: list[str], name: str, leave: asyncio.Event) -> None:
    async with held.hold(wanted, who="one", wait_s=5):
        order.append(name)
        await leave.wait()


async def test_exclusive_excludes() -> None:
    held = Locks()
    async with held.hold([A], who="one"):
        with pytest.raises(LockTimeout, match="01_img_d/a"):
            async with held.hold([A], who="one", wait_s=0.01):
                pass
    assert held.names == []


async def test_shared_holders_join() -> None:
    held = Locks()
    async with held.hold([A_SHARED], who="one"), held.hold([A_SHARED], who="one", wait_s=0.01):
        assert held.names == ["01_img_d/a"]


async def test_a_reader_does_not_pass_a_waiting_writer() -> None:
    held, order, first, rest = Locks(), [], asyncio.Event(), asyncio.Event()
    rest.set()
    tasks = [asyncio.create_task(_enter(held, [A_SHARED], order, "reader 1", first))]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(_enter(held, [A], order, "writer", rest)))
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(_enter(held, [A_SHARED], order, "reader 2", rest)))
    await asyncio.sleep(0.01)
    assert order == ["reader 1"]
    first.set()
    await asyncio.gather(*tasks)
    assert order == ["reader 1", "writer", "reader 2"]


async def test_two_flows_naming_locks_in_other_orders_do_not_wait_for_each_other() -> None:
    held = Locks()

    async def work(wanted: list[locks.Lock]) -> None:
        for _ in range(200):
            async with held.hold(wanted, who="one", wait_s=5):
                await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(work([A, B, locks.domain("d")]), work([locks.domain("d"), B, A]), work([B, A]))
    assert held.names == []


async def test_a_waiter_that_gives_up_lets_the_next_in() -> None:
    held, order, leave = Locks(), [], asyncio.Event()
    first = asyncio.create_task(_enter(held, [A], order, "first", leave))
    await asyncio.sleep(0)
    with pytest.raises(LockTimeout):
        async with held.hold([A], who="one", wait_s=0.01):
            pass
    last = asyncio.create_task(_enter(held, [A], order, "last", leave))
    leave.set()
    await asyncio.gather(first, last)
    assert order == ["first", "last"]


async def test_a_cancelled_waiter_keeps_nothing() -> None:
    held = Locks()
    async with held.hold([A], who="one"):
        waiting = asyncio.create_task(_enter(held, [A], [], "cancelled", asyncio.Event()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with held.hold([A], who="one", wait_s=0.01):
        pass
    assert held.names == []


async def test_both_modes_of_one_lock_are_a_mistake() -> None:
    with pytest.raises(LockModesConflict):
        async with Locks().hold([A, A_SHARED], who="one"):
            pass
