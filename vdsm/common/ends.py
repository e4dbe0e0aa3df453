# SPDX-License-Identifier: GPL-2.0-or-later
"""Told by the kernel when a process has ended that is no child of ours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import ExitStack


async def first_end(pids: Iterable[int]) -> None:
    """Until one of these processes has ended, with all of its threads; one that is not there has."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ended.done():
            ended.set_result(None)

    with ExitStack() as opened:
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                return
            opened.callback(os.close, fd)
            loop.add_reader(fd, tell)
            opened.callback(loop.remove_reader, fd)
        await ended
