# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocking lease calls: deadlines, and what succeeds after nobody waits any more."""

import asyncio
import threading

import pytest

from storage.errors import SanlockUnavailable
from storage.leases import threads
from storage.leases.threads import in_thread
from vdsm.common.errors import DeadlineExceeded


async def test_result_and_error_come_back():
    assert await in_thread("call", 5, lambda: 7) == 7
    with pytest.raises(KeyError):
        await in_thread("call", 5, lambda: {}["x"])


async def test_an_error_of_the_call_that_is_a_timeout_stays_one():
    def fails():
        raise TimeoutError("of the call")

    with pytest.raises(TimeoutError, match="of the call"):
        await in_thread("call", 5, fails)


async def test_late_success_is_undone():
    go, undone = threading.Event(), threading.Event()
    with pytest.raises(DeadlineExceeded, match="acquire"):
        await in_thread("acquire", 0.05, go.wait, undone.set)
    assert not undone.is_set()
    go.set()
    assert await asyncio.to_thread(undone.wait, 5)


async def test_success_of_a_cancelled_call_is_undone():
    go, undone = threading.Event(), threading.Event()
    call = asyncio.ensure_future(in_thread("acquire", 60, go.wait, undone.set))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go.set()
    assert await asyncio.to_thread(undone.wait, 5)


async def test_success_in_the_moment_of_cancelling_is_undone():
    ended, undone = threading.Event(), threading.Event()
    call = asyncio.ensure_future(in_thread("acquire", 60, ended.set, undone.set))
    await asyncio.sleep(0)
    assert ended.wait(5)  # the loop is held: the thread's result is on its way, not taken
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(undone.wait, 5)


async def test_late_failure_is_not_undone(caplog):
    go = threading.Event()

    def fails():
        go.wait()
        raise OSError("late")

    undone = threading.Event()
    with pytest.raises(DeadlineExceeded):
        await in_thread("acquire", 0.05, fails, undone.set)
    go.set()
    async with asyncio.timeout(5):
        while "late" not in caplog.text:
            await asyncio.sleep(0.01)
    assert not undone.is_set()


async def test_hanging_calls_are_bounded(monkeypatch):
    monkeypatch.setattr(threads, "MAX_THREADS", len(threads._running) + 1)
    go = threading.Event()
    call = asyncio.ensure_future(in_thread("a", 60, go.wait))
    await asyncio.sleep(0)
    with pytest.raises(SanlockUnavailable, match="waiting"):
        await in_thread("b", 60, go.wait)
    go.set()
    await call
    assert await in_thread("c", 60, lambda: 1) == 1
