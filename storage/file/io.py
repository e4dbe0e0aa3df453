# SPDX-License-Identifier: GPL-2.0-or-later
"""All I/O on a shared mount, through helper processes, each request with a deadline.

A shared mount may hang in the kernel, and a process that waits there cannot even be killed. So the
agent itself never touches it:

- One helper serves the requests of a `FileIo`, in order; a request waits for its turn within its own deadline.
  What takes long (`allocate`, `discard`) gets a helper of its own for that time, and so do
  looks at the storage's health while another request runs: one slow request makes no healthy storage bad.
- A helper that does not answer within the deadline is abandoned: killed, and no longer waited for.
  The next request starts another. While too many processes hang on one mount (`vdsm.common.hanging`), whichever
  `FileIo` or command had them, every request on that mount is refused at once.
- What an abandoned helper was doing may still happen when the mount comes back: `iohelper` says how files are
  replaced so that it never lands on newer ones.
- A helper dies with us (PR_SET_PDEATHSIG), its process group is on record while it lives.

Requests and answers are the frames of `vdsm.common.framing`; file content travels in base64.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from storage.errors import IoFailed, NoSpaceLeft, StorageNotResponding
from vdsm.common import commands, framing, groups, hanging

log = logging.getLogger("vdsm.storage.io")

REQUEST_S = 60.0
"""The default deadline: the time after which a mount with the field's options gives up by itself."""

