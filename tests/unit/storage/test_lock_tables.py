# SPDX-License-Identifier: GPL-2.0-or-later
"""What a flow relies on, wherever it takes its locks: in the agent, and over the link of a process that it started."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from storage import lock_link, locks
from storage.grants import Grants
from storage.lock_link import LocksByLink
from storage.lock_table import Locks
from storage.locks import LockModesConflict, LockTable, LockTimeout, Mode
from vdsm.common.link import Link, LinkClosed

A = locks.image("d", "a")
B = locks.image("d", "b")
A_SHARED = locks.image("d", "a", Mode.SHARED)
SOON_S = 5.0


class Linked:
    """Both ends of a link between a table and a process that takes locks there."""

    def __init__(self, table: Locks) -> None:
        self.grants = Grants(table, lambda ids: {domain_id: f"/mnt/{domain_id}" for domain_id in ids}, "a process")
        self.there = LocksByLink()

    async def open(self) -> None:
        ours, theirs = socket.socketpair()
        self.ours = Link(*await asyncio.open_connection(sock=ours), serve=self.grants.serve, name="the process")
        self.there.link = Link(*await asyncio.open_connection(sock=theirs), name="the agent")
        self.runs = [asyncio.create_task(link.run()) for link in (self.ours, self.there.link)]

    async def close(self) -> None:
        await self.ours.close()
        await self.there.link.close()
        await asyncio.gather(*self.runs)


@pytest.fixture
def held() -> Locks:
    """The agent's."""
    return Locks()


@pytest.fixture
async def link(held: Locks) -> AsyncIterator[Linked]:
    linked = Linked(held)
    await linked.open()
    yield linked
    await linked.close()


@pytest.fixture(params=["in the agent", "over a link"])
async def table(request: pytest.FixtureRequest, held: Locks, link: Linked) -> LockTable:
    return held if request.param == "in the agent" else link.there


class Flow:
    """Takes locks and keeps them until ``leave``."""

    def __init__(self, table: LockTable, wanted: list[locks.Lock], who: str = "one", order: list[str] | None = None):
        self.entered, self.leave = asyncio.Event(), asyncio.Event()
        self._order = order if order is not None else []
        self.task = asyncio.create_task(self._run(table, wanted, who))

    async def _run(self, table: LockTable, wanted: list[locks.Lock], who: str) -> None:
        async with table.hold(wanted, who=who, wait_s=SOON_S):
            self._order.append(who)
            self.entered.set()
            await self.leave.wait()


async def _until_waiting(held: Locks, count: int) -> None:
    async with asyncio.timeout(SOON_S):
        while sum(len(state.waiting) for state in held.states()) != count:
            await asyncio.sleep(0)


async def test_exclusive_excludes(table: LockTable, held: Locks) -> None:
    async with table.hold([A], who="one"):
        with pytest.raises(LockTimeout, match="01_img_d/a"):
            async with table.hold([A], who="two", wait_s=0.01):
                pass
    assert held.names == []


async def test_shared_holders_join(table: LockTable, held: Locks) -> None:
    async with table.hold([A_SHARED], who="one"), table.hold([A_SHARED], who="two", wait_s=0.01):
        assert held.names == ["01_img_d/a"]
    assert held.names == []


async def test_a_reader_does_not_pass_a_waiting_writer(table: LockTable, held: Locks) -> None:
    order: list[str] = []
    reader = Flow(table, [A_SHARED], "reader 1", order)
    await reader.entered.wait()
    rest = [Flow(table, [A], "writer", order)]
    await _until_waiting(held, 1)
    rest.append(Flow(table, [A_SHARED], "reader 2", order))
    await _until_waiting(held, 2)
    for flow in (*rest, reader):
        flow.leave.set()
    await asyncio.gather(*(flow.task for flow in (reader, *rest)))
    assert order == ["reader 1", "writer", "reader 2"]


async def test_flows_that_name_locks_in_other_orders_do_not_wait_for_each_other(table: LockTable, held: Locks) -> None:
    async def work(wanted: list[locks.Lock]) -> None:
        for _ in range(50):
            async with table.hold(wanted, who="one", wait_s=SOON_S), asyncio.timeout(SOON_S):
                await asyncio.sleep(0)

    await asyncio.gather(work([A, B, locks.domain("d")]), work([locks.domain("d"), B, A]), work([B, A]))
    assert held.names == []


