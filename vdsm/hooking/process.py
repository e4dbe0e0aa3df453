# SPDX-License-Identifier: GPL-2.0-or-later
"""One script from its start to its end.

- It leads a process group of its own that is on record while it runs: a killed agent leaves nothing behind
  (`vdsm.common.groups`). The script itself dies with the agent at once.
- It has ended when its process has. A daemon that it left behind may live on, as it may after any
  program; its hold on the script's stderr is waited for `DRAIN_S` at most.
- At its time limit, or when the caller is cancelled, the whole group is killed. A script that hangs in the kernel is
  given up (`vdsm.common.commands.kill`).
- stdin is empty, stdout goes nowhere, of stderr the beginning and the end are kept.
- A file without an interpreter line runs under /bin/sh, as it does from a shell.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from vdsm.common import groups, masking
from vdsm.common.commands import argv_bound_to_us, end, kill
from vdsm.common.starts import started_or_ended

log = logging.getLogger("vdsm.hooks")

DRAIN_S = 1.0
HEAD_BYTES = 2048
TAIL_BYTES = 4096


@dataclass(frozen=True)
class Identity:
    """Whom a script runs as, when not as ourselves. Only root can choose."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Ended:
    code: int  # negative: the signal that ended it
    stderr: str
    stderr_bytes: int
    seconds: float
    timed_out: bool


async def run_script(
    path: str, *, env: Mapping[str, str], timeout_s: float, identity: Identity | None = None, cwd: str = "/"
) -> Ended:
    """Raises OSError when no process can be made."""
    started = time.monotonic()
    transport, script = await started_or_ended(
        asyncio.get_running_loop().subprocess_exec(
            _Script,
            *_argv(path, identity),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        ),
        end,
    )
    timed_out = False
    try:
        groups.record(transport.get_pid())
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(script.exited)
    except TimeoutError:
        timed_out = True
    finally:
        if script.exited.done():
            await _drain(script)
            transport.close()
            groups.forget(transport.get_pid())
        else:
            await asyncio.shield(kill(f"hook {path}", transport, script.exited))
    code = transport.get_returncode()
    stderr = script.stderr()
    return Ended(-9 if code is None else code, stderr, script.received, time.monotonic() - started, timed_out)


def _argv(path: str, identity: Identity | None) -> list[str]:
    argv = argv_bound_to_us([path])
    if identity is not None:
        # setpriv sets the death signal after the ids: changing them would clear it
        argv[1:1] = [f"--reuid={identity.uid}", f"--regid={identity.gid}", "--init-groups"]
    return argv


async def _drain(script: _Script) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await script.closed.wait()


class _Script(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        self.received = 0
        self._head = bytearray()
        self._tail = bytearray()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.received += len(data)
        room = max(0, HEAD_BYTES - len(self._head))
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[:-TAIL_BYTES]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self.closed.set()

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def stderr(self) -> str:
        """Goes into logs, events and traces: a script may have printed the XML with all that is secret in it."""
        left_out = self.received - len(self._head) - len(self._tail)
        middle = f"\n[{left_out} bytes left out]\n".encode() if left_out else b""
        return masking.hide(bytes(self._head + middle + self._tail).decode("utf-8", "replace"))