MAX_CONTENT = 8 << 20
CLOSE_S = 1.0
# for a helper's Python; of its own, since no storage is asked yet
START_S = 30.0
HELPER_ENDED = "EPIPE"

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "iohelper.py")
_FRAMING = os.path.abspath(framing.__file__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FileStatus:
    size: int
    allocated: int
    mode: int
    uid: int
    gid: int
    links: int
    is_folder: bool
    is_file: bool
    """A regular file: a link is none."""


@dataclass(frozen=True)
class SpaceStatus:
    total: int
    free: int


class FileIo:
    """Requests to files under ``name``, the path that messages and metrics show.

    ``mount`` is what hangs as one when it hangs; by default ``name`` itself.
    """

    def __init__(self, name: str, *, mount: str = "", timeout_s: float = REQUEST_S) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.mount = mount or name
        self._turn = asyncio.Lock()
        self._helper: _Helper | None = None
        self._beside_turn = asyncio.Lock()
        self._beside: _Helper | None = None
        self._closed = False

    @property
    def stuck(self) -> int:
        """Processes that were given up on this mount and still exist."""
        return len(hanging.pids(self.mount))

    @property
    def pids(self) -> list[int]:
        """Process ids of our helper and of the mount's abandoned ones, for memory figures."""
        return [h.pid for h in (self._helper, self._beside) if h is not None] + hanging.pids(self.mount)

    # Reading

    async def read(self, path: str, *, max_size: int = MAX_CONTENT) -> bytes:
        """The whole file. Raises `IoFailed` (EFBIG when it is longer than ``max_size``)."""
        return base64.b64decode(await self._ask("read", path=path, max_size=max_size))

    async def read_direct(self, path: str, *, offset: int = 0, size: int = 4096) -> bytes:
        """Past the page cache. ``offset`` and ``size`` are multiples of the block size; short at the file's end."""
        return base64.b64decode(await self._ask("read_direct", path=path, offset=offset, size=size))

    async def read_timed(self, path: str, *, size: int = 4096) -> float:
        """Seconds that one direct read took in the helper, without the time in the queue."""
        return float(await self._ask_beside("read_timed", path=path, size=size))

    async def exists(self, path: str) -> bool:
        return bool(await self._ask("exists", path=path))

    async def status(self, path: str) -> FileStatus:
        return FileStatus(**await self._ask("status", path=path))

    async def list_folder(self, path: str) -> list[str]:
        """Names in a folder, sorted."""
        return list(await self._ask("list_folder", path=path))

    async def list_matching(self, path: str, suffix: str) -> dict[str, list[str]]:
        """For each folder in ``path``: sorted names of its entries that end with ``suffix``, in one request."""
        return dict(await self._ask("list_matching", path=path, suffix=suffix))

    async def space(self, path: str) -> SpaceStatus:
        return SpaceStatus(**await self._ask_beside("space", path=path))

    async def block_size(self, folder: str) -> int:
        """1 (any), 512 or 4096: what direct writes into ``folder`` need, found with a probe file."""
        return int(await self._ask("block_size", folder=folder))

    # Changing

    async def write_atomic(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Replace the file: ``<path>.new.<token>``, fsync, rename, fsync of the folder."""
        await self._ask("write_atomic", path=path, data=_text(data), mode=mode)

    async def write_direct(self, path: str, data: bytes, *, offset: int = 0) -> None:
        """Into an existing file, past the page cache, then fdatasync. Lengths are multiples of the block size."""
        await self._ask("write_direct", path=path, data=_text(data), offset=offset)

    async def create(self, path: str, *, size: int = 0, mode: int = 0o660) -> None:
        """A new file of NUL bytes that take no space. EEXIST when it exists."""
        await self._ask("create", path=path, size=size, mode=mode)

    async def truncate(self, path: str, size: int) -> None:
        await self._ask("truncate", path=path, size=size)

    async def chmod(self, path: str, mode: int) -> None:
        await self._ask("chmod", path=path, mode=mode)

    async def make_folder(self, path: str, *, mode: int = 0o755) -> None:
        """EEXIST when it exists."""
        await self._ask("make_folder", path=path, mode=mode)

    async def make_folders(self, path: str, *, mode: int = 0o755) -> None:
        """With missing parents; nothing happens when it exists."""
        await self._ask("make_folders", path=path, mode=mode)

    async def rename(self, source: str, target: str) -> None:
        """Also fsync of both folders."""
        await self._ask("rename", source=source, target=target)

    async def relink(self, source: str, target: str) -> None:
        """Make ``target`` a hard link of ``source``, replacing what it was."""
        await self._ask("relink", source=source, target=target)

    async def remove(self, path: str) -> bool:
        """Unlink; False when it was not there."""
        return bool(await self._ask("remove", path=path))

    async def remove_folder(self, path: str) -> None:
        """An empty folder."""
        await self._ask("remove_folder", path=path)

    async def remove_tree(self, path: str) -> None:
        """A folder with all it holds, symbolic links not followed; nothing happens when it is not there."""
        await self._ask("remove_tree", path=path)

    async def sync_folder(self, path: str) -> None:
        await self._ask("sync_folder", path=path)

    async def allocate(
        self, path: str, size: int, *, offset: int = 0, timeout_s: float, progress: Progress | None = None
    ) -> None:
        """Make the file take space from ``offset`` to ``size``, in a helper of its own.

        Where the file system cannot reserve it, zeros are written past the end of the file; nothing that the file
        holds is ever written over. ``timeout_s`` is the longest silence: each piece of progress begins it anew.
        """
        request = {"op": "allocate", "path": path, "size": size, "offset": offset}
        await self._ask_alone(request, timeout_s, progress)

    async def discard(self, path: str) -> None:
        """A file, or a folder with all it holds, in a helper of its own; nothing happens when it is not there.

        However long it takes while it goes on: `timeout_s` is the longest silence.
        """
        await self._ask_alone({"op": "discard", "path": path}, self.timeout_s, None)

    async def close(self) -> None:
        """End the helper. A stuck one is killed and left to the kernel."""
        self._closed = True
        ours = [helper for helper in (self._helper, self._beside) if helper is not None]
        self._helper = self._beside = None
        for helper in ours:
            helper.kill()
        await asyncio.gather(hanging.settle(self.mount, CLOSE_S), *(h.ended(CLOSE_S) for h in ours))

    async def _ask_alone(self, request: dict[str, Any], silence_s: float, progress: Progress | None) -> None:
        await self._check_usable(request["op"])
        helper = await _Helper.start(self.name)
        try:
            async with self._abandoned_without_answer(helper):
                await self._asked(helper, request, silence_s, silence_s, progress)
        finally:
            helper.kill()
        await helper.ended(CLOSE_S)

    async def _ask(self, op: str, *, timeout_s: float | None = None, **params: Any) -> Any:
        limit = self.timeout_s if timeout_s is None else timeout_s
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(limit):
                await self._turn.acquire()
        except TimeoutError:
            raise StorageNotResponding(self.name, f"{op} (waiting for its turn)", limit) from None
        try:
            left = max(0.01, limit - (asyncio.get_running_loop().time() - started))
            return await self._exchange({"op": op, **params}, limit, left)
        finally:
            self._turn.release()

    async def _ask_beside(self, op: str, **params: Any) -> Any:
        """For health: never behind another request, which may be slow while the storage is well."""
        if not self._turn.locked():
            self._end_beside()
            return await self._ask(op, **params)
        async with self._beside_turn:
            await self._check_usable(op)
            if self._beside is None or not self._beside.alive:
                self._beside = await _Helper.start(self.name)
            async with self._abandoned_without_answer(self._beside) as helper:
                return await self._asked(helper, {"op": op, **params}, self.timeout_s, self.timeout_s)

    def _end_beside(self) -> None:
        """It costs memory, and is needed while the first one is busy only."""
        if self._beside is not None and not self._beside_turn.locked():
            self._abandon(self._beside)
            self._beside = None

    async def _exchange(self, request: dict[str, Any], limit: float, left: float) -> Any:
        await self._check_usable(request["op"])
        if self._helper is None or not self._helper.alive:
            self._helper = await _Helper.start(self.name)
        async with self._abandoned_without_answer(self._helper) as helper:
            return await self._asked(helper, request, limit, left)

    @contextlib.asynccontextmanager
    async def _abandoned_without_answer(self, helper: _Helper) -> AsyncIterator[_Helper]:
        """A helper whose answer may be on its way, or never comes, cannot be asked again."""
        try:
            yield helper
        except BaseException as e:
            if not isinstance(e, IoFailed) or e.error == HELPER_ENDED:
                if self._helper is helper:
                    self._helper = None
                if self._beside is helper:
                    self._beside = None
                self._abandon(helper)
            raise

    async def _asked(
        self, helper: _Helper, request: dict[str, Any], limit: float, silence_s: float, progress: Progress | None = None
    ) -> Any:
        try:
            return await helper.ask(request, silence_s, progress)
        except TimeoutError:
            raise StorageNotResponding(self.name, request["op"], limit) from None
        except (EOFError, ConnectionError):
            raise IoFailed(request["op"], self.name, HELPER_ENDED, "its I/O helper ended") from None

    async def _check_usable(self, op: str) -> None:
        if self._closed:
            raise IoFailed(op, self.name, "EBADF", "the domain is closed")
        try:
            await hanging.check(self.mount)
        except hanging.PlaceHangs as e:
            raise StorageNotResponding(self.name, f"{op} (refused: {e.count} helpers hang)", 0) from None

    def _abandon(self, helper: _Helper) -> None:
        helper.kill()
        if helper.alive:
            hanging.give_up(self.mount, helper.pid, helper.end)


class _Helper:
    """One helper process. Not to be asked again after anything but an answer came from `ask`."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name
        self.end = asyncio.ensure_future(_ended(process))
        self.end.add_done_callback(lambda _: groups.forget(process.pid))

    @classmethod
    async def start(cls, name: str) -> _Helper:
        """One that is ready: what a busy host takes for that is no silence of the storage. Raises `IoFailed`."""
        process = await commands.start(
            [_python(), "-I", "-S", "-E", _SCRIPT, _FRAMING],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=commands.ENVIRONMENT,
        )
        helper = cls(process, name)
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

    async def ask(self, request: dict[str, Any], silence_s: float, progress: Progress | None = None) -> Any:
        """The answer. Raises `IoFailed`, `TimeoutError`, `EOFError`."""
        assert self._process.stdin is not None
        async with asyncio.timeout(silence_s):
            self._process.stdin.write(framing.encode_frame(request))
            await self._process.stdin.drain()
        while True:
            async with asyncio.timeout(silence_s):
                answer = await self._frame()
            if "progress" not in answer:
                break
            if progress is not None:
                progress(*answer["progress"])
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

    async def ended(self, timeout_s: float) -> None:
        await asyncio.wait([self.end], timeout=timeout_s)


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


def _text(data: bytes) -> str:
    if len(data) > MAX_CONTENT:
        raise IoFailed("write", "content", "EFBIG", f"{len(data)} bytes are over the limit of {MAX_CONTENT}")
    return base64.b64encode(data).decode("ascii")