async def test_a_waiter_that_gives_up_lets_the_next_in(table: LockTable, held: Locks) -> None:
    first = Flow(table, [A])
    await first.entered.wait()
    with pytest.raises(LockTimeout):
        async with table.hold([A], who="two", wait_s=0.01):
            pass
    last = Flow(table, [A])
    first.leave.set()
    last.leave.set()
    await asyncio.gather(first.task, last.task)
    assert held.names == []


async def test_who_waited_behind_one_that_gives_up_joins_the_holders(table: LockTable, held: Locks) -> None:
    reader = Flow(table, [A_SHARED])
    await reader.entered.wait()
    writer = Flow(table, [A])
    await _until_waiting(held, 1)
    behind = Flow(table, [A_SHARED])
    await _until_waiting(held, 2)
    writer.task.cancel()
    async with asyncio.timeout(SOON_S):
        await behind.entered.wait()
    for flow in (reader, behind):
        flow.leave.set()
    await asyncio.gather(*(flow.task for flow in (reader, writer, behind)), return_exceptions=True)
    assert held.names == []


async def test_a_turn_passes_over_one_that_was_cancelled_and_has_not_heard_it(held: Locks) -> None:
    first = await held.take([A], who="one")
    cancelled, last = (asyncio.create_task(held.take([A], who=who)) for who in ("two", "three"))
    await asyncio.sleep(0)
    cancelled.cancel()
    held.give_back(first)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    held.give_back(await last)
    assert held.names == []


async def test_of_three_who_wait_one_that_gives_up_takes_no_other_along(table: LockTable, held: Locks) -> None:
    order: list[str] = []
    holder = Flow(table, [A])
    await holder.entered.wait()
    waiting = []
    for name in ("first", "second", "third"):
        waiting.append(Flow(table, [A], name, order))
        waiting[-1].leave.set()
        await _until_waiting(held, len(waiting))
    waiting[1].task.cancel()
    await _until_waiting(held, 2)
    holder.leave.set()
    await asyncio.gather(*(flow.task for flow in (holder, *waiting)), return_exceptions=True)
    assert order == ["first", "third"]
    assert held.names == []


async def test_who_gives_up_keeps_nothing_of_what_it_had_already(table: LockTable, held: Locks) -> None:
    async with table.hold([B], who="one"):
        with pytest.raises(LockTimeout, match="01_img_d/b"):
            async with table.hold([A, B], who="two", wait_s=0.01):
                pass
        assert held.names == ["01_img_d/b"]


async def test_a_cancel_that_comes_together_with_the_turn_leaves_nothing(table: LockTable, held: Locks) -> None:
    for turns in range(12):
        holder, waiting = Flow(table, [A]), Flow(table, [A])
        await _until_waiting(held, 1)
        holder.leave.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.task.cancel()
        await asyncio.gather(holder.task, waiting.task, return_exceptions=True)
        async with asyncio.timeout(SOON_S):
            while held.names:
                await asyncio.sleep(0)


async def test_both_modes_of_one_lock_are_a_mistake(table: LockTable) -> None:
    with pytest.raises(LockModesConflict):
        async with table.hold([A, A_SHARED], who="one"):
            pass


@pytest.mark.parametrize(
    ("holders", "told"),
    [(["a"], ": a had it"), (["a", "b", "b"], ": a, b had it"), (list("abcde"), "c and 2 others had")],
    ids=["one", "twice", "many"],
)
async def test_who_waits_in_vain_is_told_for_what_and_who_had_it(
    table: LockTable, held: Locks, holders: list[str], told: str
) -> None:
    flows = [Flow(table, [A_SHARED], who) for who in holders]
    for flow in flows:
        await flow.entered.wait()
    with pytest.raises(LockTimeout) as e:
        async with table.hold([A], who="last", wait_s=0.01):
            pass
    assert "Lock 01_img_d/a was not free for exclusive use within 0.01 s" in str(e.value)
    assert told in str(e.value)
    for flow in flows:
        flow.leave.set()
        await flow.task
    assert held.names == []


async def test_who_holds_and_who_waits_is_shown_with_the_time(table: LockTable, held: Locks) -> None:
    holder = Flow(table, [locks.domain("d"), A], "task 1")
    await holder.entered.wait()
    waiting = Flow(table, [A_SHARED], "prepare for vm:1")
    await _until_waiting(held, 1)
    domain, image = held.states()
    assert (domain.lock, domain.mode, [who for who, _ in domain.holders], domain.waiting) == (
        "00_storage/d",
        Mode.SHARED,
        ["task 1"],
        [],
    )
    assert image.mode is Mode.EXCLUSIVE
    assert [(who, mode) for who, mode, _ in image.waiting] == [("prepare for vm:1", Mode.SHARED)]
    assert 0 <= image.waiting[0][2] <= image.holders[0][1] < SOON_S
    for flow in (holder, waiting):
        flow.leave.set()
        await flow.task


