# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts: the root helper makes them under ``mnt`` and keeps the only record of what was mounted.

What root mounts is looked at before anybody sees it: agent and QEMU must be able to use it. A mount that does not
answer cannot be unmounted in order: it is cut off, open files and all. VMs and transfers keep it from that
(`Connections`): they may go on when the server comes back; cut off, they never do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Protocol

from storage.ondisk.remote_path import mount_name, normalise, server_and_path
from storage.servers import advice, nfs_options
from storage.servers.errors import AccessRefused, ConnectionRefused, DirectIoRefused, MountFailed, OptionRefused
from storage.servers.kinds import NfsExport, PosixMount, is_nfs
from vdsm.common.errors import AgentError, DeadlineExceeded
from vdsm.common.mountinfo import mount_points
from vdsm.root.client import Root

log = logging.getLogger("vdsm.storage.connections")

MOUNT_S = 120.0

# how the root helper says that what was mounted is not usable
_REFUSALS: dict[str, type[AccessRefused | DirectIoRefused]] = {
    "MountAccessRefused": AccessRefused,
    "ExportAccessRefused": AccessRefused,
    "MountNoDirectIo": DirectIoRefused,
}


class Reaches(Protocol):
    async def lacking(self, host: str, ports: Sequence[int]) -> str: ...


class Looks(Protocol):
    async def answers(self, path: str) -> bool:
        """Whether the storage at ``path`` answers within seconds, be it with an error."""


class Mounts:
    """``folder``: the one they all lie in."""

    def __init__(self, folder: str, root: Root, looks: Looks, reach: Reaches, io_timeout_s: int) -> None:
        self._folder = folder
        self._root = root
        self._looks = looks
        self._reach = reach
        self._io_timeout_s = io_timeout_s

    async def connect(self, connection: PosixMount | NfsExport) -> None:
        vfs_type, options = self._asked(connection)
        if vfs_type in ("nfs", "nfs4") and self.path(connection.spec) not in mount_points():
            await self._reached(connection.spec, options)
        spec = normalise(connection.spec)
        definition = {"spec": spec, "vfs_type": vfs_type, "options": options}
        try:
            await self._root.call("Mount.define", definition, timeout_s=MOUNT_S)
            mounted = await self._root.call("Mount.mount", {"mount_id": mount_name(spec)}, timeout_s=MOUNT_S)
        except AgentError as e:
            refusal = _REFUSALS.get(type(e).__name__) or _REFUSALS.get(getattr(e, "kind", "").rpartition(":")[2])
            if refusal is not None:
                raise refusal(connection.spec, str(e)) from e
            raise MountFailed(connection.spec, advice.with_advice(str(e))) from e
        for note in mounted["notes"]:
            log.warning("storage %s: %s", spec, note)

    async def disconnect(self, connection: PosixMount | NfsExport) -> None:
        path, mount_id = self.path(connection.spec), {"mount_id": mount_name(connection.spec)}
        if await self._answers(path):
            try:
                await self._root.call("Mount.unmount", mount_id, timeout_s=MOUNT_S)
                return
            except DeadlineExceeded:
                if await self._answers(path):
                    raise
        log.warning("the storage at %s does not answer: it is cut off", path)
        await self._root.call("Mount.unmount_forced", mount_id, timeout_s=MOUNT_S)

    def path(self, spec: str) -> str:
        return os.path.join(self._folder, mount_name(spec))

    def _asked(self, connection: PosixMount | NfsExport) -> tuple[str, str]:
        """Type and options for mount(8)."""
        try:
            if isinstance(connection, NfsExport):
                return "nfs", nfs_options.of_export(connection, self._io_timeout_s)
            if is_nfs(connection):
                return connection.vfs_type, nfs_options.of_posix_mount(connection, self._io_timeout_s)
        except OptionRefused as e:
            raise ConnectionRefused(connection.spec, str(e)) from e
        return connection.vfs_type, connection.options

    async def _answers(self, path: str) -> bool:
        """What is not mounted needs not."""
        return path not in mount_points() or await self._looks.answers(path)

    async def _reached(self, spec: str, options: str) -> None:
        ports = nfs_options.ports(options)
        if not ports:
            return
        host, _ = server_and_path(normalise(spec))
        if lacking := await self._reach.lacking(host, ports):
            raise MountFailed(spec, f"{lacking}; look at the server, its NFS service and the firewalls on the way")
