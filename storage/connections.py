# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage servers of this host: what a domain needs before it can be found.

A `Connection` is one of several kinds (`storage.servers.kinds`), each with a connector: LOCALFS a link, POSIXFS and NFS
a mount. All have a folder under ``mnt``, whose name comes from what is connected: ``_`` doubled, then ``/`` to ``_``
(storage.md 2.2).

All connections are worked on at the same time, each with a result of its own: one that is dead delays no other
(`storage.servers.room`), one that fails keeps none from being made. What is asked about one folder happens in the
order in which it was asked; who asks for what was asked last, and has not ended, waits for that: the n-th
caller of a dead server waits as long as the first. The work is nobody's call: a caller that goes away cancels nothing.

What the connected pool or a prepared image uses is not disconnected. The field cuts it off, open files
and all; its users would get errors for good, also when the storage is well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from storage.domains import Domains
from storage.ondisk.remote_path import mount_name
from storage.servers import kinds
from storage.servers.connectors import Connectors
from storage.servers.errors import ConnectionRefused, ConnectionUsed
from storage.servers.kinds import Connection, content, folder_name
from storage.servers.records import ConnectionRecords
from storage.servers.room import Room
from storage.source import MountedPlace
from vdsm.common import masking
from vdsm.common.errors import AgentError, RemoteError
from vdsm.common.owners import Lane

log = logging.getLogger("vdsm.storage.connections")


@dataclass(frozen=True)
class ConnectionResult:
    connection_id: str
    error: AgentError | None


@dataclass(frozen=True)
class _Asked:
    """What was asked last about a folder."""

    what: str
    connection: Connection
    work: asyncio.Task[AgentError | None]


class Connections:
    """``users_below``: who uses what is connected at a folder, by names for a person; asks records alone."""

    def __init__(
        self,
        mounts: str,
        connectors: Connectors,
        domains: Domains,
        *,
        users_below: Callable[[str], list[str]],
        records: ConnectionRecords,
    ) -> None:
        self._mounts = mounts
        self._connectors = connectors
        self._domains = domains
        self._users_below = users_below
        self._records = records
        self._last: dict[str, _Asked] = {}
        self._lanes: weakref.WeakValueDictionary[str, Lane] = weakref.WeakValueDictionary()
        self._room = Room()

    def mount_path(self, spec: str) -> str:
        return os.path.join(self._mounts, mount_name(spec))

    def connect(self, connections: Sequence[Connection]) -> Awaitable[list[ConnectionResult]]:
        """What is asked has its place in the order of its folders when this returns."""
        return self._each("connect", connections, self._connect, self._records.connected)

    def disconnect(self, connections: Sequence[Connection]) -> Awaitable[list[ConnectionResult]]:
        """As `connect`."""
        return self._each("disconnect", connections, self._disconnect, self._records.disconnected)

    async def close(self) -> None:
        """Cancel what runs; who waits is cancelled with it."""
        running = [asked.work for asked in self._last.values()]
        for work in running:
            work.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _each(
        self,
        what: str,
        connections: Sequence[Connection],
        action: Callable[[Connection], Awaitable[None]],
        record: Callable[[Connection, str], None],
    ) -> Awaitable[list[ConnectionResult]]:
        async def one(connection: Connection, work: asyncio.Task[AgentError | None]) -> ConnectionResult:
            error = await asyncio.shield(work)
            if not kinds.refused(connection):
                record(connection, masking.hide(str(error)) if error else "")
            return ConnectionResult(connection.connection_id, error)

        works = [self._joined(what, connection, action) for connection in connections]
        return asyncio.gather(*map(one, connections, works))

    def _joined(
        self, what: str, connection: Connection, action: Callable[[Connection], Awaitable[None]]
    ) -> asyncio.Task[AgentError | None]:
        """The work that does it: what was asked last, when that is the same."""
        name = folder_name(connection)
        last = self._last.get(name)
        if last is not None and last.what == what and content(last.connection) == content(connection):
            return last.work
        work = asyncio.get_running_loop().create_task(
            self._result(name, what, connection, action), name=f"{what} {name}"
        )
        self._last[name] = _Asked(what, connection, work)
        work.add_done_callback(lambda _: self._ended(name, work))
        return work

    def _ended(self, name: str, work: asyncio.Task[AgentError | None]) -> None:
        if (last := self._last.get(name)) is not None and last.work is work:
            del self._last[name]

    async def _result(
        self, name: str, what: str, connection: Connection, action: Callable[[Connection], Awaitable[None]]
    ) -> AgentError | None:
        lane = self._lanes.setdefault(name, Lane(f"connection {name}"))
        try:
            if reason := kinds.refused(connection):
                raise ConnectionRefused(connection.spec, reason)
            async with lane(what), self._room():
                await action(connection)
        except AgentError as e:
            log.warning("%s of storage %s (%s) failed: %s", what, connection.connection_id, name, e)
            return e
        except Exception as e:  # a surprise of one connection must not take the others' answers away
            log.exception("%s of storage %s (%s)", what, connection.connection_id, name)
            return RemoteError(type(e).__name__, f"{type(e).__name__}: {e}")
        return None

    async def _connect(self, connection: Connection) -> None:
        await self._connectors[type(connection)].connect(connection)
        await self._domains.connected(MountedPlace(self.mount_path(connection.spec)))

    async def _disconnect(self, connection: Connection) -> None:
        path = self.mount_path(connection.spec)
        if users := self._users_below(path):
            raise ConnectionUsed(connection.spec, users)
        await self._domains.leave(MountedPlace(path))
        await self._connectors[type(connection)].disconnect(connection)
