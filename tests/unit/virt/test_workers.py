# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads for calls that may hang: whatever hung and came back, the pool is as new."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import HypervisorError, NotBegun, TooManyStuckCalls, Unanswered, VmCallsHang
from vdsm.virt.libvirt_edge.workers import Workers, check_wanted

from .fakes import until


class Hangs:
    """Calls that end when the test says so."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.begun = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.begun += 1
        self.release.wait(30)
        return "late"


@pytest.fixture
async def hangs() -> AsyncIterator[Hangs]:
    hangs = Hangs()
    yield hangs
    hangs.release.set()


def threads_of(name: str) -> int:
    return sum(thread.name.startswith(f"{name}/") for thread in threading.enumerate())


async def all_back(workers: Workers, hangs: Hangs) -> None:
    hangs.release.set()
    await until(lambda: not workers.stuck)


async def lost(workers: Workers, hangs: Callable[[], Any], count: int, **more: Any) -> list[type[BaseException]]:
    """How calls that hang ended for their callers."""
    calls = (workers.call("hang", 0.05, hangs, **more) for _ in range(count))
    return [type(result) for result in await asyncio.gather(*calls, return_exceptions=True)]


async def test_a_result_and_an_error_come_back() -> None:
    workers = Workers("test", 1)
    assert await workers.call("add", 1.0, lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        await workers.call("divide", 1.0, lambda: 1 // 0)
    workers.stop()


async def test_a_call_that_failed_is_let_go_of_without_the_garbage_collector() -> None:
    """What a call holds are libvirt's objects, and those must not be freed at just any time (see `failures`)."""

    class Held:
        def divide(self) -> float:
            return 1 / 0

    workers, held = Workers("test", 1), Held()
    kept = weakref.ref(held)
    gc.disable()
    try:
        with contextlib.suppress(ZeroDivisionError):
            await workers.call("divide", 1.0, held.divide)
        del held
        assert await workers.call("quick", 1.0, lambda: "yes") == "yes"
        assert kept() is None
    finally:
        gc.enable()
    workers.stop()


@pytest.mark.parametrize(("size", "count"), [(5, 8), (5, 10), (5, 13), (3, 8), (3, 11), (1, 30)])
async def test_when_all_came_back_the_pool_is_as_new(hangs: Hangs, size: int, count: int) -> None:
    workers = Workers(f"new-{size}-{count}", size, per_vm=99, slow_s=0.01)
    await asyncio.gather(*(workers.call("quick", 5.0, lambda: None) for _ in range(50)))
    for _ in range(3):
        await lost(workers, hangs, count)
    await all_back(workers, hangs)
    for _ in range(2 * size):
        assert await workers.call("new", 1.0, lambda: "yes") == "yes"
    await until(lambda: threads_of(workers.name) <= size)
    workers.stop()
    await until(lambda: threads_of(workers.name) == 0)


async def test_cancelled_callers_of_hung_calls_leave_the_pool_right(hangs: Hangs) -> None:
    workers = Workers("test", 3, per_vm=99)
    callers = [asyncio.create_task(workers.call("hang", 20.0, hangs)) for _ in range(3)]
    await until(lambda: hangs.begun == 3)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert workers.stuck == 3
    assert await workers.call("new", 1.0, lambda: "yes") == "yes"
    await all_back(workers, hangs)
    workers.stop()


async def test_a_call_whose_caller_left_before_its_turn_never_runs(hangs: Hangs) -> None:
    workers, ran = Workers("test", 1, slow_s=30), []
    first = asyncio.create_task(workers.call("first", 20.0, hangs))
    await until(lambda: hangs.begun)
    cancelled = asyncio.create_task(workers.call("second", 20.0, lambda: ran.append("cancelled")))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(NotBegun, match=r"third did not begin within 0\.05 s: nothing was done"):
        await workers.call("third", 0.05, lambda: ran.append("given up"))
    hangs.release.set()
    assert await first == "late"
    assert await workers.call("fourth", 1.0, lambda: 4) == 4
    assert ran == []
    workers.stop()


async def test_a_call_whose_caller_left_while_its_thread_woke_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, ran, given = Workers("test", 1), [], []
    await workers.call("quick", 1.0, lambda: None)
    thread = workers._idle[0]
    monkeypatch.setattr(thread, "give", given.append)
    caller = asyncio.create_task(workers.call("change", 1.0, lambda: ran.append("ran")))
    await until(lambda: given)
    caller.cancel()
    await asyncio.wait([caller])
    monkeypatch.undo()
    thread.give(given[0])
    assert await workers.call("quick", 1.0, lambda: "yes") == "yes"
    assert (ran, workers.stuck) == ([], 0)
    workers.stop()


