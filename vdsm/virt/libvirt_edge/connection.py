# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection to libvirt that comes back by itself.

A close callback (libvirtd stopped or killed, or keep-alive unanswered for 30 s) starts a new attempt
at once and then every 0.1 to 2 s. Calls wait for the connection as a part of their own deadline, so
a restart of libvirtd looks like a slow call. After each later connection the owner is told, because
events of the time between are lost.

A connection that is given up may live on (one call failed, or its peer hangs): its events must not arrive beside
those of its successor, so its subscriptions are ended. It is closed when the last call that uses it lets go of it, not
before: libvirt frees what it closes, under a call of another thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from vdsm.common.deadlines import deadline
from vdsm.common.errors import AgentError, DeadlineExceeded
from vdsm.virt.errors import HypervisorLost, VirtError
from vdsm.virt.libvirt_edge.event_loop import ensure_event_loop
from vdsm.virt.libvirt_edge.failures import is_connection_loss, translate
from vdsm.virt.libvirt_edge.workers import Workers

log = logging.getLogger("vdsm.virt.libvirt")

_OPEN_TIMEOUT_S = 20.0
_LEAVE_TIMEOUT_S = 5.0
_RETRY_FIRST_S, _RETRY_LAST_S = 0.1, 2.0
_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 10, 2

T = TypeVar("T")


class Connection:
    def __init__(
        self, uri: str, register: Callable[[libvirt.virConnect], Callable[[], None]], reconnected: Callable[[], None]
    ):
        """``register`` subscribes to events on a fresh connection, in a thread, and returns what ends that;
        ``reconnected`` is called on the event loop after every connection but the first."""
        self._uri = uri
        self._register = register
        self._reconnected = reconnected
        self._connect: libvirt.virConnect | None = None
        self._ready = asyncio.Event()
        self._unsubscribe: Callable[[], None] = _nothing
        self._openers = Workers("libvirt/open", 2)
        self._leaving: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    async def start(self) -> None:
        """Begin to connect; calls wait until it succeeded."""
        ensure_event_loop()
        self._keeper = asyncio.create_task(self._keep(), name="libvirt connection")

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self._ready.clear()
        await self._leave()
        if self._leaving:
            await asyncio.wait(self._leaving)
        self._openers.stop()

    async def call(
        self, workers: Workers, what: str, timeout_s: float, run: Callable[[libvirt.virConnect], T], *, vm_id: str = ""
    ) -> T:
        """Run ``run`` with the connection in ``workers``; errors are the agent's own."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        async with deadline(f"waiting for libvirt to {what}", timeout_s):
            await self._ready.wait()
        connect = self._connect
        if connect is None:
            raise HypervisorLost(what)
        try:
            return await workers.call(f"libvirt: {what}", max(0.1, until - loop.time()), lambda: run(connect))
        except libvirt.libvirtError as e:
            if is_connection_loss(e):
                self._closed(connect)
            raise translate(what, vm_id, e) from e

    async def _keep(self) -> None:
        delay_s = _RETRY_FIRST_S
        first = True
        while True:
            try:
                self._connect, self._unsubscribe = await self._openers.call("open libvirt", _OPEN_TIMEOUT_S, self._open)
            except (libvirt.libvirtError, DeadlineExceeded, VirtError) as e:
                log.warning("can't connect to libvirt %s: %s; trying again in %.1f s", self._uri, e, delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _RETRY_LAST_S)
                continue
            delay_s = _RETRY_FIRST_S
            self._lost.clear()
            self._ready.set()
            log.info("connected to libvirt %s", self._uri)
            if not first:
                self._reconnected()
            first = False
            await self._lost.wait()
            leaving = asyncio.create_task(self._leave(), name="leave a libvirt connection")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _leave(self) -> None:
        """Hear no more of the connection; a new one does not wait for this."""
        unsubscribe, self._unsubscribe, self._connect = self._unsubscribe, _nothing, None
        try:
            await self._openers.call("leave the connection to libvirt", _LEAVE_TIMEOUT_S, unsubscribe)
        except AgentError as e:
            log.warning("%s", e)

    def _open(self) -> tuple[libvirt.virConnect, Callable[[], None]]:
        started = time.monotonic()
        connect = libvirt.open(self._uri)
        watched = True
        try:
            connect.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
            connect.registerCloseCallback(self._on_close, self._loop)
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
            watched = False  # a driver in this process: nothing can break
        end = self._register(connect)

        def unsubscribe() -> None:
            end()
            if watched:
                with contextlib.suppress(libvirt.libvirtError):  # it broke
                    connect.unregisterCloseCallback()

        if time.monotonic() - started > _OPEN_TIMEOUT_S:  # nobody waits for it any more
            unsubscribe()
            raise DeadlineExceeded("open libvirt", _OPEN_TIMEOUT_S)
        return connect, unsubscribe

    @property
    def _loop(self) -> asyncio.AbstractEventLoop | None:
        return None if self._keeper is None else self._keeper.get_loop()

    def _on_close(self, connect: libvirt.virConnect, reason: int, loop: Any) -> None:
        """In libvirt's event thread."""
        try:
            loop.call_soon_threadsafe(self._closed, connect)
        except RuntimeError:  # the loop is closed: the agent ends
            return

    def _closed(self, connect: libvirt.virConnect) -> None:
        if connect is self._connect and self._ready.is_set():
            log.warning("the connection to libvirt is closed; VMs run on")
            self._ready.clear()
            self._lost.set()


def _nothing() -> None:
    """No connection, nothing to end."""
