# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands: an argument list, a deadline, bounded output, and no survivor.

- No shell. Secrets are replaced by ``***`` wherever the command line is shown.
- A child leads a session and process group of its own; on timeout, cancel or too much output the
  whole group is killed.
- A child dies with the agent: ``setpriv --pdeathsig`` sets PR_SET_PDEATHSIG before the command's own
  program starts. That signal fires when the *thread* that forked dies, so commands are started
  from the loop's thread, which is the main thread.
- A command has ended when its process has: pipes that a left-over child of it holds open are
  read for one more second, then that child is killed with the group.
- Its group is on record (`groups`) while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vdsm.common import groups
from vdsm.common.errors import CommandFailed, CommandNotFound, DeadlineExceeded, OutputTooLong

log = logging.getLogger("vdsm.commands")

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8"}
DRAIN_S = 1.0


@dataclass(frozen=True)
class Completed:
    out: bytes
    err: bytes


def argv_bound_to_us(argv: Sequence[str], signal_name: str = "KILL") -> list[str]:
    """The argument list that makes the command die with this process."""
    return [_which("setpriv"), "--pdeathsig", signal_name, "--", _which(argv[0]), *argv[1:]]


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    max_output: int = 1 << 20,
    secrets: Sequence[str] = (),
) -> Completed:
    """Run a command to its end.

    Raises `CommandFailed` when it ends with another code than 0, `DeadlineExceeded`,
    `OutputTooLong` when stdout or stderr pass ``max_output`` bytes, `CommandNotFound`.
    """
    shown = redact(" ".join(argv), secrets)
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *argv_bound_to_us(argv),
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(ENVIRONMENT if env is None else env),
        cwd=cwd or "/",
        start_new_session=True,
    )
    groups.record(process.pid)
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await _communicate(process, stdin, max_output, shown)
    except TimeoutError:
        raise DeadlineExceeded(f"Command {shown!r}", timeout_s) from None
    finally:
        groups.kill_group(process.pid)
        await asyncio.shield(process.wait())
        groups.forget(process.pid)
    code = process.returncode
    assert code is not None
    log.debug("%s: code %d after %.3f s", shown, code, time.monotonic() - started)
    if code != 0:
        raise CommandFailed(shown, code, redact(err.decode(errors="replace").strip()[-2000:], secrets))
    return Completed(out, err)


def redact(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text


async def _communicate(
    process: asyncio.subprocess.Process, data: bytes, max_output: int, shown: str
) -> tuple[bytes, bytes]:
    assert process.stdout is not None and process.stderr is not None
    out, err = bytearray(), bytearray()
    reading = asyncio.ensure_future(_read_both(process.stdout, out, process.stderr, err, max_output, shown))
    ending = asyncio.ensure_future(_exited(process.pid))
    try:
        await _feed(process, data)
        await asyncio.wait([reading, ending], return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            await asyncio.wait([reading], timeout=DRAIN_S)
        if reading.done():
            reading.result()
        await ending
    finally:
        reading.cancel()
        ending.cancel()
        await asyncio.gather(reading, ending, return_exceptions=True)
    return bytes(out), bytes(err)


async def _exited(pid: int) -> None:
    """Until the process has ended. asyncio's own wait() also waits for the pipes, which others may hold."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:  # ended and reaped already
        return
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def _read_both(
    stdout: asyncio.StreamReader,
    out: bytearray,
    stderr: asyncio.StreamReader,
    err: bytearray,
    limit: int,
    shown: str,
) -> None:
    await asyncio.gather(_read(stdout, out, limit, shown), _read(stderr, err, limit, shown))


async def _read(stream: asyncio.StreamReader, into: bytearray, limit: int, shown: str) -> None:
    while part := await stream.read(1 << 16):
        into += part
        if len(into) > limit:
            raise OutputTooLong(shown, limit)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(data)
            await process.stdin.drain()
        process.stdin.close()


def _which(name: str) -> str:
    if os.sep in name:
        return name
    found = shutil.which(name, path=PATH)
    if found is None:
        raise CommandNotFound(name)
    return found
