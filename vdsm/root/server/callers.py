# SPDX-License-Identifier: GPL-2.0-or-later
"""Who calls the root helper, in bounded numbers: no process of the agent's user exhausts root's memory or descriptors.

The agent needs one connection. What comes beyond a process's share, or beyond all seats, is told why and closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from vdsm.common.link import Bounds, Link, Serve
from vdsm.common.repeats import Repeats

log = logging.getLogger("vdsm.root")

MOST = 64
MOST_OF_PROCESS = 8
CALLS = 64
LARGE_AT_ONCE = 4
FRAME_S = 30.0
CLOSE_S = 2.0

_UCRED = struct.Struct("3i")


class Callers:
    def __init__(self, serve: Serve, uids: frozenset[int]) -> None:
        """``uids``: whose processes may call."""
        self._serve = serve
        self._uids = uids
        self._of: Counter[int] = Counter()
        self._told = Repeats(log)
        self._bounds = Bounds(FRAME_S, CALLS, asyncio.Semaphore(LARGE_AT_ONCE))

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, uid, _ = peer(writer)
        if uid not in self._uids:
            self._told.tell("uid", f"refused a connection of uid {uid} (pid {pid})")
            writer.close()
            return
        link = Link(reader, writer, serve=self._serve, name=f"pid {pid}", bounds=self._bounds)
        refused = self._refused(pid)
        if refused:
            self._told.tell("seats", f"refused a connection of pid {pid}: {refused}")
        self._of[pid] += 1
        try:
            if refused:
                await _ended(link.refuse(refused), writer)
            else:
                await link.run()
                await _ended(link.close(), writer)
        finally:
            self._of -= Counter({pid: 1})

    def _refused(self, pid: int) -> str:
        if self._of[pid] >= MOST_OF_PROCESS:
            return f"it has {self._of[pid]} connections already"
        if self._of.total() >= MOST:
            return f"the root helper has {self._of.total()} connections already"
        return ""


def peer(writer: asyncio.StreamWriter) -> tuple[int, int, int]:
    """(pid, uid, gid) of the process at the other end, as the kernel knows it."""
    connection = writer.get_extra_info("socket")
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(data)
    return pid, uid, gid


async def _ended(closing: Coroutine[Any, Any, None], writer: asyncio.StreamWriter) -> None:
    """A peer that does not read what was sent to it keeps no connection."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(closing, CLOSE_S)
    writer.transport.abort()
