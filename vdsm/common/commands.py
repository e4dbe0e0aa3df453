# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands: an argument list, a deadline, bounded output, and no survivor.

- No shell. An argument of type `Secret` is shown as ``****``, here and wherever the command repeats it. It is for
  programs that take a secret in no other way: every user of the host can see a command line, so a file or stdin is
  the place for one. What looks like a secret is hidden, too.
- A child leads a session and process group of its own; on timeout, cancel or too much output the
  whole group is killed. One that hangs in the kernel does not die: after `DEATH_S` it is given up (`hanging`), its
  caller goes on with `CommandHangs`, and what it left is seen to when it ends at last.
- A child dies with the agent: ``setpriv --pdeathsig`` sets PR_SET_PDEATHSIG before the command's own
  program starts. That signal fires when the *thread* that forked dies, so commands are started
  from the loop's thread, which is the main thread.
- A command has ended when its process has: pipes that a left-over child of it holds open are
  read for one more second, then that child is killed with the group.
- Its group is on record (`groups`) while it runs.
- One that writes under a lease of ours has copies of the lease's descriptors (``held``) until it is gone. It stays in
  our session: a lock daemon may send signals to the process that took the lease, by its number, and while a session
  has members the kernel gives its number to nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vdsm.common import groups, hanging, masking
from vdsm.common.errors import CommandFailed, CommandHangs, CommandNotFound, DeadlineExceeded, OutputTooLong
from vdsm.common.starts import started_or_ended

log = logging.getLogger("vdsm.commands")

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8"}
DRAIN_S = 1.0
DEATH_S = 5.0
MAX_TOLD = 2000

APART: Mapping[str, Any] = {"start_new_session": True}
BESIDE: Mapping[str, Any] = {"process_group": 0}
"""A process group of its own, in a session of its own or in ours."""


@dataclass(frozen=True, repr=False)
class Secret:
    """A command's argument that nobody may see. No text is made of it by accident."""

    value: str

    def __str__(self) -> str:
        return masking.HIDDEN

    __repr__ = __str__


@dataclass(frozen=True)
class Completed:
    out: bytes
    err: bytes


def argv_bound_to_us(argv: Sequence[str], signal_name: str = "KILL") -> list[str]:
    """The argument list that makes the command die with this process."""
    return [_which("setpriv"), "--pdeathsig", signal_name, "--", _which(argv[0]), *argv[1:]]


async def run(
    argv: Sequence[str | Secret],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    max_output: int = 1 << 20,
    pass_fds: Sequence[int] = (),
    held: Sequence[int] = (),
    place: str = "",
    ended_late: Callable[[], None] = lambda: None,
) -> Completed:
    """Run a command to its end, or give it up `DEATH_S` after ``timeout_s``.

    ``place``: what it hangs on if it hangs (`hanging`); ``ended_late`` is called when one that was given up has ended.

    Raises `CommandFailed` when it ends with another code than 0, `DeadlineExceeded`, `CommandHangs`, `PlaceHangs`,
    `OutputTooLong` when stdout or stderr pass ``max_output`` bytes, `CommandNotFound`.
    """
    await hanging.check(place)
    secrets = [argument.value for argument in argv if isinstance(argument, Secret)]
    shown = masking.hide(" ".join(map(str, argv)))
    plain = [argument.value if isinstance(argument, Secret) else argument for argument in argv]
    started = time.monotonic()
    transport, child = await started_or_ended(
        asyncio.get_running_loop().subprocess_exec(
            lambda: _Child(max_output),
            *argv_bound_to_us(plain),
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            env=dict(ENVIRONMENT if env is None else env),
            cwd=cwd or "/",
            pass_fds=[*pass_fds, *held],
            **(BESIDE if held else APART),
        ),
        end,
    )
    timed_out = False
    try:
        groups.record(transport.get_pid(), place)
        async with asyncio.timeout(timeout_s):
            _feed(transport, stdin)
            await child.ended.wait()
            if not child.overflowed:
                await _drain(child)
    except TimeoutError:
        timed_out = True
    finally:
        await asyncio.shield(kill(shown, transport, child.exited, place, ended_late))
    if not child.exited.done():
        raise CommandHangs(f"Command {shown!r}", timeout_s)
    if timed_out:
        raise DeadlineExceeded(f"Command {shown!r}", timeout_s)
    if child.overflowed:
        raise OutputTooLong(shown, max_output)
    code = transport.get_returncode()
    assert code is not None
    log.debug("%s: code %d after %.3f s", shown, code, time.monotonic() - started)
    if code != 0:
        # cut to length after secrets are hidden: half a secret is not recognised
        said = child.err.decode(errors="replace").strip()[-4 * MAX_TOLD :]
        raise CommandFailed(shown, code, _redact(said, secrets)[-MAX_TOLD:])
    return Completed(bytes(child.out), bytes(child.err))


