# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks that wait since boot: each is restored by itself, as soon as it can be.

    boot -> every persistent network waits -> tried once -> runs
                                                  | failed: tried again when its NIC comes, else each `RETRY_S`

What waits stands in the record of this boot (``network.journal``), so a helper that dies in the middle goes on where it
was. One that fails holds up no other, and is told when its reason is a new one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable

from network.journal import Folder
from network.model import Network
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.network")

RETRY_S = 30.0
_SETTLE_S = 0.2  # a device that comes sends several messages, and gets its name in between
_LINKS = 1  # RTMGRP_LINK


class Restorer:
    def __init__(
        self,
        folder: Folder,
        restore: Callable[[Network], None],
        *,
        is_there: Callable[[str], bool] = lambda nic: os.path.exists(f"/sys/class/net/{nic}"),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._restore = restore
        self._is_there = is_there
        self._now = now
        self._tried: dict[str, tuple[bool, float]] = {}
        self._told: dict[str, str] = {}

    def look(self) -> bool:
        """Try those whose turn it is; whether any still waits. Blocks."""
        for name, network in self._folder.waiting().items():
            there, now = not network.nic or self._is_there(network.nic), self._now()
            before = self._tried.get(name)
            if before is not None and now - before[1] < RETRY_S and (before[0] or not there):
                continue
            self._tried[name] = there, now
            try:
                self._restore(network)
                log.info("network %s is restored", name)
            except AgentError as e:
                self._tell(name, str(e))
        return bool(self._folder.waiting())

    def _tell(self, name: str, reason: str) -> None:
        if self._told.get(name) != reason:
            self._told[name] = reason
            log.error("network %s was not restored and waits: %s", name, reason)


async def pick_up(restorer: Restorer) -> None:
    """Until nothing waits any more; woken by every device that comes."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE) as links:
        links.bind((0, _LINKS))
        waits = True
        while waits:
            await _change_of(links)
            try:
                waits = await asyncio.to_thread(restorer.look)
            except Exception:  # nobody awaits this task: it goes on, whatever it was
                log.exception("looking for networks that wait failed; it is tried again")


async def _change_of(links: socket.socket) -> None:
    try:
        async with asyncio.timeout(RETRY_S):
            await asyncio.get_running_loop().sock_recv(links, 1 << 16)
            await asyncio.sleep(_SETTLE_S)
    except (TimeoutError, OSError):  # OSError: more messages than the buffer holds, which is a change, too
        pass
    while True:
        try:
            links.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            continue
