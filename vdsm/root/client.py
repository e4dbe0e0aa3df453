# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's way to what only root may do: typed verbs of the root helper.

The helper is a second process (``vdsm.root.server``). An argument is data that the helper checks
against its own records: never a path that it trusts, never a command line.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

from vdsm.common import masking
from vdsm.common.deadlines import deadline
from vdsm.common.errors import AgentError
from vdsm.common.link import Link
from vdsm.common.types import Json

CONNECT_S = 5.0


class RootHelperUnreachable(AgentError):
    socket: str
    reason: str
    msg = "The root helper does not answer at {self.socket}: {self.reason}"
    remedy = "Start it: systemctl start vdsm-root (see 'vdsm doctor')"


class Root(Protocol):
    async def call(self, verb: str, params: Mapping[str, Json], *, timeout_s: float) -> Any:
        """The verb's result. Raises the verb's error, `RootHelperUnreachable`, `DeadlineExceeded`."""
        ...


class RootClient:
    """A connection to the helper that is made when first used, and again after the helper's restart."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._link: Link | None = None
        self._running: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def call(self, verb: str, params: Mapping[str, Json], *, timeout_s: float) -> Any:
        link = await self._connected()
        return await link.call(verb, params, timeout_s=timeout_s)

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    async def _connected(self) -> Link:
        async with self._connecting:
            if self._link is None or self._link.closed:
                try:
                    async with deadline("Connecting to the root helper", CONNECT_S):
                        reader, writer = await asyncio.open_unix_connection(self._socket)
                except OSError as e:
                    raise RootHelperUnreachable(self._socket, e.strerror or str(e)) from None
                self._link = Link(reader, writer, name="the root helper")
                self._running = asyncio.get_running_loop().create_task(self._link.run(), context=masking.outside())
            return self._link
