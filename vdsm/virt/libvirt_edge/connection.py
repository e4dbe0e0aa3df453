# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's connections, which come back by themselves.

One connection is kept for events. A close callback (libvirtd stopped or killed, or keep-alive unanswered for 30 s)
starts a new attempt at once and then every 0.1 to 2 s. Calls wait for it as a part of their own deadline, so a restart
of libvirtd looks like a slow call. After each later connection the owner is told, because events of the time between
are lost; what was subscribed on an earlier one is not heard any more from the moment it is given up, also when the end
of its subscription hangs.

Calls never use it: each thread has a connection of its own, opened when it first needs one. libvirtd serves five
requests of one connection at a time and reads no further, not even keep-alive: five calls that hang would hold up all
others, and end the connection with everything on it (seen). So a call that hangs holds up nothing but its thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import libvirt

from vdsm.common.errors import AgentError, DeadlineExceeded
from vdsm.virt.errors import HypervisorLost, NotBegun
from vdsm.virt.libvirt_edge.event_loop import ensure_event_loop
from vdsm.virt.libvirt_edge.failures import is_connection_loss, says_nothing, translate
from vdsm.virt.libvirt_edge.watched import Listener, Watched, open_connection
from vdsm.virt.libvirt_edge.workers import Workers

log = logging.getLogger("vdsm.virt.libvirt")

_OPEN_TIMEOUT_S = 20.0
_LEAVE_TIMEOUT_S = 5.0
_RETRY_FIRST_S, _RETRY_LAST_S = 0.1, 2.0

T = TypeVar("T")


class _CanNotOpen(Exception):
    """A thread got no connection: its call did not begin."""


