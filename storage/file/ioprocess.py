# SPDX-License-Identifier: GPL-2.0-or-later
"""One I/O helper process: started, asked, killed.

A mount may hang in the kernel, and a process that waits there cannot even be killed. So nobody waits for one without a
deadline, and one that owes an answer is never asked again: whatever it still writes into its pipe is read by nobody.
It dies with us (PR_SET_PDEATHSIG), its process group is on record while it lives.

Requests and answers are the frames of `vdsm.common.framing`; file content travels in base64.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from storage.errors import IoFailed, NoSpaceLeft
from vdsm.common import commands, framing, groups

# for a helper's Python; of its own, since no storage is asked yet
START_S = 30.0
HELPER_ENDED = "EPIPE"

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "iohelper", "__main__.py")

Progress = Callable[[int, int], None]


class Helper:
    """Not to be asked again after anything but an answer came from `ask`."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, kept: tuple[int, ...]) -> None:
        self._process = process
        self._name = name
        self.kept = kept
        """Numbers, in our process, of the descriptors that it holds copies of until it is gone."""
        self.end = asyncio.ensure_future(_ended(process))
        self.end.add_done_callback(lambda _: groups.forget(process.pid))

    @classmethod
    async def start(cls, name: str, kept: tuple[int, ...] = ()) -> Helper:
        """One for the mount ``name`` that is ready. Raises `IoFailed`.

        What a busy host takes for that is no silence of the storage.
        """
        process = await commands.start(
            [_python(), "-I", "-S", "-E", _SCRIPT],
            place=name,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=commands.ENVIRONMENT,
            pass_fds=kept,
        )
        helper = cls(process, name, kept)
        try:
            async with asyncio.timeout(START_S):
                await helper._frame()
        except BaseException as e:
            helper.kill()
            if isinstance(e, TimeoutError | EOFError | ConnectionError):
                raise IoFailed("start", name, HELPER_ENDED, "its I/O helper did not start") from None
            raise
        return helper

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self.end.done()

    async def ask(self, request: dict[str, Any], silence_s: float, progress: Progress) -> Any:
        """The answer. Raises `IoFailed`, also when the helper ended, and `TimeoutError` after so long a silence."""
        assert self._process.stdin is not None
        try:
            async with asyncio.timeout(silence_s):
                self._process.stdin.write(framing.encode_frame(request))
                await self._process.stdin.drain()
            while True:
                async with asyncio.timeout(silence_s):
                    answer = await self._frame()
                if "progress" not in answer:
                    break
                progress(*answer["progress"])
        except (EOFError, ConnectionError):
            raise IoFailed(request["op"], self._name, HELPER_ENDED, "its I/O helper ended") from None
        if "errno" in answer:
            number = answer["errno"]
            failed = NoSpaceLeft if number in (errno.ENOSPC, errno.EDQUOT) else IoFailed
            raise failed(
                request["op"],
                str(answer.get("path") or request.get("path") or self._name),
                errno.errorcode.get(number, str(number)),
                str(answer["text"]),
            )
        return answer["result"]

    async def _frame(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        header = await self._process.stdout.readexactly(framing.HEADER.size)
        body = await self._process.stdout.readexactly(framing.body_length(header))
        answer = json.loads(body)
        assert isinstance(answer, dict)
        return answer

    def kill(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        groups.kill_group(self._process.pid)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Until the process is gone; takes the error of a pipe that broke with it, which nobody else would."""
    await process.wait()
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(ConnectionError):
        await process.stdin.wait_closed()


def _python() -> str:
    # our own interpreter, not the virtual environment's shim: the helper needs no packages
    return os.path.realpath(sys.executable)
