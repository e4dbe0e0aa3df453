# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be asked of the files on a mount, each request with a deadline.

A shared mount may hang in the kernel, and a process that waits there cannot even be killed. So the
agent itself never touches it: a `FileIo` is what one domain, or one look at a mount, sees of the mount's `IoPool`,
which has helper processes and lanes for all that use it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.errors import IoFailed
from storage.file.iolanes import Lane
from storage.file.iopool import IoPools, Request
from storage.file.ioprocess import Progress

MAX_CONTENT = 8 << 20

# what was abandoned of these can't land on what comes later (`iohelper.requests`)
REPLACING = frozenset({"write_atomic", "relink"})


@dataclass(frozen=True)
class FileStatus:
    size: int
    allocated: int
    mode: int
    uid: int
    gid: int
    links: int
    changed: float
    """ctime: seconds since 1970."""
    is_folder: bool
    is_file: bool
    """A regular file: a link is none."""


@dataclass(frozen=True)
class SpaceStatus:
    total: int
    free: int
    refused: str
    """Why a file there is not opened for writing; empty when it is, or when none was asked about."""


class FileIo:
    """Requests to files under ``name``, the path that messages and metrics show.

    ``mount`` is what hangs as one when it hangs; by default ``name`` itself. ``pools`` are those of the process:
    without, it has helpers of its own. ``timeout_s`` is theirs unless it is given.
    """

    def __init__(
        self, name: str, *, mount: str = "", timeout_s: float | None = None, pools: IoPools | None = None
    ) -> None:
        self.name = name
        self.order = asyncio.Lock()
        self.closed = False
        self._alone = pools is None
        self._pools = pools or IoPools()
        self.timeout_s = self._pools.request_s if timeout_s is None else timeout_s
        self._pool = self._pools.of(mount or name)
        self._pool.join(self)

    @property
    def mount(self) -> str:
        return self._pool.mount

    @property
    def kept(self) -> tuple[int, ...]:
        """Descriptors that whoever writes here beside us holds copies of, too (`vdsm.common.commands`: ``held``)."""
        return self._pool.kept

    @property
    def stuck(self) -> int:
        """Processes that were given up on this mount and still exist."""
        return self._pool.stuck

    @property
    def pids(self) -> list[int]:
        """Process ids of the mount's helpers, and of whatever was given up on it."""
        return self._pool.pids

    # Reading

    async def read(self, path: str, *, max_size: int = MAX_CONTENT) -> bytes:
        """The whole file. Raises `IoFailed` (EFBIG when it is longer than ``max_size``)."""
        return base64.b64decode(await self._ask("read", path=path, max_size=max_size))

    async def read_direct(self, path: str, *, offset: int = 0, size: int = 4096) -> bytes:
        """Past the page cache. ``offset`` and ``size`` are multiples of the block size; short at the file's end."""
        return base64.b64decode(await self._ask("read_direct", path=path, offset=offset, size=size))

    async def read_timed(self, path: str, *, size: int = 4096) -> tuple[float, bytes]:
        """Seconds that one direct read took in the helper, without the time in the queue; what was read."""
        took_s, content = await self._ask("read_timed", Lane.HEALTH, path=path, size=size)
        return float(took_s), base64.b64decode(content)

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

    async def space(self, path: str, *, writes: Sequence[str] = ()) -> SpaceStatus:
        """``writes``: files of which the server is asked whether we may write them; nothing is written."""
        return SpaceStatus(**await self._ask("space", Lane.HEALTH, path=path, writes=list(writes)))

    async def block_size(self, folder: str) -> int:
        """1 (any), 512 or 4096: what direct writes into ``folder`` need, found with a probe file."""
        return int(await self._change("block_size", (folder,), folder=folder))

    # Changing

    async def write_atomic(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Replace the file: ``<path>.new.<token>``, fsync, rename, fsync of the folder."""
        await self._change("write_atomic", (path,), path=path, data=_text(data), mode=mode)

    async def write_direct(self, path: str, data: bytes, *, offset: int = 0) -> None:
        """Into an existing file, past the page cache, then fdatasync. Lengths are multiples of the block size."""
        await self._change("write_direct", (path,), path=path, data=_text(data), offset=offset)

    async def create(self, path: str, *, size: int = 0, mode: int = 0o660) -> None:
        """A new file of NUL bytes that take no space. EEXIST when it exists."""
        await self._change("create", (path,), path=path, size=size, mode=mode)

    async def truncate(self, path: str, size: int) -> None:
        await self._change("truncate", (path,), path=path, size=size)

    async def chmod(self, path: str, mode: int) -> None:
        await self._change("chmod", (path,), path=path, mode=mode)

    async def forget_refusals(self, path: str) -> None:
        """Whoever opens the file next asks the server, whatever the client was told about it before."""
        await self._ask("forget_refusals", path=path)

    async def make_folder(self, path: str, *, mode: int = 0o755) -> None:
        """EEXIST when it exists."""
        await self._change("make_folder", (path,), path=path, mode=mode)

    async def make_folders(self, path: str, *, mode: int = 0o755) -> None:
        """With missing parents; nothing happens when it exists."""
        await self._change("make_folders", (path,), path=path, mode=mode)

    async def rename(self, source: str, target: str) -> None:
        """Also fsync of both folders."""
        await self._change("rename", (source, target), source=source, target=target)

    async def relink(self, source: str, target: str) -> None:
        """Make ``target`` a hard link of ``source``, replacing what it was."""
        await self._change("relink", (target,), source=source, target=target)

    async def remove(self, path: str) -> bool:
        """Unlink; False when it was not there."""
        return bool(await self._change("remove", (path,), path=path))

    async def remove_folder(self, path: str) -> None:
        """An empty folder."""
        await self._change("remove_folder", (path,), path=path)

    async def remove_tree(self, path: str) -> None:
        """A folder with all it holds, symbolic links not followed; nothing happens when it is not there."""
        await self._change("remove_tree", (path,), path=path)

    async def sync_folder(self, path: str) -> None:
        """What was done there lasts from here on. It changes nothing itself: one that lands late harms nobody."""
        await self._ask("sync_folder", path=path)

    async def allocate(
        self, path: str, size: int, *, offset: int = 0, timeout_s: float, progress: Progress | None = None
    ) -> None:
        """Make the file take space from ``offset`` to ``size``, in the bulk lane.

        Where the file system cannot reserve it, zeros are written past the end of the file; nothing that the file
        holds is ever written over. ``timeout_s`` is the longest silence: each piece of progress begins it anew.
        """
        params = {"path": path, "size": size, "offset": offset}
        request = Request(self, Lane.BULK, "allocate", params, timeout_s, (path,))
        if progress is not None:
            request.progress = progress
        await self._pool.ask(request)

    async def discard(self, path: str) -> None:
        """A file, or a folder with all it holds, in the bulk lane; nothing happens when it is not there.

        However long it takes while it goes on: `timeout_s` is the longest silence.
        """
        await self._pool.ask(Request(self, Lane.BULK, "discard", {"path": path}, self.timeout_s, (path,)))

    # The mailbox: direct, in a lane of its own

    async def read_mail(self, path: str, *, offset: int = 0, size: int = 4096) -> bytes:
        """As `read_direct`, never behind anything but mail."""
        return base64.b64decode(await self._ask("read_direct", Lane.MAIL, path=path, offset=offset, size=size))

    async def write_mail(self, path: str, data: bytes, *, offset: int = 0) -> None:
        """As `write_direct`, never behind anything but mail."""
        params = {"path": path, "data": _text(data), "offset": offset}
        await self._pool.ask(Request(self, Lane.MAIL, "write_direct", params, self.timeout_s, (path,)))

    async def close(self) -> None:
        """End its requests. A helper that hangs is killed and left to the kernel."""
        self.closed = True
        await self._pool.leave(self)
        if self._alone:
            await self._pools.close()

    async def _ask(self, op: str, lane: Lane = Lane.METADATA, **params: Any) -> Any:
        return await self._pool.ask(Request(self, lane, op, params, self.timeout_s))

    async def _change(self, op: str, writes: tuple[str, ...], **params: Any) -> Any:
        replaces = op in REPLACING
        return await self._pool.ask(Request(self, Lane.METADATA, op, params, self.timeout_s, writes, replaces))


def _text(data: bytes) -> str:
    if len(data) > MAX_CONTENT:
        raise IoFailed("write", "content", "EFBIG", f"{len(data)} bytes are over the limit of {MAX_CONTENT}")
    return base64.b64encode(data).decode("ascii")
