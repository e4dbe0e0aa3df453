# SPDX-License-Identifier: GPL-2.0-or-later
"""One I/O helper process: started, asked, killed.

A mount may hang in the kernel, and a process that waits there cannot even be killed. So nobody waits for one without a
deadline, and one that owes an answer is never asked again: whatever it still writes is read by nobody.
It dies with us (`ionursery`), and is on record as a process group while it lives.

Requests and answers are the frames of `vdsm.common.framing`; file content travels in base64.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
from collections.abc import Callable
from typing import Any

from storage.errors import IoFailed, NoSpaceLeft
from storage.file.ionursery import Nursery
from vdsm.common import framing, groups

# for a busy host, which may start a Python for it; of its own, since no storage is asked yet
START_S = 30.0
HELPER_ENDED = "EPIPE"

Progress = Callable[[int, int], None]


class Helper:
    """Not to be asked again after anything but an answer came from `ask`."""

    def __init__(
        self, name: str, kept: tuple[int, ...], pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Raises `ProcessLookupError` when it is gone already."""
        self.pid = pid
        self.kept = kept
        """Numbers, in our process, of the descriptors that it holds copies of until it is gone."""
        self._name = name
        self._reader = reader
        self._writer = writer
        self._pidfd = os.pidfd_open(pid)
        groups.record(pid, name)
        loop = asyncio.get_running_loop()
        self.end: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._pidfd, self._ended)

    @classmethod
    async def start(cls, nursery: Nursery, name: str, kept: tuple[int, ...] = ()) -> Helper:
        """One for the mount ``name`` that is ready. Raises `IoFailed`.

        What a busy host takes for that is no silence of the storage.
        """
        try:
            async with asyncio.timeout(START_S):
                connection = await nursery.bear(kept)
                writer: asyncio.StreamWriter | None = None
                try:
                    reader, writer = await asyncio.open_connection(sock=connection)
                    helper = cls(name, kept, (await _frame(reader))["pid"], reader, writer)
                except BaseException:
                    (writer or connection).close()
                    nursery.lost()
                    raise
        except TimeoutError:
            nursery.kill()
            raise _no_start(name) from None
        except (EOFError, OSError):
            raise _no_start(name) from None
        helper.end.add_done_callback(lambda _: nursery.lost())
        return helper

    @property
    def alive(self) -> bool:
        return not self.end.done()

    async def ask(self, request: dict[str, Any], silence_s: float, progress: Progress) -> Any:
        """The answer. Raises `IoFailed`, also when the helper ended, and `TimeoutError` after so long a silence."""
        try:
            async with asyncio.timeout(silence_s):
                self._writer.write(framing.encode_frame(request))
                await self._writer.drain()
            while True:
                async with asyncio.timeout(silence_s):
                    answer = await _frame(self._reader)
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

    def kill(self) -> None:
        self._writer.close()
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        groups.forget(self.pid)
        self._writer.close()
        self.end.set_result(None)


async def _frame(reader: asyncio.StreamReader) -> dict[str, Any]:
    header = await reader.readexactly(framing.HEADER.size)
    answer = json.loads(await reader.readexactly(framing.body_length(header)))
    assert isinstance(answer, dict)
    return answer


def _no_start(name: str) -> IoFailed:
    return IoFailed("start", name, HELPER_ENDED, "its I/O helper did not start")
