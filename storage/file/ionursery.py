# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that bears our I/O helpers (`storage.file.iohelper.nursery`), as we see it.

Started when the first helper is needed, ended when none has lived for a while. It dies with us (PR_SET_PDEATHSIG), and
the helpers with it. It is of our session, and so are helpers that keep descriptors (`vdsm.common.commands`: ``held``).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from vdsm.common import commands, groups

IDLE_S = 30.0

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "iohelper", "__main__.py")


class Nursery:
    def __init__(self) -> None:
        self._starting = asyncio.Lock()
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._end: asyncio.Future[int] | None = None
        self._helpers = 0
        self._timer: asyncio.TimerHandle | None = None

    async def bear(self, kept: tuple[int, ...]) -> socket.socket:
        """The connection of a new helper, which holds copies of ``kept``; told with `lost` when it is gone.

        Raises `OSError`.
        """
        self._helpers += 1
        ours, theirs = socket.socketpair()
        try:
            async with self._starting:
                control = self._control or await self._start()
                try:
                    socket.send_fds(control, [b"+"], [theirs.fileno(), *kept])
                except OSError:  # it was killed
                    socket.send_fds(await self._start(), [b"+"], [theirs.fileno(), *kept])
        except BaseException:
            ours.close()
            self.lost()
            raise
        finally:
            theirs.close()
        return ours

    def lost(self) -> None:
        """A helper is gone, or did not come to be."""
        self._helpers -= 1
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._see)

    def kill(self) -> None:
        """With all helpers: of one that bears none in time."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            groups.kill_group(self._process.pid)

    async def close(self, timeout_s: float) -> None:
        self.kill()
        if self._timer is not None:
            self._timer.cancel()
        if self._end is not None:
            await asyncio.wait([self._end], timeout=timeout_s)

    async def _start(self) -> socket.socket:
        self.kill()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            process = await commands.start(
                [_python(), "-I", "-S", "-E", _SCRIPT, str(theirs.fileno())],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=commands.ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                group=commands.BESIDE,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._control, self._process = ours, process
        self._end = asyncio.ensure_future(process.wait())
        self._end.add_done_callback(lambda _: groups.forget(process.pid))
        return ours

    def _see(self) -> None:
        if self._helpers == 0:
            self.kill()


def _python() -> str:
    # our own interpreter, not the virtual environment's shim: helpers need no packages
    return os.path.realpath(sys.executable)
