# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads for calls that may hang."""

from __future__ import annotations

import asyncio
import threading

import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt.errors import TooManyStuckCalls
from vdsm.virt.libvirt_edge.workers import Workers


async def test_a_result_and_an_error_come_back() -> None:
    workers = Workers("test", 1)
    assert await workers.call("add", 1.0, lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        await workers.call("divide", 1.0, lambda: 1 // 0)
    workers.stop()


async def test_a_stuck_call_is_given_up_counted_and_replaced() -> None:
    workers, release = Workers("test", 1), threading.Event()
    with pytest.raises(DeadlineExceeded, match="hang"):
        await workers.call("hang", 0.05, release.wait)
    assert workers.stuck == 1
    assert await workers.call("go on", 1.0, lambda: "yes") == "yes"
    release.set()
    async with asyncio.timeout(2):
        while workers.stuck:
            await asyncio.sleep(0.005)
    workers.stop()


async def test_replacing_has_a_limit() -> None:
    workers, release = Workers("test", 1, stuck_limit=2), threading.Event()
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            await workers.call("hang", 0.02, release.wait)
    with pytest.raises(TooManyStuckCalls):
        await workers.call("more", 1.0, lambda: None)
    release.set()


async def test_a_call_that_waited_too_long_is_never_started() -> None:
    workers, release, started = Workers("test", 1), threading.Event(), threading.Event()
    first = asyncio.create_task(workers.call("first", 2.0, release.wait))
    await asyncio.sleep(0.02)
    with pytest.raises(DeadlineExceeded):
        await workers.call("second", 0.05, started.set)
    release.set()
    await first
    assert await workers.call("third", 1.0, lambda: 3) == 3
    assert not started.is_set()
    workers.stop()


async def test_at_most_size_threads_run() -> None:
    workers, release = Workers("test", 2), threading.Event()
    running = 0
    lock = threading.Lock()

    def work() -> int:
        nonlocal running
        with lock:
            running += 1
        release.wait(2)
        return running

    calls = [asyncio.create_task(workers.call("work", 3.0, work)) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert running == 2
    release.set()
    await asyncio.gather(*calls)
    workers.stop()