async def test_a_call_that_hangs_is_counted_until_it_is_back(hangs: Hangs) -> None:
    workers = Workers("test", 1)
    with pytest.raises(Unanswered, match="hang did not end"):
        await workers.call("hang", 0.05, hangs)
    assert workers.stuck == 1
    assert await workers.call("go on", 1.0, lambda: "yes") == "yes"
    await all_back(workers, hangs)
    workers.stop()


async def test_a_call_that_is_dropped_and_comes_back_is_not_told_as_one_that_hangs(
    hangs: Hangs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt.libvirt")
    workers = Workers("test", 1)
    dropped = asyncio.create_task(workers.call("look at the domain", 20.0, hangs))
    await until(lambda: hangs.begun)
    dropped.cancel()
    await asyncio.wait([dropped])
    assert await workers.call("look again", 5.0, lambda: "yes") == "yes"
    await all_back(workers, hangs)
    assert caplog.text == ""
    workers.stop()


async def test_a_call_that_is_dropped_and_does_not_come_back_is_told_once(
    hangs: Hangs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt.libvirt")
    workers = Workers("test", 1, slow_s=0.02)
    dropped = asyncio.create_task(workers.call("look at the domain", 20.0, hangs))
    await until(lambda: hangs.begun)
    dropped.cancel()
    await until(lambda: caplog.records)
    await all_back(workers, hangs)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["test: 'look at the domain' hangs; 1 do", "test: 'look at the domain' came back after 0 s"]
    workers.stop()


async def test_calls_that_hang_delay_others_by_no_more_than_a_slow_one(hangs: Hangs) -> None:
    workers = Workers("test", 2, per_vm=99, slow_s=0.05)
    callers = [asyncio.create_task(workers.call("hang", 20.0, hangs)) for _ in range(6)]
    began = time.monotonic()
    assert await workers.call("look", 5.0, lambda: "yes") == "yes"
    assert time.monotonic() - began < 2.0
    assert workers.stuck == 0  # their callers still wait
    hangs.release.set()
    assert await asyncio.gather(*callers) == ["late"] * 6
    workers.stop()


async def test_at_most_size_quick_calls_run_at_once(hangs: Hangs) -> None:
    workers = Workers("test", 2, per_vm=99, slow_s=30)
    calls = [asyncio.create_task(workers.call("work", 20.0, hangs)) for _ in range(5)]
    await until(lambda: hangs.begun == 2)
    await asyncio.sleep(0.05)
    assert hangs.begun == 2
    hangs.release.set()
    await asyncio.gather(*calls)
    workers.stop()


async def test_never_more_threads_than_the_limit(hangs: Hangs) -> None:
    workers = Workers("limit", 2, limit=5, per_vm=99, slow_s=0.01)
    calls = [asyncio.create_task(workers.call("work", 20.0, hangs)) for _ in range(12)]
    await until(lambda: hangs.begun == 5)
    await asyncio.sleep(0.05)
    assert (hangs.begun, threads_of("limit")) == (5, 5)
    hangs.release.set()
    await asyncio.gather(*calls)
    workers.stop()


async def test_when_as_many_hang_as_the_limit_others_are_refused_at_once(hangs: Hangs) -> None:
    workers = Workers("pool", 2, limit=3, per_vm=99, slow_s=0.01)
    await lost(workers, hangs, 3)
    with pytest.raises(TooManyStuckCalls, match=r"3 calls to libvirt hang \(pool: hang for 0 s, hang.*\)"):
        await workers.call("more", 20.0, lambda: None)
    await all_back(workers, hangs)
    assert await workers.call("more", 1.0, lambda: "yes") == "yes"
    workers.stop()


async def test_those_that_wait_are_refused_when_the_last_thread_hangs(hangs: Hangs) -> None:
    workers = Workers("pool", 1, limit=1)
    waits = asyncio.create_task(lost(workers, hangs, 1))
    await until(lambda: hangs.begun)
    with pytest.raises(TooManyStuckCalls):
        await workers.call("more", 20.0, lambda: None)
    await waits
    await all_back(workers, hangs)
    workers.stop()


async def test_one_vms_calls_that_hang_leave_the_threads_to_others(hangs: Hangs) -> None:
    workers = Workers("pool", 3, slow_s=0.01)
    calls = [asyncio.create_task(workers.call("pause", 20.0, hangs, vm_id="sick")) for _ in range(9)]
    await until(lambda: hangs.begun == 2)
    for _ in range(5):
        assert await workers.call("pause", 1.0, lambda: "yes", vm_id="well") == "yes"
    assert hangs.begun == 2
    hangs.release.set()
    assert await asyncio.gather(*calls) == ["late"] * 9
    workers.stop()


async def test_a_vm_whose_calls_hang_is_refused_by_name_and_others_go_on(hangs: Hangs) -> None:
    workers = Workers("pool", 3)
    waits = asyncio.create_task(workers.call("reset", 20.0, hangs, vm_id="sick"))
    assert await lost(workers, hangs, 1, vm_id="sick") == [Unanswered]
    third = asyncio.create_task(workers.call("resume", 20.0, lambda: None, vm_id="sick"))
    await asyncio.sleep(0)
    waits.cancel()
    message = r"VM sick: 2 calls to libvirt hang \(pool: reset for 0 s, hang for 0 s\): no further one"
    for refused in (third, workers.call("pause", 20.0, lambda: None, vm_id="sick")):
        with pytest.raises(VmCallsHang, match=message) as said:
            await refused
        assert "VM.destroy" in said.value.remedy
    assert await workers.call("pause", 1.0, lambda: "yes", vm_id="well") == "yes"
    await all_back(workers, hangs)
    assert await workers.call("pause", 1.0, lambda: "yes", vm_id="sick") == "yes"
    workers.stop()


async def test_a_vm_is_free_when_its_hung_calls_are_back(hangs: Hangs) -> None:
    workers = Workers("back", 2)
    assert await lost(workers, hangs, 1, vm_id="a") == [Unanswered]
    with pytest.raises(VmCallsHang, match="VM a: 1 calls"):
        workers.check_back("a")
    workers.check_back("b")
    await all_back(workers, hangs)
    workers.check_back("a")


async def test_what_is_asked_in_two_steps_is_not_done_when_the_caller_left_between_them(hangs: Hangs) -> None:
    workers, done = Workers("steps", 1), threading.Event()

    def steps() -> None:
        hangs()  # looking up the domain of the id
        check_wanted()
        done.set()  # ending whatever has the id by now

    assert await lost(workers, steps, 1, vm_id="a") == [Unanswered]
    await all_back(workers, hangs)
    assert not done.is_set()
    await workers.call("steps", 5.0, steps, vm_id="a")
    assert done.is_set()


async def test_calls_about_the_host_that_hang_leave_the_threads_to_others(hangs: Hangs) -> None:
    workers = Workers("pool", 3)
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            await workers.call("read statistics", 0.05, hangs)
    with pytest.raises(TooManyStuckCalls, match="read statistics"):
        await workers.call("read statistics", 20.0, hangs)
    assert await workers.call("list networks", 1.0, lambda: "yes") == "yes"
    await all_back(workers, hangs)
    workers.stop()


async def test_a_result_that_comes_with_the_deadline_is_not_lost() -> None:
    workers = Workers("test", 1)
    loop = asyncio.get_running_loop()
    caller = asyncio.create_task(workers.call("change", 0.2, lambda: "done"))
    await asyncio.sleep(0.05)  # it is done, and then its caller sleeps past its deadline
    assert await caller == "done"
    caller = asyncio.create_task(workers.call("change", 0.02, lambda: "done"))
    await asyncio.sleep(0)
    loop.call_soon(time.sleep, 0.1)
    assert await caller == "done"
    workers.stop()


async def test_after_the_stop_nothing_begins_and_no_thread_stays(hangs: Hangs) -> None:
    workers, ran = Workers("stopped", 1, slow_s=30), []
    running = asyncio.create_task(workers.call("first", 20.0, hangs))
    await until(lambda: hangs.begun)
    waiting = asyncio.create_task(workers.call("second", 20.0, lambda: ran.append("second")))
    await asyncio.sleep(0)
    workers.stop()
    for refused in (waiting, workers.call("third", 20.0, lambda: ran.append("third"))):
        with pytest.raises(HypervisorError, match="the agent ends"):
            await refused
    hangs.release.set()
    assert await running == "late"
    await until(lambda: threads_of("stopped") == 0)
    assert ran == []


async def test_a_system_without_threads_fails_the_call_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers = Workers("test", 2)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(HypervisorError, match="can't start new thread"):
        await workers.call("look", 5.0, lambda: "yes")
    monkeypatch.undo()
    assert await workers.call("look", 5.0, lambda: "yes") == "yes"
    workers.stop()