async def test_locks_are_shown_in_their_order_whoever_came_first(held: Locks) -> None:
    wanted = [locks.image("d", "b"), locks.image("d", "a"), locks.domain("d", Mode.SHARED)]
    for lock in wanted:
        await held.take([lock], who="flow")
    assert [state.lock for state in held.states()] == ["00_storage/d", "01_img_d/a", "01_img_d/b"]
    assert held.names == [state.lock for state in held.states()]


async def test_taker_in_the_agent_and_taker_in_the_process_exclude_each_other(held: Locks, link: Linked) -> None:
    ours = Flow(held, [A], "prepare for vm:1")
    await ours.entered.wait()
    with pytest.raises(LockTimeout, match="prepare for vm:1 had it"):
        async with link.there.hold([A], who="task 1", wait_s=0.01):
            pass
    ours.leave.set()
    await ours.task
    theirs = Flow(link.there, [A], "task 1")
    await theirs.entered.wait()
    with pytest.raises(LockTimeout, match="task 1 had it"):
        async with held.hold([A], who="prepare for vm:1", wait_s=0.01):
            pass
    theirs.leave.set()
    await theirs.task


async def test_nothing_is_asked_for_nothing(link: Linked) -> None:
    await link.close()
    async with link.there.hold([], who="one"):
        pass


async def test_whoever_waits_when_the_link_ends_is_told(held: Locks, link: Linked) -> None:
    async with held.hold([A], who="prepare for vm:1"):
        waiting = Flow(link.there, [A])
        await _until_waiting(held, 1)
        await link.close()
        with pytest.raises(LinkClosed):
            await waiting.task
        link.grants.link_ended()
        await _until_waiting(held, 0)


async def test_the_end_of_a_link_frees_nothing(held: Locks, link: Linked) -> None:
    holder = Flow(link.there, [A])
    await holder.entered.wait()
    await link.close()
    link.grants.link_ended()
    holder.leave.set()
    await holder.task
    assert held.names == [str(A)]
    link.grants.end(0)
    assert held.names == []


async def test_an_agent_that_does_not_answer_is_not_waited_for(
    held: Locks, link: Linked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes the lock back once it goes on."""
    monkeypatch.setattr(lock_link, "ANSWER_S", 0.01)
    serve, goes_on = link.ours._serve, asyncio.Event()

    async def late(verb: str, params: dict[str, Any]) -> Any:
        if verb == lock_link.GIVE_BACK:
            await goes_on.wait()
        return await serve(verb, params)  # type: ignore[misc]

    link.ours._serve = late
    async with link.there.hold([A], who="one"):
        pass
    assert "the agent does not tell" in caplog.text
    assert held.names == [str(A)]
    goes_on.set()
    async with asyncio.timeout(SOON_S):
        while held.names:
            await asyncio.sleep(0)


# What a verb of the agent lends with its call


async def _asked(link: Linked, serve: Any) -> None:
    link.there.link._serve = link.there.under_grants(serve)


async def test_what_a_verb_lends_is_not_free_before_the_call_is_served(held: Locks, link: Linked) -> None:
    served, go = asyncio.Event(), asyncio.Event()

    async def serve(verb: str, params: dict[str, Any]) -> None:
        assert params == {}
        served.set()
        await go.wait()

    await _asked(link, serve)
    async with held.hold([A], who="StorageDomain.attach") as grant:
        asking = asyncio.create_task(link.ours.call("x", {"grant": link.grants.lend(grant)}, timeout_s=SOON_S))
        await served.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    with pytest.raises(LockTimeout, match=r"StorageDomain\.attach had it"):
        async with held.hold([A], who="StorageDomain.format", wait_s=0.01):
            pass
    go.set()
    async with held.hold([A], who="StorageDomain.format", wait_s=SOON_S):
        pass
    assert held.names == []


async def test_what_a_verb_lends_is_its_own_until_it_ends(held: Locks, link: Linked) -> None:
    async def serve(verb: str, params: dict[str, Any]) -> None:
        raise LockTimeout("x", "y", 1.0, "z")

    await _asked(link, serve)
    async with held.hold([A], who="StorageDomain.attach") as grant:
        with pytest.raises(LockTimeout):
            await link.ours.call("x", {"grant": link.grants.lend(grant)}, timeout_s=SOON_S)
        assert held.names == [str(A)]
    assert held.names == []
