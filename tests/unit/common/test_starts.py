# SPDX-License-Identifier: GPL-2.0-or-later
"""A process of ours that is to end while a child of it starts."""

import asyncio
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any

import pytest

from vdsm.common import commands, starts

# a command's start gets no further than to its pipes until a moment after the process was asked to end
HELD = """
import asyncio, contextlib, os, signal, sys
from vdsm.common import commands, groups, logs, single

async def serve(*_):
    loop, stop, connecting = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    connect = loop.connect_read_pipe
    async def held(*arguments):
        connecting.set()
        await stop.wait()
        await asyncio.sleep(0.2)
        return await connect(*arguments)
    loop.connect_read_pipe = held
    asked = asyncio.ensure_future(%s)
    await connecting.wait()
    print("connecting", flush=True)
    await stop.wait()
    return 0

class Log:
    def stop(self): print("ended", flush=True)

logs.setup = lambda *_: Log()
single.hold = lambda *_, **__: None
"""
RUN = 'commands.run(["sleep", "60"], timeout_s=60)'
START = 'commands.start(["sleep", "60"], stdout=asyncio.subprocess.PIPE)'
ROOT_HELPER = """
import pwd
from vdsm.root.server import __main__ as root, folders
folders.prepare_own = lambda _: None
pwd.getpwnam = lambda _: pwd.getpwuid(0)
os.geteuid = lambda: 0
root.serve = serve
root.main()
"""
AGENT = """
from vdsm import agent
agent.serve = serve
agent.main()
"""
SPM = """
from storage.spm import program as spm
spm._serve = serve
spm.main("spm", 0)
"""


@pytest.mark.parametrize("start", [RUN, START], ids=["command", "child"])
@pytest.mark.parametrize("main", [ROOT_HELPER, AGENT, SPM], ids=["root helper", "agent", "SPM process"])
def test_a_process_ends_while_a_child_starts(main, start):
    process = subprocess.Popen(
        [sys.executable, "-c", HELD % start + main],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        process.stdin.write('{"locks": {"spm": ""}, "about": "", "log_level": "INFO"}\n')
        process.stdin.flush()
        assert process.stdout.readline() == "connecting\n", process.communicate(timeout=5)
        process.terminate()
        said = process.communicate(timeout=5)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, *said) == (0, "ended\n", "")


async def beside(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Begun, and left to run when the main coroutine ends."""
    tasks = [asyncio.ensure_future(each) for each in work]
    await asyncio.sleep(0)
    return tasks


async def slowly(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "child"


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_child_that_was_about_to_start_is_given_to_its_caller_or_ended(cancelled):
    given, ended = [], []

    async def begin():
        given.append(await starts.started_or_ended(slowly(0.1), ended.append))

    async def main():
        (caller,) = await beside(begin())
        if cancelled:
            caller.cancel()
        return "result"

    assert starts.run(main()) == "result"
    assert (given, ended) == ([], ["child"]) if cancelled else (["child"], [])


def test_a_start_that_takes_long_keeps_nobody(monkeypatch, caplog):
    monkeypatch.setattr(starts, "START_S", 0.1)

    async def main():
        await beside(starts.started_or_ended(slowly(60), print))

    starts.run(main())
    assert "1 starts of child processes do not end" in caplog.text


def test_no_child_begins_once_the_end_has(tmp_path):
    how = []

    async def late():
        try:
            await asyncio.sleep(0.05)
            await commands.run(["touch", f"{tmp_path}/late"], timeout_s=5)
        except asyncio.CancelledError:
            how.append("cancelled")

    async def main():
        await beside(starts.started_or_ended(slowly(0.2), print), late())

    starts.run(main())
    assert how == ["cancelled"]
    assert not (tmp_path / "late").exists()


def test_children_begin_in_the_next_run():
    async def main():
        return (await commands.run(["echo", "again"], timeout_s=5)).out

    assert [starts.run(main()), starts.run(main())] == [b"again\n"] * 2


def test_starts_are_waited_for_after_a_main_that_failed():
    given = []

    async def begin():
        given.append(await starts.started_or_ended(slowly(0.1), print))

    async def main():
        await beside(begin())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        starts.run(main())
    assert given == ["child"]