def end(started: tuple[asyncio.SubprocessTransport, object]) -> None:
    """Kill the group of a child that nobody waits for."""
    transport, _ = started
    groups.kill_group(transport.get_pid())
    transport.close()


async def start(
    argv: Sequence[str], *, place: str = "", group: Mapping[str, Any] = APART, **options: Any
) -> asyncio.subprocess.Process:
    """A child for whoever talks with it and sees its end; ``options`` are those of `create_subprocess_exec`.

    ``place``: what it works on (`hanging`); ``group``: `APART` or `BESIDE`.
    """
    process = await started_or_ended(
        asyncio.create_subprocess_exec(*argv_bound_to_us(argv), cwd="/", **{**options, **group}),
        lambda started: groups.kill_group(started.pid),
    )
    groups.record(process.pid, place)
    return process


async def kill(
    shown: str,
    transport: asyncio.SubprocessTransport,
    exited: asyncio.Future[None],
    place: str = "",
    ended_late: Callable[[], None] = lambda: None,
) -> None:
    """Kill a child's group and see its end. One that hangs is given up after `DEATH_S`, and on record until it ends."""
    pid = transport.get_pid()

    def ended(_: object) -> None:
        transport.close()
        groups.forget(pid)

    groups.kill_group(pid)
    if not exited.done():
        await asyncio.wait([exited], timeout=DEATH_S)
    if exited.done():
        ended(exited)
        return
    log.error("process %d can't be killed, it hangs in the kernel: %s", pid, shown)
    hanging.give_up(place, pid, exited)
    exited.add_done_callback(ended)
    exited.add_done_callback(lambda _: log.warning("process %d, which hung, has ended: %s", pid, shown))
    exited.add_done_callback(lambda _: ended_late())


def _redact(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, masking.HIDDEN)
    return masking.hide(text)


class _Child(asyncio.SubprocessProtocol):
    """Collects the output; ``ended`` is set when the process is, or when it wrote too much."""

    def __init__(self, limit: int) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.overflowed = False
        self.ended = asyncio.Event()
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        self._limit = limit
        self._open = {1, 2}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        into = self.out if fd == 1 else self.err
        if len(into) + len(data) > self._limit:
            self.overflowed = True
            self.ended.set()
        else:
            into += data

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            self.closed.set()

    def process_exited(self) -> None:
        self.exited.set_result(None)
        self.ended.set()


async def _drain(child: _Child) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await child.closed.wait()


def _feed(transport: asyncio.SubprocessTransport, data: bytes) -> None:
    pipe = transport.get_pipe_transport(0)
    if pipe is not None:
        assert isinstance(pipe, asyncio.WriteTransport)
        pipe.write(data)
        pipe.close()


def _which(name: str) -> str:
    if os.sep in name:
        return name
    found = shutil.which(name, path=PATH)
    if found is None:
        raise CommandNotFound(name)
    return found