class Connection:
    def __init__(self, uri: str, listener: Callable[[], Listener], reconnected: Callable[[], None]):
        """``listener`` makes one for each connection; ``reconnected`` is called on the event loop after every
        connection but the first."""
        self._uri = uri
        self._listener = listener
        self._reconnected = reconnected
        self._had_one = False
        self._current: Watched | None = None
        self._ready = asyncio.Event()
        self._needed = asyncio.Event()
        self._openers = Workers("libvirt/open", 2, per_vm=8)
        self._leavers = Workers("libvirt/leave", 2, per_vm=8)
        self._leaving: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._own = threading.local()

    async def start(self) -> None:
        """Begin to connect; calls wait until it succeeded."""
        ensure_event_loop()
        self._loop = asyncio.get_running_loop()
        self._needed.set()
        self._keeper = asyncio.create_task(self._keep(), name="libvirt connection")

    async def stop(self) -> None:
        """Whoever still waits for a connection hears at once that there is none."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._current is not None:
            self._give_up(self._current)
        self._ready.set()
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_LEAVE_TIMEOUT_S)
        for task in self._leaving:
            task.cancel()
        self._openers.stop()
        self._leavers.stop()

    @property
    def _stopped(self) -> bool:
        return self._keeper is None or self._keeper.done()

    # Calls

    async def call(
        self,
        workers: Workers,
        what: str,
        timeout_s: float,
        run: Callable[[libvirt.virConnect], T],
        *,
        vm_id: str = "",
        repeat: bool = False,
    ) -> T:
        """Run ``run`` with a connection in ``workers``; errors are the agent's own.

        ``repeat``: it changes nothing, so it is done again when its connection broke.
        """
        name = f"libvirt: {what}"
        until = asyncio.get_running_loop().time() + timeout_s
        pause_s = _RETRY_FIRST_S
        try:
            while True:
                left_s = await self._wait_until_ready(what, until)
                try:
                    return await workers.call(name, left_s, lambda: self._run_on_own(run), vm_id=vm_id)
                except _CanNotOpen as e:
                    log.info("%s: %s", name, e.__cause__)
                except libvirt.libvirtError as e:
                    if is_connection_loss(e):
                        self._look_at_current()
                    if not (repeat and says_nothing(e)):
                        raise translate(what, vm_id, e) from e
                self._look_at_current()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RETRY_LAST_S)
        except DeadlineExceeded as e:
            raise type(e)(name, timeout_s) from None

    async def _wait_until_ready(self, what: str, until: float) -> float:
        """What is left of the call's time."""
        try:
            async with asyncio.timeout_at(until):
                await self._ready.wait()
        except TimeoutError:
            raise NotBegun(what, 0.0) from None
        if self._stopped:
            raise HypervisorLost(what)
        return max(0.0, until - asyncio.get_running_loop().time())

    def _run_on_own(self, run: Callable[[libvirt.virConnect], T]) -> T:
        """In a thread of a pool, with that thread's connection."""
        connect: libvirt.virConnect | None = getattr(self._own, "connect", None)
        if connect is None or not connect.isAlive():
            self._own.connect = None
            try:
                connect = self._own.connect = open_connection(self._uri)
            except libvirt.libvirtError as e:
                raise _CanNotOpen from e
        try:
            return run(connect)
        except libvirt.libvirtError as e:
            if is_connection_loss(e):
                self._own.connect = None
            e.__traceback__ = None  # its frames hold libvirt's objects, see `failures`
            raise
        finally:
            del connect

    # The connection for events

    async def _keep(self) -> None:
        delay_s = _RETRY_FIRST_S
        while True:
            await self._needed.wait()
            try:
                await self._openers.call("open libvirt", _OPEN_TIMEOUT_S, self._open)
            except Exception as e:  # whatever it was: without a connection no VM can be reached, so it is tried again
                expected = isinstance(e, (libvirt.libvirtError, AgentError))
                text = "can't connect to libvirt %s: %s; trying again in %.1f s"
                log.warning(text, self._uri, e, delay_s, exc_info=not expected)
            else:
                if self._current is not None:
                    delay_s = _RETRY_FIRST_S
                    continue
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _RETRY_LAST_S)

    def _open(self) -> None:
        """In a thread. The loop is told, whether or not it still waits: also a late connection is one."""
        connection = Watched(open_connection(self._uri), self._listener())
        try:
            connection.watch(lambda: self._tell(self._give_up, connection))
        except Exception:
            connection.end()
            raise
        self._tell(self._adopt, connection)

    def _tell(self, function: Callable[[Watched], None], connection: Watched) -> None:
        """In a thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the agent ends
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, connection)

    def _adopt(self, connection: Watched) -> None:
        if self._stopped:
            return
        if self._current is not None or not connection.is_alive():
            self._leave_soon(connection)
            return
        self._current = connection
        connection.listener.heard = True
        self._needed.clear()
        self._ready.set()
        log.info("connected to libvirt %s", self._uri)
        if self._had_one:
            asyncio.get_running_loop().call_soon(self._reconnected)
        self._had_one = True

    def _look_at_current(self) -> None:
        """Something failed: was it not only the connection of one thread?"""
        if self._current is not None and not self._current.is_alive():
            self._give_up(self._current)

    def _give_up(self, connection: Watched) -> None:
        if connection is not self._current:
            return  # that is known
        if not self._stopped:
            log.warning("the connection to libvirt is closed; VMs run on")
        self._current = None
        connection.listener.heard = False
        self._ready.clear()
        self._needed.set()
        self._leave_soon(connection)

    def _leave_soon(self, connection: Watched) -> None:
        leaving = asyncio.create_task(self._leave(connection), name="leave a libvirt connection")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, connection: Watched) -> None:
        """End what was subscribed, so that it is let go of; a new connection does not wait for this."""
        while True:
            try:
                return await self._leavers.call("leave the connection to libvirt", _LEAVE_TIMEOUT_S, connection.end)
            except DeadlineExceeded as e:
                log.warning("%s", e)
                if not isinstance(e, NotBegun):
                    return None  # it goes on until libvirt answers or the connection ends
            except AgentError as e:
                log.warning("%s", e)
            if self._stopped:
                return None
            await asyncio.sleep(_RETRY_LAST_S)
