# SPDX-License-Identifier: GPL-2.0-or-later
"""Which connector each kind of connection has. iSCSI and FC are to join here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from storage.access import Identity
from storage.servers import local, mounts
from storage.servers.kinds import LocalFolder, NfsExport, PosixMount
from storage.servers.local import LocalFolders
from storage.servers.mounts import Mounts
from storage.servers.reach import Reach
from vdsm.root.client import Root


class Connector(Protocol):
    """Each takes its own kind of connection. Both raise `AgentError`, and are done again without harm."""

    async def connect(self, connection: Any) -> None: ...
    async def disconnect(self, connection: Any) -> None: ...


class Folders(local.Looks, mounts.Looks, Protocol):
    """Looks at what may hang."""


Connectors = Mapping[type, Connector]


def connectors(
    folder: str, root: Root, looks: Folders, *, qemu_users: Sequence[Identity], io_timeout_s: int
) -> Connectors:
    """``folder``: the one of all mounts; ``io_timeout_s``: the lock daemon's."""
    mounted = Mounts(folder, root, looks, Reach(), io_timeout_s)
    return {LocalFolder: LocalFolders(root, looks, qemu_users), PosixMount: mounted, NfsExport: mounted}
